"""Metrics of gRPC calls, under the names that go-grpc-middleware made the standard ones."""

from collections.abc import Iterable

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from prometheus_client import CollectorRegistry, Counter, Histogram

# From a call answered out of memory to one that waits for RiskCast as long as it may.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

METHOD = ("grpc_type", "grpc_service", "grpc_method")

# (request is a stream, response is a stream) -> how metrics name the kind
KINDS = {
    (False, False): "unary",
    (False, True): "server_stream",
    (True, False): "client_stream",
    (True, True): "bidi_stream",
}

# As Go spells them; dashboards and alerts are written with these.
GO_CODES = {code: "".join(part.capitalize() for part in code.name.split("_")) for code in grpc.StatusCode} | {
    grpc.StatusCode.OK: "OK",
    grpc.StatusCode.CANCELLED: "Canceled",
}

UNKNOWN = "unknown"  # a method that nobody mounted: its name is whatever a client sends


class MethodMeter:
    """The metrics of one method, looked up once. They begin at 0: the rate of what appears with its first event misses
    that event."""

    def __init__(self, meters: "CallMeters", kind: str, method: str) -> None:
        service, _, name = method.strip("/").partition("/")
        self._labels = (kind, service or UNKNOWN, name or UNKNOWN)
        self._started = meters.started.labels(*self._labels)
        self._seconds = meters.seconds.labels(*self._labels)
        self._handled = meters.handled
        self._by_code = {grpc.StatusCode.OK: self._code(grpc.StatusCode.OK)}
        self.received = meters.received.labels(*self._labels).inc
        self.sent = meters.sent.labels(*self._labels).inc

    def began(self) -> None:
        self._started.inc()

    def ended(self, code: grpc.StatusCode, seconds: float) -> None:
        counter = self._by_code.get(code)
        if counter is None:
            counter = self._by_code[code] = self._code(code)
        counter.inc()
        self._seconds.observe(seconds)

    def _code(self, code: grpc.StatusCode) -> Counter:
        return self._handled.labels(*self._labels, GO_CODES[code])


class CallMeters:
    """Calls of one side, "server" or "client". Without a registry they count for nobody."""

    def __init__(self, side: str, registry: CollectorRegistry | None) -> None:
        prefix = f"grpc_{side}"
        self.started = Counter(f"{prefix}_started_total", f"Calls begun on the {side}.", METHOD, registry=registry)
        self.handled = Counter(
            f"{prefix}_handled_total",
            f"Calls ended on the {side}, by status code.",
            (*METHOD, "grpc_code"),
            registry=registry,
        )
        self.seconds = Histogram(
            f"{prefix}_handling_seconds",
            f"Seconds from the beginning of a call on the {side} to its status.",
            METHOD,
            buckets=SECONDS,
            registry=registry,
        )
        self.received = Counter(
            f"{prefix}_msg_received_total", f"Messages received on the {side}.", METHOD, registry=registry
        )
        self.sent = Counter(f"{prefix}_msg_sent_total", f"Messages sent on the {side}.", METHOD, registry=registry)
        self._methods: dict[str, MethodMeter] = {}

    def introduce(self, services: Iterable[ServiceDescriptor]) -> None:
        """Shows every method of these at 0 before it is called."""
        for service in services:
            for method in service.methods:
                kind = KINDS[method.client_streaming, method.server_streaming]
                self.of(f"/{service.full_name}/{method.name}", kind)

    def of(self, method: str, kind: str) -> MethodMeter:
        """`method` is one that is mounted here, or that our own stubs call, or "": each makes a series for good.

        The kind by which a method was introduced stands: a call that is refused unread may look like any.
        """
        meter = self._methods.get(method)
        if meter is None:
            meter = self._methods[method] = MethodMeter(self, kind, method)
        return meter


def call_meters(side: str, registry: CollectorRegistry | None) -> CallMeters:
    """Once for each side of a registry."""
    return CallMeters(side, registry)
