"""Metrics of gRPC calls, under the names that go-grpc-middleware made the standard ones."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from math import inf

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

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
    """The metrics of one method. They begin at 0: the rate of what appears with its first event misses that event.

    Plain numbers, counted on the event loop and read by whoever scrapes: the library's counters, each with a lock
    of its own, cost a call ten times as much.
    """

    __slots__ = ("by_bucket", "by_code", "labels", "received_count", "seconds_total", "sent_count", "started_count")

    def __init__(self, kind: str, method: str) -> None:
        service, _, name = method.strip("/").partition("/")
        self.labels = (kind, service or UNKNOWN, name or UNKNOWN)
        self.started_count = 0
        self.received_count = 0
        self.sent_count = 0
        self.by_code = {grpc.StatusCode.OK: 0}
        self.by_bucket = [0] * (len(SECONDS) + 1)
        self.seconds_total = 0.0

    def began(self) -> None:
        self.started_count += 1

    def received(self) -> None:
        self.received_count += 1

    def sent(self) -> None:
        self.sent_count += 1

    def ended(self, code: grpc.StatusCode, seconds: float) -> None:
        self.by_code[code] = self.by_code.get(code, 0) + 1
        self.by_bucket[bisect_left(SECONDS, seconds)] += 1
        self.seconds_total += seconds


class CallMeters(Collector):
    """Calls of one side, "server" or "client"."""

    def __init__(self, side: str) -> None:
        self._side = side
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
            meter = self._methods[method] = MethodMeter(kind, method)
        return meter

    def collect(self) -> Iterator[Metric]:
        """Of a moment for each number, not for all of them."""
        meters = list(self._methods.values())
        yield self._counter("started", "Calls begun", meters, lambda meter: meter.started_count)
        yield self._counter("msg_received", "Messages received", meters, lambda meter: meter.received_count)
        yield self._counter("msg_sent", "Messages sent", meters, lambda meter: meter.sent_count)
        handled = self._family("handled", "Calls ended, by status code,", (*METHOD, "grpc_code"))
        for meter in meters:
            for code, count in list(meter.by_code.items()):
                handled.add_metric((*meter.labels, GO_CODES[code]), count)
        yield handled
        yield self._histogram(meters)

    def _counter(
        self, name: str, what: str, meters: Iterable[MethodMeter], count: Callable[[MethodMeter], int]
    ) -> CounterMetricFamily:
        family = self._family(name, what, METHOD)
        for meter in meters:
            family.add_metric(meter.labels, count(meter))
        return family

    def _family(self, name: str, what: str, labels: Sequence[str]) -> CounterMetricFamily:
        return CounterMetricFamily(f"grpc_{self._side}_{name}", f"{what} on the {self._side}.", labels=labels)

    def _histogram(self, meters: Iterable[MethodMeter]) -> HistogramMetricFamily:
        family = HistogramMetricFamily(
            f"grpc_{self._side}_handling_seconds",
            f"Seconds from the beginning of a call on the {self._side} to its status.",
            labels=METHOD,
        )
        for meter in meters:
            counts = accumulate(list(meter.by_bucket))
            buckets = [(floatToGoString(end), count) for end, count in zip((*SECONDS, inf), counts, strict=True)]
            family.add_metric(meter.labels, buckets, sum_value=meter.seconds_total)
        return family


def call_meters(side: str, registry: CollectorRegistry | None) -> CallMeters:
    """Once for each side of a registry; without one they count for nobody."""
    meters = CallMeters(side)
    if registry is not None:
        registry.register(meters)
    return meters
