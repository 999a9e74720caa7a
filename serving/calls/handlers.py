"""A handler of any kind as one coroutine function: bytes or an iterator in, bytes out or messages written.

gRPC itself parses a unary request before the handler and serialises its response after it, and sends the text of an
exception from either to the client. So both happen in here instead.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Self, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from serving.access.gate import Guest
from serving.calls.statuses import malformed
from serving.telemetry.call_meters import MethodMeter

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behaviour: TypeAlias = Callable[[Any, Context, Guest], Awaitable[Any]]

# Headers wait for nothing but the socket; a client that stopped reading that is not waited for.
HEADERS_S = 0.5


class Requests:
    """The requests of a stream, counted, each in its key's turn: a client that sends too fast is slowed down."""

    def __init__(self, requests: AsyncIterator[Any], guest: Guest, meter: MethodMeter) -> None:
        self._requests = requests
        self._iterator: AsyncIterator[Any] | None = None  # gRPC complains of one that nobody steps through
        self._maybe_bucket = guest.maybe_bucket
        self._meter = meter

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if self._iterator is None:
            self._iterator = aiter(self._requests)
        request = await anext(self._iterator)
        self._meter.received()
        if self._maybe_bucket is not None and (wait_s := self._maybe_bucket.reserve()):
            await asyncio.sleep(wait_s)
        return request


def behaviour(handler: Handler, meter: MethodMeter) -> Behaviour:
    """What a guard runs for `handler`."""
    function: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    parse, serialise = parser(handler), handler.response_serializer or bytes

    def requested(request: Any, guest: Guest) -> Any:
        if handler.request_streaming:
            return Requests(request, guest, meter)
        meter.received()
        return parse(request)

    async def respond(request: Any, context: Context, guest: Guest) -> bytes:
        response = serialise(await function(requested(request, guest), context))
        meter.sent()
        return response

    async def stream(request: Any, context: Context, guest: Guest) -> None:
        responses = function(requested(request, guest), context)
        if not hasattr(responses, "__aiter__"):
            await responses  # it writes to the context by itself
            return
        are_headers_sent = False
        async with aclosing(responses):  # its `finally` has run when the call ends, not when the collector comes by
            async for response in responses:
                if not are_headers_sent:
                    await send_headers(context)
                    are_headers_sent = True
                await context.write(response)
                meter.sent()

    return stream if handler.response_streaming else respond


async def send_headers(context: Context) -> None:
    """Sends them once for sure, even if the handler is cut meanwhile.

    gRPC sends them with the first message, and again with the status if that write is cut (it waits while the client
    does not read); its core refuses such a status, so the client would not hear the reason.
    """
    sending = asyncio.ensure_future(context.send_initial_metadata(()))
    sending.add_done_callback(lambda sent: sent.cancelled() or sent.exception())  # a client that left is no news
    try:
        await asyncio.shield(sending)
    except asyncio.CancelledError:
        await asyncio.wait([sending], timeout=HEADERS_S)
        raise


def parser(handler: Handler) -> Callable[[bytes], Any]:
    deserialise = handler.request_deserializer or bytes

    def parse(data: bytes) -> Any:
        try:
            return deserialise(data)
        except DecodeError as error:
            raise malformed(error) from error

    return parse
