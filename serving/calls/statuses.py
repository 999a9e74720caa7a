"""The one place where an exception becomes a gRPC status.

A ContractError says what the client may know. Of anything else the client learns an error_id, which the log has too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias
from uuid import uuid4

import grpc
import structlog
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from contract.errors import ContractError, Reason, internal, not_implemented

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


@dataclass(frozen=True, slots=True)
class Answer:
    """How a call fails: its code, the reason that the log tells too ("" if it has none), and all that is sent."""

    code: grpc.StatusCode
    reason: str
    details: str
    trailing_metadata: Sequence[tuple[str, str | bytes]]

    async def abort(self, context: Context) -> NoReturn:
        await context.abort(self.code, self.details, tuple(self.trailing_metadata))


def answer_to(failure: BaseException, method: str, context: Context, domain: str) -> Answer:
    """Code, message, grpc-status-details-bin and the error's own trailers, for whatever ended a handler."""
    error = contract_error(failure, method, context)
    try:
        status = error.status(domain)
    except (TypeError, ValueError, AttributeError) as bug:  # metadata that is no text, for example
        error = unforeseen(bug, method)
        status = error.status(domain)
    rich = rpc_status.to_status(status)
    return Answer(rich.code, error.reason, rich.details, (*rich.trailing_metadata, *error.trailers))


def contract_error(failure: BaseException, method: str, context: Context) -> ContractError:
    """What to tell the client about what ended its handler."""
    sole = sole_error(failure)
    if isinstance(sole, ContractError):
        return sole
    # A generated servicer sets this code before it raises; a NotImplementedError from anywhere else is a bug.
    if isinstance(sole, NotImplementedError) and context.code() is grpc.StatusCode.UNIMPLEMENTED:
        return not_implemented(method)
    return unforeseen(failure, method)


def sole_error(failure: BaseException) -> BaseException:
    """A TaskGroup in a handler wraps the error of its one failed task in a group."""
    while isinstance(failure, BaseExceptionGroup) and len(failure.exceptions) == 1:
        failure = failure.exceptions[0]
    return failure


def unforeseen(bug: BaseException, method: str) -> ContractError:
    """Logs a bug with its traceback; the client learns only where to find it."""
    error_id = str(uuid4())
    structlog.get_logger(__name__).error("handler_failed", method=method, error_id=error_id, exc_info=bug)
    return internal(error_id)


def shutting_down() -> ContractError:
    return ContractError(Reason.SHUTTING_DOWN, "the server is shutting down")


def malformed(cause: DecodeError) -> ContractError:
    """Bytes that are no message of the expected type. What the parser said of them is not for the client."""
    error = ContractError(Reason.INVALID_SIGNAL, "the request is not a valid protobuf message")
    error.__cause__ = cause
    return error
