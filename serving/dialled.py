"""A channel of a client that is secured: what it sends and shows is read again when its files change.

gRPC's channels have the certificates they were made with. So this one stands before them: a call that begins after the
files have changed begins on a new channel, and the one before is closed when its last call has ended. The calls
themselves are gRPC's own.
"""

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias
from weakref import WeakSet

import grpc

from serving.files import Reloaded, read_regular
from serving.security import KEY_HEADER, ClientSecurity, refusing
from serving.telemetry.call_meters import CallMeters, MethodMeter
from serving.telemetry.traces import trace_headers

# Longer than any call goes on: servers replace their connections every few minutes.
CALLS_END_WITHIN_S = 600.0

# About a hundred characters; what is much longer, or has a space in it, is another file.
KEY = re.compile(rb"([!-~]{1,1024})\s*")

# How metrics name the kinds of methods.
KINDS = {
    "unary_unary": "unary",
    "unary_stream": "server_stream",
    "stream_unary": "client_stream",
    "stream_stream": "bidi_stream",
}

Metadata: TypeAlias = grpc.aio.Metadata | Sequence[tuple[str, str | bytes]]
Header: TypeAlias = tuple[str, str | bytes]
Calls: TypeAlias = "WeakSet[grpc.aio.Call]"
Convert: TypeAlias = Callable[[Any], Any]


class SecuredChannel(grpc.aio.Channel):
    """To one target. Made on the event loop, as gRPC's own are."""

    def __init__(
        self,
        dial: Callable[[grpc.ChannelCredentials | None], grpc.aio.Channel],
        security: ClientSecurity,
        meters: CallMeters,
    ) -> None:
        """Raises SecurityRefused."""
        self._dial = dial
        self._meters = meters
        with refusing():
            self._maybe_key = maybe_key(security.api_key_file)
            self._maybe_credentials = security.maybe_tls.credentials() if security.maybe_tls else None
        self._shown = self._credentials()
        self._inner = dial(self._shown)
        self._calls: Calls = WeakSet()  # of the channel there is; one that nobody holds any more has been cancelled
        self._retired: dict[asyncio.Task[None], Calls] = {}

    def inner(self) -> grpc.aio.Channel:
        """The channel for a call that begins now."""
        credentials = self._credentials()
        if credentials is not self._shown:
            self._retire()
            self._shown, self._inner, self._calls = credentials, self._dial(credentials), WeakSet()
        return self._inner

    def redial(self) -> None:
        """The next call begins on a new connection, whatever the one there is says of itself."""
        self._retire()
        self._inner, self._calls = self._dial(self._shown), WeakSet()

    def begun(self, call: "grpc.aio.Call") -> None:
        """Told of each call on `inner()`."""
        self._calls.add(call)

    def headers(self) -> tuple[Header, ...]:
        """What a call that begins now sends besides what its caller says: the key, and the trace it is made for."""
        key = ((KEY_HEADER, self._maybe_key.current()),) if self._maybe_key else ()
        return (*key, *trace_headers())

    def _credentials(self) -> grpc.ChannelCredentials | None:
        return self._maybe_credentials.current() if self._maybe_credentials else None

    def _retire(self) -> None:
        closing = asyncio.ensure_future(self._inner.close(CALLS_END_WITHIN_S))
        self._retired[closing] = self._calls
        closing.add_done_callback(lambda closed: self._retired.pop(closed, None))

    def unary_unary(self, *method: Any, **options: Any) -> Any:
        return UnaryRequestMethod(self, "unary_unary", self._meters, *method, **options)

    def unary_stream(self, *method: Any, **options: Any) -> Any:
        return UnaryRequestMethod(self, "unary_stream", self._meters, *method, **options)

    def stream_unary(self, *method: Any, **options: Any) -> Any:
        return StreamRequestMethod(self, "stream_unary", self._meters, *method, **options)

    def stream_stream(self, *method: Any, **options: Any) -> Any:
        return StreamRequestMethod(self, "stream_stream", self._meters, *method, **options)

    async def close(self, grace: float | None = None) -> None:
        await self._inner.close(grace)
        retired = dict(self._retired)
        for call in [call for calls in retired.values() for call in calls]:
            call.cancel()  # a channel that waits for its calls cannot be told to hurry
        await asyncio.gather(*retired)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self.inner().get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._inner.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self.inner().channel_ready()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Method:
    """One method of a channel, as a stub has it, with its metrics."""

    def __init__(
        self,
        channel: SecuredChannel,
        kind: str,
        meters: CallMeters,
        method: str,
        request_serializer: Convert | None = None,
        response_deserializer: Convert | None = None,
        _registered_method: bool | None = False,
    ) -> None:
        self._channel = channel
        self._kind = kind
        self._meter = meters.of(method, KINDS[kind])
        self._declared = (
            method,
            counting(request_serializer, self._meter.sent),
            counting(response_deserializer, self._meter.received),
            _registered_method,
        )
        self._inner: grpc.aio.Channel | None = None
        self._call: Callable[..., Any]

    def _begun(self, request: Any, metadata: Metadata | None, options: dict[str, Any]) -> Any:
        inner = self._channel.inner()
        if inner is not self._inner:
            self._inner, self._call = inner, getattr(inner, self._kind)(*self._declared)
        call = self._call(request, metadata=(*self._channel.headers(), *(metadata or ())), **options)
        self._channel.begun(call)
        self._meter.began()
        call.add_done_callback(CallEnd(self._meter))
        return call


