"""What a call goes through between gRPC and the method of a service, for all four kinds of handlers.

    headers ─► gate (key, scope, rate) ─► drain (still open?) ─► handler ─► status ─► one log line, metrics

A call that is not let in is answered before anything of its request is read.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, NoReturn

import grpc

from contract.errors import ContractError, Reason
from serving.access.gate import NO_METHOD, NOBODY, Gate, Guest
from serving.calls.drain import OpenCalls
from serving.calls.handlers import Context, Handler, behaviour, parser
from serving.calls.record import CallBook, code_of
from serving.calls.statuses import answer_to

# (request is a stream, response is a stream) -> how gRPC names a handler of that kind
MAKE_HANDLER: dict[tuple[bool, bool], Callable[..., Handler]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}

# Who makes the call. gRPC runs the interceptor and the handler of a call in one task.
GUEST: ContextVar[Guest] = ContextVar("guest")


class CallGuard(grpc.aio.ServerInterceptor):
    """Lets calls in, tracks each, and answers whatever ends one early with a rich status of `domain`.

    Handlers are coroutines, or async generators where the response is a stream. A method nobody mounted is answered
    like one that is not implemented.
    """

    def __init__(self, domain: str, open_calls: OpenCalls, gate: Gate, book: CallBook) -> None:
        self._domain = domain
        self._open_calls = open_calls
        self._gate = gate
        self._book = book
        self._handlers: dict[str, Handler] = {}  # of the methods that are mounted: a bounded number

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        method = handler_call_details.method
        handler = self._handlers.get(method)
        if handler is None and (mounted := await continuation(handler_call_details)):
            handler = self._handlers[method] = self._guarded(mounted, method)
        try:
            self._admit(method if handler else NO_METHOD, handler_call_details)
        except ContractError as error:
            return self._refusing(error, method if handler else NO_METHOD)
        return handler or self._refusing(unknown(method), NO_METHOD)

    def _admit(self, method: str, details: grpc.HandlerCallDetails) -> None:
        guest = self._gate.identify(method, details.invocation_metadata)
        GUEST.set(guest)
        self._gate.allow(guest, method)

    def _refusing(self, error: ContractError, method: str) -> Handler:
        """Reads nothing of the request, so it fits every kind of call."""

        async def refuse(_requests: Any, _context: Context) -> NoReturn:
            raise error

        return self._guarded(grpc.stream_stream_rpc_method_handler(refuse), method)

    def _guarded(self, handler: Handler, method: str) -> Handler:
        is_streaming = handler.request_streaming or handler.response_streaming
        page = self._book.page(method, handler)
        answer = behaviour(handler, page.meter)

        async def guarded(request: Any, context: Context) -> Any:
            guest = GUEST.get(NOBODY)
            record = page.began(context, guest)
            try:
                with self._open_calls.entered(method, is_streaming, guest):
                    response = await answer(request, context, guest)
            except asyncio.CancelledError as error:
                # The client left, or gRPC ends the call: nobody to answer. Otherwise the handler awaited something
                # that was cancelled elsewhere, and gRPC would leave the client without any answer.
                if is_being_cancelled():
                    record.ended(grpc.StatusCode.CANCELLED)
                    raise
                failure: BaseException = error
            except Exception as error:
                if isinstance(error, grpc.aio.BaseError) and not isinstance(error, grpc.aio.UsageError):
                    record.ended(code_of(context))
                    raise  # gRPC's own: the handler has aborted, or the connection is gone
                failure = error
            else:
                record.ended(grpc.StatusCode.OK)
                return response
            answer_given = answer_to(failure, method, context, self._domain)
            record.ended(answer_given.code, answer_given.reason)
            await answer_given.abort(context)

        return MAKE_HANDLER[handler.request_streaming, handler.response_streaming](
            guarded,
            request_deserializer=parser(handler) if handler.request_streaming else None,
            response_serializer=handler.response_serializer if handler.response_streaming else None,
        )


def unknown(method: str) -> ContractError:
    return ContractError(Reason.NOT_IMPLEMENTED, f"{method} is no method of this server")


def is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
