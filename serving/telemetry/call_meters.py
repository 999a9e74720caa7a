"""Metrics of gRPC calls, under the names that go-grpc-middleware made the standard ones."""

from dataclasses import dataclass

import grpc
from prometheus_client import CollectorRegistry, Counter, Histogram

# From a call answered out of memory to one that waits for RiskCast as long as it may.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

METHOD = ("grpc_type", "grpc_service", "grpc_method")

# As Go spells them; dashboards and alerts are written with these.
GO_CODES = {code: "".join(part.capitalize() for part in code.name.split("_")) for code in grpc.StatusCode} | {
    grpc.StatusCode.OK: "OK"
}


class MethodMeter:
    """The metrics of one method, looked up once."""

    def __init__(self, meters: "CallMeters", kind: str, method: str) -> None:
        service, _, name = method.strip("/").partition("/")
        self._labels = (kind, service or UNKNOWN, name or UNKNOWN)
        self._started = meters.started.labels(*self._labels)
        self._seconds = meters.seconds.labels(*self._labels)
        self._handled = meters.handled
        self._by_code: dict[grpc.StatusCode, Counter] = {}
        self.received = meters.received.labels(*self._labels).inc
        self.sent = meters.sent.labels(*self._labels).inc

    def began(self) -> None:
        self._started.inc()

    def ended(self, code: grpc.StatusCode, seconds: float) -> None:
        counter = self._by_code.get(code)
        if counter is None:
            counter = self._by_code[code] = self._handled.labels(*self._labels, GO_CODES[code])
        counter.inc()
        self._seconds.observe(seconds)


UNKNOWN = "unknown"  # a method that nobody mounted: its name is whatever a client sends


@dataclass(frozen=True, slots=True)
class CallMeters:
    """Calls of one side, "server" or "client"."""

    started: Counter
    handled: Counter
    seconds: Histogram
    received: Counter
    sent: Counter


def call_meters(side: str, registry: CollectorRegistry | None) -> CallMeters:
    """Registers them; without a registry they count for nobody."""
    prefix = f"grpc_{side}"
    return CallMeters(
        started=Counter(f"{prefix}_started_total", f"Calls begun on the {side}.", METHOD, registry=registry),
        handled=Counter(
            f"{prefix}_handled_total",
            f"Calls ended on the {side}, by status code.",
            (*METHOD, "grpc_code"),
            registry=registry,
        ),
        seconds=Histogram(
            f"{prefix}_handling_seconds",
            f"Seconds from the beginning of a call on the {side} to its status.",
            METHOD,
            buckets=SECONDS,
            registry=registry,
        ),
        received=Counter(
            f"{prefix}_msg_received_total", f"Messages received on the {side}.", METHOD, registry=registry
        ),
        sent=Counter(f"{prefix}_msg_sent_total", f"Messages sent on the {side}.", METHOD, registry=registry),
    )
