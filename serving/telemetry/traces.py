"""Which trace a request belongs to, as W3C Trace Context has it, and what records spans where that is asked for.

A call goes on with the trace that its `traceparent` names. Without one it has a trace only where spans are recorded.
"""

import re
from collections.abc import Iterable
from contextvars import ContextVar
from typing import NamedTuple, Protocol

import grpc
from structlog.contextvars import bind_contextvars

HEADER = "traceparent"
CHARS_MAX = 128  # as of the field that it is stored in; the version that we know has 55

TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]*)?")
KNOWN_VERSION = "00"
NO_VERSION = "ff"
NO_TRACE = "0" * 32
NO_SPAN = "0" * 16


class TraceParent(NamedTuple):
    """A span somewhere, which what happens here follows from: 32, 16 and 2 hex digits in lower case."""

    trace_id: str
    span_id: str
    flags: str

    def __str__(self) -> str:
        return f"{KNOWN_VERSION}-{self.trace_id}-{self.span_id}-{self.flags}"


# Of the call that runs in this task: gRPC gives each one of its own.
PARENT: ContextVar[TraceParent | None] = ContextVar("traceparent", default=None)


class CallSpan(Protocol):
    """One call. `parent` is what it is to those who follow from it."""

    @property
    def parent(self) -> TraceParent: ...

    def ended(self, code: grpc.StatusCode, reason: str) -> None: ...


class BatchSpan(Protocol):
    """One message of records."""

    def ended(self, error: str, counts: dict[str, int]) -> None:
        """`error` is "" unless the whole message came to nothing."""


class Spans(Protocol):
    """What records them."""

    def call(self, method: str, maybe_parent: TraceParent | None) -> CallSpan: ...

    def batch(
        self, name: str, maybe_parent: TraceParent | None, origins: Iterable[TraceParent], attributes: dict[str, str]
    ) -> BatchSpan:
        """`origins` are the spans that its records come from."""


def maybe_parent(text: str) -> TraceParent | None:
    """None for what is no traceparent; a later version is read as far as it is like ours."""
    found = TRACEPARENT.fullmatch(text) if len(text) <= CHARS_MAX else None
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == NO_VERSION or (version == KNOWN_VERSION and more) or trace_id == NO_TRACE or span_id == NO_SPAN:
        return None
    return TraceParent(trace_id, span_id, flags)


def join_trace(metadata: Iterable[tuple[str, str | bytes]]) -> None:
    """Has the running call go on with the trace that its metadata names, if it names one."""
    sent = [value for name, value in metadata if name == HEADER]
    if len(sent) == 1 and isinstance(sent[0], str) and (parent := maybe_parent(sent[0])):
        follow(parent)


def follow(parent: TraceParent) -> None:
    """From now on the running call, and each line of it, is of this trace."""
    PARENT.set(parent)
    bind_contextvars(trace_id=parent.trace_id)


def current_traceparent() -> str:
    """What goes with whatever the running call sends or stores; "" without a trace."""
    parent = PARENT.get()
    return str(parent) if parent else ""


def trace_headers() -> tuple[tuple[str, str], ...]:
    """What a call that is made for the running one sends along."""
    traceparent = current_traceparent()
    return ((HEADER, traceparent),) if traceparent else ()