class UnaryRequestMethod(Method):
    def __call__(self, request: Any, *, metadata: Metadata | None = None, **options: Any) -> Any:
        return self._begun(request, metadata, options)


class StreamRequestMethod(Method):
    def __call__(
        self,
        request_iterator: Any = None,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        **options: Any,
    ) -> Any:
        return self._begun(request_iterator, metadata, {"timeout": timeout, **options})


class CallEnd:
    """What gRPC calls when a call has its status; which it may set twice."""

    __slots__ = ("_began_s", "_maybe_meter")

    def __init__(self, meter: MethodMeter) -> None:
        self._maybe_meter: MethodMeter | None = meter
        self._began_s = time.perf_counter()

    def __call__(self, call: "grpc.aio.Call") -> None:
        meter, self._maybe_meter = self._maybe_meter, None
        if meter is not None:
            meter.ended(code_of(call), time.perf_counter() - self._began_s)


def code_of(call: "grpc.aio.Call") -> grpc.StatusCode:
    """Of a call that has ended: gRPC tells it to who awaits, and here is nothing to wait for any more."""
    asked: Any = call.code()
    try:
        asked.send(None)
    except StopIteration as told:
        code: grpc.StatusCode = told.value
        return code
    asked.close()
    return grpc.StatusCode.UNKNOWN


def counting(maybe_convert: Convert | None, count: Callable[[], None]) -> Convert:
    """gRPC converts each message once."""

    def counted(message: Any) -> Any:
        count()
        return maybe_convert(message) if maybe_convert else message

    return counted


def refuse_unusable(security: ClientSecurity) -> None:
    """Raises SecurityRefused if the key or the certificates cannot be read, also where nobody is dialled."""
    with refusing():
        maybe_key(security.api_key_file)
        if security.maybe_tls:
            security.maybe_tls.credentials()


def maybe_key(maybe_file: Path | None) -> Reloaded[str] | None:
    """Raises OSError, ValueError."""
    return None if maybe_file is None else Reloaded([maybe_file], lambda: read_key(maybe_file))


def read_key(file: Path) -> str:
    """Raises OSError, and ValueError without a word of what the file holds."""
    found = KEY.fullmatch(read_regular(file))
    if found is None:
        raise ValueError(f"{file} does not hold one API key")
    return found[1].decode()
