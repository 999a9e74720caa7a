"""A service with one method of each kind, whose handlers run what a test tells them, and a client for all four."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.wrappers_pb2 import DESCRIPTOR as WRAPPERS
from google.protobuf.wrappers_pb2 import StringValue

import serving
from contract.errors import ErrorDetails

KINDS = ("UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream")
STREAMS = KINDS[1:]
DOMAIN = "omen.v1"

Context = grpc.aio.ServicerContext[Any, Any]
Script = Callable[[Context], Awaitable[None]]


def declare_service() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="probe/v1/probe.proto", package="probe.v1", syntax="proto3")
    file.dependency.append(WRAPPERS.name)
    service = file.service.add(name="ProbeService")
    for kind in KINDS:
        service.method.add(
            name=kind,
            input_type=".google.protobuf.StringValue",
            output_type=".google.protobuf.StringValue",
            client_streaming=kind.startswith("Stream"),
            server_streaming=kind.endswith("Stream"),
        )
    return descriptor_pool.Default().AddSerializedFile(file.SerializeToString()).services_by_name["ProbeService"]


SERVICE = declare_service()


class Probe:
    """Each handler takes its requests, runs the script and answers with the last request.

    `entered` and `left` count handlers; left means that its `finally` has run. Wait for a count with `reached`.
    """

    def __init__(self, script: Script | None = None) -> None:
        self.script = script
        self.entered = 0
        self.left = 0
        self._changed = asyncio.Condition()

    async def reached(self, *, entered: int = 0, left: int = 0) -> None:
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(lambda: self.entered >= entered and self.left >= left)

    async def UnaryUnary(self, request: StringValue, context: Context) -> StringValue:
        await self._run(context)
        return request

    async def UnaryStream(self, request: StringValue, context: Context) -> AsyncIterator[StringValue]:
        await self._run(context)
        yield request

    async def StreamUnary(self, requests: AsyncIterator[StringValue], context: Context) -> StringValue:
        last = StringValue()
        async for request in requests:
            last = request
            await self._run(context)
        return last

    async def StreamStream(self, requests: AsyncIterator[StringValue], context: Context) -> AsyncIterator[StringValue]:
        async for request in requests:
            await self._run(context)
            yield request

    async def _run(self, context: Context) -> None:
        self.entered += 1
        await self._notify()
        try:
            if self.script:
                await self.script(context)
        finally:
            self.left += 1
            await asyncio.shield(self._notify())

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


MAKE_HANDLER: dict[str, Callable[..., Any]] = {
    "UnaryUnary": grpc.unary_unary_rpc_method_handler,
    "UnaryStream": grpc.unary_stream_rpc_method_handler,
    "StreamUnary": grpc.stream_unary_rpc_method_handler,
    "StreamStream": grpc.stream_stream_rpc_method_handler,
}


def mount(probe: object) -> serving.Mount:
    """Mounts an object that has the four methods."""

    def add(server: grpc.aio.Server) -> None:
        handlers = {
            kind: MAKE_HANDLER[kind](
                getattr(probe, kind),
                request_deserializer=StringValue.FromString,
                response_serializer=StringValue.SerializeToString,
            )
            for kind in KINDS
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE.full_name, handlers),))

    return serving.Mount(SERVICE, add)


def served(
    probe: object, listen: str = "127.0.0.1:0", grace_s: float = 5.0
) -> AbstractAsyncContextManager[serving.Running]:
    return serving.serve(listen, [mount(probe)], domain=DOMAIN, grace_s=grace_s)


@dataclass(frozen=True)
class Failure:
    """How a call failed, as its client sees it."""

    code: grpc.StatusCode
    text: str
    trailers: dict[str, str | bytes]
    details: ErrorDetails | None

    @property
    def reason(self) -> str:
        return self.details.reason if self.details else ""

    @property
    def everything(self) -> str:
        """All that the server said, to search for what it must not say."""
        return f"{self.text} {self.trailers}"


def open_call(
    channel: grpc.aio.Channel,
    kind: str,
    text: str | bytes = "hello",
    *,
    method: str = "",
    metadata: Sequence[tuple[str, str | bytes]] = (),
) -> Any:
    """Starts a call with one request; bytes are sent as they are, instead of a message."""
    request = text if isinstance(text, bytes) else StringValue(value=text).SerializeToString()
    make: dict[str, Callable[..., Any]] = {
        "UnaryUnary": channel.unary_unary,
        "UnaryStream": channel.unary_stream,
        "StreamUnary": channel.stream_unary,
        "StreamStream": channel.stream_stream,
    }
    call = make[kind](method or f"/{SERVICE.full_name}/{kind}", None, StringValue.FromString)
    return call(once(request) if kind.startswith("Stream") else request, timeout=10, metadata=metadata)


async def once(request: bytes) -> AsyncIterator[bytes]:
    yield request


async def responses(call: Any) -> list[Any]:
    """The messages that a call of any kind answers, to its end; raises AioRpcError."""
    if isinstance(call, grpc.aio.UnaryUnaryCall | grpc.aio.StreamUnaryCall):
        return [await call]
    return [response async for response in call]


async def answers(call: Any) -> list[str]:
    """The same of a probe, as the texts that were sent."""
    return [response.value for response in await responses(call)]


async def failure(call: Any) -> Failure:
    """How a call fails; an answer to its end is an error of the test."""
    try:
        answered = await responses(call)
    except grpc.aio.AioRpcError as error:
        trailers = list(error.trailing_metadata() or ())
        details = ErrorDetails.from_trailing_metadata(trailers)
        return Failure(error.code(), error.details() or "", dict(trailers), details)
    raise AssertionError(f"answered {answered}")
