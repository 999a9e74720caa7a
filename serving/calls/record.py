"""What is kept of each call: one log line, and metrics."""

import time
from typing import Any, TypeAlias

import grpc
import structlog
from prometheus_client import CollectorRegistry

from serving.access.gate import HEALTH, Guest
from serving.telemetry.call_meters import MethodMeter, call_meters

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

# (request is a stream, response is a stream) -> how metrics name the kind
KINDS = {
    (False, False): "unary",
    (False, True): "server_stream",
    (True, False): "client_stream",
    (True, True): "bidi_stream",
}

CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}

log = structlog.get_logger()


class CallBook:
    """The calls of one server, a page for each method."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        self._meters = call_meters("server", registry)

    def page(self, method: str, handler: Handler) -> "Page":
        kind = KINDS[handler.request_streaming, handler.response_streaming]
        return Page(method, MethodMeter(self._meters, kind, method))


class Page:
    """The calls of one method; `method` is "" for those that nobody mounted."""

    def __init__(self, method: str, meter: MethodMeter) -> None:
        self.method = method
        self.meter = meter
        self.is_told = not method.startswith(HEALTH)  # probes come every few seconds, and say nothing of anybody

    def began(self, context: Context, guest: Guest) -> "CallRecord":
        self.meter.began()
        return CallRecord(self, context, guest)


class CallRecord:
    """One call, to be ended once."""

    __slots__ = ("_began_s", "_context", "_guest", "_page")

    def __init__(self, page: Page, context: Context, guest: Guest) -> None:
        self._page = page
        self._context = context
        self._guest = guest
        self._began_s = time.perf_counter()

    def ended(self, code: grpc.StatusCode, reason: str = "") -> None:
        seconds = time.perf_counter() - self._began_s
        self._page.meter.ended(code, seconds)
        if self._page.is_told:
            log.info(
                "call",
                method=self._page.method,
                code=code.name,
                reason=reason,
                duration_ms=round(seconds * 1e3, 3),
                peer=self._context.peer(),
                key_id=self._guest.key_id,
            )


def code_of(context: Context) -> grpc.StatusCode:
    """What a handler that answered by itself has answered."""
    code: Any = context.code()
    return code if isinstance(code, grpc.StatusCode) else CODES.get(code, grpc.StatusCode.UNKNOWN)
