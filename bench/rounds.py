"""Figures: two workloads measured in turn in one process, so that a noisy machine troubles both alike."""

import json
import os
import platform
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

Workload = Callable[[], float]  # runs once, returns what the figure is measured in


@dataclass(frozen=True, slots=True)
class Scale:
    """How much one run of the benchmark measures, and in which folder."""

    folder: Path
    rounds: int
    stored_rows: int  # what RiskCast's store and the ledger beside it hold
    restarted_records: int
    loaded_s: float  # how long memory is watched under load
    share: float = 1.0  # of the calls and messages of a round

    def of(self, count: int) -> int:
        """How many of so many calls are made."""
        return round(count * self.share)


@dataclass(frozen=True, slots=True)
class Measured:
    """One number a round. `theirs` is empty when there is nothing to compare with."""

    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Figure:
    """The median of `ours` over that of `theirs`; without theirs, the median of ours alone.

    What it has to reach is one of `at_least` and `at_most`; without either it is only shown. `settings` says what was
    measured: payload, in flight, processes, what is synced.
    """

    name: str
    unit: str
    settings: str
    measured: Measured
    compared_with: str = ""
    at_least: float | None = None
    at_most: float | None = None

    @property
    def value(self) -> float:
        ours, theirs = self.measured.ours, self.measured.theirs
        return statistics.median(ours) / (statistics.median(theirs) if theirs else 1.0)

    @property
    def is_reached(self) -> bool:
        is_enough = self.at_least is None or self.value >= self.at_least
        return is_enough and (self.at_most is None or self.value <= self.at_most)

    @property
    def reach(self) -> str:
        if self.at_most is not None:
            return f"<= {self.at_most:g}"
        return "-" if self.at_least is None else f">= {self.at_least:g}"


def measure(ours: Workload, rounds: int, theirs: Workload | None = None) -> Measured:
    """Alternates the two, `rounds` times each, after one uncounted run of both."""
    if theirs is None:
        return Measured(*alternated(rounds, ours))
    their_rounds, our_rounds = alternated(rounds, theirs, ours)
    return Measured(our_rounds, their_rounds)


def alternated(rounds: int, *workloads: Callable[[], T]) -> list[list[T]]:
    """What each gave, run in turn `rounds` times, after one uncounted run of each."""
    found = [[workload() for workload in workloads] for _ in range(rounds + 1)]
    return [list(of_workload) for of_workload in zip(*found[1:], strict=True)]


def environment(rounds: int) -> dict[str, Any]:
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "rounds": rounds,
    }


def report(figures: list[Figure], environment: dict[str, Any], json_file: Path) -> bool:
    """Print a table, write JSON, and say whether every figure was reached."""
    print(", ".join(f"{name} {value}" for name, value in environment.items()))
    print(f"{'figure':52} {'ours':>11} {'theirs':>11} {'unit':9} {'compared with':36} {'value':>8} {'reach':>8}")
    for figure in figures:
        ours = statistics.median(figure.measured.ours)
        theirs = f"{statistics.median(figure.measured.theirs):11,.2f}" if figure.measured.theirs else f"{'-':>11}"
        mark = "" if figure.is_reached else "  SHORT"
        print(
            f"{figure.name:52} {ours:11,.2f} {theirs} {figure.unit:9} {figure.compared_with or '-':36} "
            f"{figure.value:8.2f} {figure.reach:>8}{mark}\n    {figure.settings}"
        )
    told = [{**asdict(figure), "value": figure.value, "is_reached": figure.is_reached} for figure in figures]
    json_file.write_text(json.dumps({"environment": environment, "figures": told}, indent=2))
    return all(figure.is_reached for figure in figures)
