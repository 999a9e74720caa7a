"""What a call goes through between gRPC and the method of a service, for all four kinds of handlers.

    headers ─► gate (key, scope, rate) ─► drain (still open?) ─► handler ─► status ─► one log line, metrics

A call that is not let in is answered before anything of its request is read.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, NoReturn

import grpc

from contract.errors import ContractError, Reason
from serving.access.gate import NO_METHOD, NOBODY, Gate, Guest
from serving.calls.drain import OpenCalls
from serving.calls.handlers import Context, Handler, behaviour, parser
from serving.calls.record import CallBook, code_of
from serving.calls.statuses import answer_to
from serving.telemetry.traces import join_trace

# (request is a stream, response is a stream) -> how gRPC names a handler of that kind
MAKE_HANDLER: dict[tuple[bool, bool], Callable[..., Handler]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}

# Who makes the call.
GUEST: ContextVar[Guest] = ContextVar("guest")


class Guard(grpc.GenericRpcHandler):
    """Lets calls in, tracks each, and answers whatever ends one early with a rich status of `domain`.

    It stands where a server looks for the handler of a method, which costs a tenth of an interceptor. What it guards is
    added to it as to a server; handlers are coroutines, or async generators where the response is a stream. A method
    nobody added is answered like one that is not implemented.
    """

    def __init__(self, domain: str, open_calls: OpenCalls, gate: Gate, book: CallBook) -> None:
        self._domain = domain
        self._open_calls = open_calls
        self._gate = gate
        self._book = book
        self._unguarded: list[grpc.GenericRpcHandler] = []
        self._guarded: dict[str, Handler] = {}  # of methods that were added: a bounded number

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """What generated code calls, on a server or on this."""
        self._unguarded += handlers

    def add_registered_method_handlers(self, _service: str, _handlers: Mapping[str, Handler]) -> None:
        """What generated code calls too; of no use on asyncio."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler:
        """Called by gRPC once for each call, in the task that then runs the handler."""
        method = handler_call_details.method
        handler = self._guarded.get(method) or self._maybe_guard(handler_call_details)
        known = method if handler else NO_METHOD
        metadata = handler_call_details.invocation_metadata or ()
        join_trace(metadata)
        try:
            guest = self._gate.identify(known, metadata)
            GUEST.set(guest)
            self._gate.allow(guest, known)
        except ContractError as error:
            return self._refusing(error, known)
        return handler or self._refusing(unknown(method), known)

    def _maybe_guard(self, details: grpc.HandlerCallDetails) -> "Handler | None":
        for unguarded in self._unguarded:
            if handler := unguarded.service(details):
                self._guarded[details.method] = self._guard(handler, details.method)
                return self._guarded[details.method]
        return None

    def _refusing(self, error: ContractError, method: str) -> Handler:
        """Reads nothing of the request, so it fits every kind of call."""

        async def refuse(_requests: Any, _context: Context) -> NoReturn:
            raise error

        return self._guard(grpc.stream_stream_rpc_method_handler(refuse), method)

    def _guard(self, handler: Handler, method: str) -> Handler:
        is_streaming = handler.request_streaming or handler.response_streaming
        page = self._book.page(method, handler)
        answer = behaviour(handler, page.meter)

        async def guarded(request: Any, context: Context) -> Any:
            guest = GUEST.get(NOBODY)
            record = page.began(context, guest)
            try:
                with self._open_calls.entering(method, is_streaming, guest):
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
