"""Spans for a collector, by OpenTelemetry's SDK, made here by hand: nothing is patched, and nothing of it is global.

Spans are sent by a thread of the SDK, from a queue that drops what it cannot hold: no call waits for a collector. How
they are sampled, queued and sent is what OpenTelemetry's own OTEL_* variables say.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from itertools import islice
from threading import Thread

import grpc
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)
from structlog.contextvars import get_contextvars

from serving.telemetry.traces import TraceParent

# For what is queued when the server stops; a collector that is away costs the stop no more.
FLUSH_S = 0.8
# What the SDK keeps of a span's links. A message of 256 records may come from as many traces; its log line names all.
LINKS_MAX = 128

# What OpenTelemetry's conventions call an error of a server. A duplicate and a client that left are none.
ERRORS = {
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}
# What a call's log lines name, its span names too.
NAMES = ("signal_id", "deterministic_trace_id", "status")
UNKNOWN = "unknown"  # a method that nobody mounted: its name is whatever a client sends


@asynccontextmanager
async def recording(endpoint: str, service: str) -> AsyncIterator["OtlpSpans"]:
    """Sends spans to `endpoint`, a URL, until the end of the block; then what is left, as long as FLUSH_S."""
    # Ended here alone: at the exit of the process it would wait for a collector that is away.
    provider = TracerProvider(resource=Resource.create({"service.name": service}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
    try:
        yield OtlpSpans(provider.get_tracer("omen-riskcast"))
    finally:
        flushing = Thread(target=provider.shutdown, name="flush-spans", daemon=True)
        flushing.start()
        await asyncio.to_thread(flushing.join, FLUSH_S)


class OtlpSpans:
    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def call(self, method: str, maybe_parent: TraceParent | None) -> "OtlpCallSpan":
        service, _, name = method.strip("/").partition("/")
        attributes = {"rpc.system": "grpc", "rpc.service": service or UNKNOWN, "rpc.method": name or UNKNOWN}
        span = self._tracer.start_span(
            method.strip("/") or UNKNOWN, context_of(maybe_parent), SpanKind.SERVER, attributes=attributes
        )
        return OtlpCallSpan(span)

    def batch(
        self, name: str, maybe_parent: TraceParent | None, origins: Iterable[TraceParent], attributes: dict[str, str]
    ) -> "OtlpBatchSpan":
        links = [Link(span_context(origin)) for origin in islice(origins, LINKS_MAX)]
        span = self._tracer.start_span(
            name, context_of(maybe_parent), SpanKind.CONSUMER, attributes=attributes, links=links
        )
        return OtlpBatchSpan(span)


class OtlpCallSpan:
    def __init__(self, span: Span) -> None:
        self._span = span

    @property
    def parent(self) -> TraceParent:
        own = self._span.get_span_context()
        return TraceParent(f"{own.trace_id:032x}", f"{own.span_id:016x}", f"{own.trace_flags:02x}")

    def ended(self, code: grpc.StatusCode, reason: str) -> None:
        bound = get_contextvars()
        self._span.set_attributes({name: bound[name] for name in NAMES if name in bound})
        self._span.set_attribute("rpc.grpc.status_code", code.value[0])
        if reason:
            self._span.set_attribute("reason", reason)
        if code in ERRORS:
            self._span.set_status(Status(StatusCode.ERROR, reason or code.name))
        self._span.end()


class OtlpBatchSpan:
    def __init__(self, span: Span) -> None:
        self._span = span

    def ended(self, error: str, counts: dict[str, int]) -> None:
        self._span.set_attributes(counts)
        if error:
            self._span.set_status(Status(StatusCode.ERROR, error))
        self._span.end()


def context_of(maybe_parent: TraceParent | None) -> Context:
    """Without a parent a trace of its own, whatever else runs in this task."""
    if maybe_parent is None:
        return Context()
    return set_span_in_context(NonRecordingSpan(span_context(maybe_parent)), Context())


def span_context(parent: TraceParent) -> SpanContext:
    flags = TraceFlags(int(parent.flags, 16))
    return SpanContext(int(parent.trace_id, 16), int(parent.span_id, 16), is_remote=True, trace_flags=flags)
