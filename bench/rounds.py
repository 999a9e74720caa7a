"""Figures as ratios: two workloads measured in turn in one process, so that a noisy machine troubles both alike."""

import json
import os
import platform
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

Workload = Callable[[], float]  # runs once, returns operations per second


@dataclass(frozen=True, slots=True)
class Figure:
    """The median of `ours_per_s` over that of `theirs_per_s`, and what it has to reach; None: it is only shown."""

    name: str
    compared_with: str
    ours_per_s: list[float]
    theirs_per_s: list[float]
    target: float | None

    @property
    def ratio(self) -> float:
        return statistics.median(self.ours_per_s) / statistics.median(self.theirs_per_s)

    @property
    def is_reached(self) -> bool:
        return self.target is None or self.ratio >= self.target


def compare(
    name: str, ours: Workload, compared_with: str, theirs: Workload, *, target: float | None, rounds: int
) -> Figure:
    """Alternates the two, `rounds` times each, after one uncounted run of both."""
    theirs()
    ours()
    pairs = [(theirs(), ours()) for _ in range(rounds)]
    return Figure(name, compared_with, [our for _, our in pairs], [their for their, _ in pairs], target)


def report(figures: list[Figure], json_file: Path) -> bool:
    """Print a table, write JSON, and say whether every figure was reached."""
    print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores")
    print(f"{'figure':58} {'per second':>12} {'compared with':34} {'per second':>12} {'ratio':>7} {'reach':>6}")
    for figure in figures:
        ours, theirs = statistics.median(figure.ours_per_s), statistics.median(figure.theirs_per_s)
        reach = "-" if figure.target is None else f"{figure.target:.2f}"
        mark = "" if figure.is_reached else "  SHORT"
        print(
            f"{figure.name:58} {ours:12,.0f} {figure.compared_with:34} {theirs:12,.0f} "
            f"{figure.ratio:7.2f} {reach:>6}{mark}"
        )
    json_file.write_text(json.dumps([{**asdict(figure), "ratio": figure.ratio} for figure in figures], indent=2))
    print(f"written: {json_file}", file=sys.stderr)
    return all(figure.is_reached for figure in figures)
