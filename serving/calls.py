"""What a call goes through between gRPC and the method of a service, for all four kinds of handlers.

gRPC itself parses a unary request before the handler and serialises its response after it, and sends the text of an
exception from either to the client. So both happen in here instead.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from contract.errors import ContractError, Reason
from serving.drain import OpenCalls
from serving.statuses import abort, malformed

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behaviour: TypeAlias = Callable[[Any, Context], Awaitable[Any]]

# (request is a stream, response is a stream) -> how gRPC names a handler of that kind
MAKE_HANDLER: dict[tuple[bool, bool], Callable[..., Handler]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}

# Headers wait for nothing but the socket; a client that stopped reading that is not waited for.
HEADERS_S = 0.5


class CallGuard(grpc.aio.ServerInterceptor):
    """Tracks each call and answers whatever ends it early with a rich status of `domain`.

    Handlers are coroutines, or async generators where the response is a stream. A method nobody mounted is answered
    like one that is not implemented.
    """

    def __init__(self, domain: str, open_calls: OpenCalls) -> None:
        self._domain = domain
        self._open_calls = open_calls

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        method = handler_call_details.method
        handler = await continuation(handler_call_details)
        return self._guarded(handler or unknown(method), method)

    def _guarded(self, handler: Handler, method: str) -> Handler:
        is_streaming = handler.request_streaming or handler.response_streaming
        answer = behaviour(handler)

        async def guarded(request: Any, context: Context) -> Any:
            try:
                with self._open_calls.entered(method, is_streaming):
                    return await answer(request, context)
            except asyncio.CancelledError as error:
                # The client left, or gRPC ends the call: nobody to answer. Otherwise the handler awaited something
                # that was cancelled elsewhere, and gRPC would leave the client without any answer.
                if is_being_cancelled():
                    raise
                failure: BaseException = error
            except Exception as error:
                if isinstance(error, grpc.aio.BaseError) and not isinstance(error, grpc.aio.UsageError):
                    raise  # gRPC's own: the handler has aborted, or the connection is gone
                failure = error
            await abort(context, failure, method, self._domain)

        return MAKE_HANDLER[handler.request_streaming, handler.response_streaming](
            guarded,
            request_deserializer=parser(handler) if handler.request_streaming else None,
            response_serializer=handler.response_serializer if handler.response_streaming else None,
        )


def behaviour(handler: Handler) -> Behaviour:
    """A handler of any kind as one coroutine function: bytes or an iterator in, bytes out or messages written."""
    function: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    parse, serialise = parser(handler), handler.response_serializer or bytes

    async def respond(request: Any, context: Context) -> bytes:
        return serialise(await function(request if handler.request_streaming else parse(request), context))

    async def stream(request: Any, context: Context) -> None:
        responses = function(request if handler.request_streaming else parse(request), context)
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


def unknown(method: str) -> Handler:
    """Reads nothing, so it fits every kind of call."""

    async def refuse(_requests: Any, _context: Context) -> None:
        raise ContractError(Reason.NOT_IMPLEMENTED, f"{method} is no method of this server")

    handler: Handler = grpc.stream_stream_rpc_method_handler(refuse)
    return handler


def is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
