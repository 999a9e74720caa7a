"""What every server exports beside its own metrics, and gauges that may say nothing."""

from collections.abc import Iterator, Mapping

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector


def registry_of(server: str, versions: Mapping[str, str]) -> CollectorRegistry:
    """A registry of one server: its versions as SERVER_build_info, the process, the interpreter."""
    disable_created_metrics()  # a second series beside each counter, that only tells when this process began
    registry = CollectorRegistry(auto_describe=True)  # so that collectors of ours are found by name, too
    Info(f"{server}_build", "The versions that run.", registry=registry).info(dict(versions))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class MaybeGauge(Collector):
    """Without a sample until `value` is set: what is not known is not 0."""

    def __init__(self, name: str, help: str, registry: CollectorRegistry | None) -> None:
        self._name = name
        self._help = help
        self.value: float | None = None
        if registry:
            registry.register(self)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield GaugeMetricFamily(self._name, self._help, value=self.value)
