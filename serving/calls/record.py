"""What is kept of each call: one log line, metrics, and a span where those are asked for."""

import time
from collections.abc import Iterable
from typing import Any, TypeAlias

import grpc
import structlog
from google.protobuf.descriptor import ServiceDescriptor
from prometheus_client import CollectorRegistry

from serving.access.gate import HEALTH, Guest
from serving.telemetry.call_meters import KINDS, MethodMeter, call_meters
from serving.telemetry.traces import PARENT, CallSpan, Spans, follow

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}

# What the server itself has done wrong; of its peers, nothing is an error here.
ERRORS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS}

log = structlog.get_logger(__name__)


class CallBook:
    """The calls of one server, a page for each method; those of `services` are counted from 0."""

    def __init__(
        self,
        registry: CollectorRegistry | None,
        services: Iterable[ServiceDescriptor],
        maybe_spans: Spans | None = None,
    ) -> None:
        self._meters = call_meters("server", registry)
        self._meters.introduce(services)
        self._maybe_spans = maybe_spans
        self._log = log.bind()  # a tenth of a line's cost is finding this again

    def page(self, method: str, handler: Handler) -> "Page":
        meter = self._meters.of(method, KINDS[handler.request_streaming, handler.response_streaming])
        return Page(method, meter, self._log, self._maybe_spans)


class Page:
    """The calls of one method; `method` is "" for those that nobody mounted."""

    def __init__(self, method: str, meter: MethodMeter, log: Any, maybe_spans: Spans | None) -> None:
        self.method = method
        self.meter = meter
        self.log = log
        self.is_told = not method.startswith(HEALTH)  # probes come every few seconds, and say nothing of anybody
        self._maybe_spans = maybe_spans if self.is_told else None

    def began(self, context: Context, guest: Guest) -> "CallRecord":
        """Within the task of the call; from now on it follows from its own span, if it has one."""
        self.meter.began()
        maybe_span = None
        if self._maybe_spans is not None:
            maybe_span = self._maybe_spans.call(self.method, PARENT.get())
            follow(maybe_span.parent)
        return CallRecord(self, context, guest, maybe_span)


class CallRecord:
    """One call, to be ended once."""

    __slots__ = ("_began_s", "_context", "_guest", "_maybe_span", "_page")

    def __init__(self, page: Page, context: Context, guest: Guest, maybe_span: CallSpan | None) -> None:
        self._page = page
        self._context = context
        self._guest = guest
        self._maybe_span = maybe_span
        self._began_s = time.perf_counter()

    def ended(self, code: grpc.StatusCode, reason: str = "") -> None:
        seconds = time.perf_counter() - self._began_s
        page = self._page
        page.meter.ended(code, seconds)
        if page.is_told:
            tell = page.log.error if code in ERRORS else page.log.info
            tell(
                "call",
                method=page.method,
                code=code.name,
                reason=reason,
                duration_ms=round(seconds * 1e3, 3),
                peer=self._context.peer(),
                key_id=self._guest.key_id,
            )
        if self._maybe_span is not None:
            self._maybe_span.ended(code, reason)


def code_of(context: Context) -> grpc.StatusCode:
    """What a handler that answered by itself has answered."""
    code: Any = context.code()
    return code if isinstance(code, grpc.StatusCode) else CODES.get(code, grpc.StatusCode.UNKNOWN)
