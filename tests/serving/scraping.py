"""Scrapes a server over HTTP as Prometheus does, and reads the answer with the library's own parser."""

import asyncio
import socket
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.system.processes import MOMENT_S

DEADLINE_S = 20.0


@dataclass(frozen=True)
class Scraped:
    """One answer."""

    text: str

    @cached_property
    def families(self) -> dict[str, str]:
        """The type of each metric, by the name that its TYPE line gives."""
        return {line.split()[2]: line.split()[3] for line in self.text.splitlines() if line.startswith("# TYPE ")}

    @cached_property
    def samples(self) -> list[Sample]:
        return [sample for family in text_string_to_metric_families(self.text) for sample in family.samples]

    @cached_property
    def series(self) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
        return {(sample.name, tuple(sorted(sample.labels.items()))) for sample in self.samples}

    def maybe(self, name: str, **labels: str) -> float | None:
        """None when there is no such series."""
        return next((each.value for each in self.samples if (each.name, each.labels) == (name, labels)), None)

    def by(self, label: str, name: str, **labels: str) -> Mapping[str, float]:
        """Values other than 0 by one label, of the series that have the others."""
        return {
            each.labels[label]: each.value
            for each in self.samples
            if each.name == name and each.value and labels.items() <= each.labels.items()
        }


@dataclass(frozen=True)
class Scraper:
    """Of one server, which is told `listen` for its metrics."""

    port: int

    @property
    def listen(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def scrape(self, path: str = "/metrics") -> Scraped:
        return await asyncio.to_thread(self._scrape, path)

    async def until(self, holds: Callable[[Scraped], bool]) -> Scraped:
        """The scrape after the first for which it holds: what one says is not of one instant."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                if holds(await self.scrape()):
                    return await self.scrape()
                await asyncio.sleep(MOMENT_S)

    def _scrape(self, path: str) -> Scraped:
        with urllib.request.urlopen(f"http://{self.listen}{path}", timeout=DEADLINE_S) as answer:
            return Scraped(answer.read().decode())


def scraper() -> Scraper:
    """On a port that nobody listens on yet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return Scraper(probe.getsockname()[1])
