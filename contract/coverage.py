"""Which records of a segment are settled: closed ranges of record indexes, counted from 1."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Self

Interval = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Coverage:
    """A set of record indexes. `intervals` ascend, both ends included, and neither touch nor overlap.

    So two coverages hold the same indexes exactly when they are equal.
    """

    intervals: tuple[Interval, ...] = ()

    @classmethod
    def of(cls, indexes: Iterable[int]) -> Self:
        """The given indexes, in any order and repeated at will. ValueError below 1."""
        return cls.spanning((index, index) for index in indexes)

    @classmethod
    def spanning(cls, intervals: Iterable[Interval]) -> Self:
        """The given closed ranges, in any order, overlapping at will. ValueError for one below 1 or upside down."""
        merged: list[Interval] = []
        for first, last in sorted(intervals):
            if not 1 <= first <= last:
                raise ValueError(f"not a range of record indexes: {first}-{last}")
            if merged and first <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
            else:
                merged.append((first, last))
        return cls(tuple(merged))

    @classmethod
    def up_to(cls, record_count: int) -> Self:
        """Every index of a segment of so many records."""
        return cls(((1, record_count),) if record_count else ())

    @property
    def count(self) -> int:
        """How many indexes it holds."""
        return sum(last - first + 1 for first, last in self.intervals)

    def __contains__(self, index: int) -> bool:
        at = bisect_right(self.intervals, index, key=itemgetter(0)) - 1
        return at >= 0 and index <= self.intervals[at][1]

    def __or__(self, other: "Coverage") -> "Coverage":
        return Coverage.spanning((*self.intervals, *other.intervals))

    def __sub__(self, other: "Coverage") -> "Coverage":
        return Coverage(tuple(_without(self.intervals, other.intervals)))

    def __and__(self, other: "Coverage") -> "Coverage":
        return self - (self - other)

    def encode(self) -> str:
        """Readable in the database: "1-500,502,510-600"; "" for the empty set."""
        return ",".join(f"{first}-{last}" if first < last else f"{first}" for first, last in self.intervals)

    @classmethod
    def decode(cls, text: str) -> Self:
        """What encode() wrote. ValueError for anything else that does not name ranges of record indexes."""
        return cls.spanning(_range(part) for part in text.split(",")) if text else cls()


def _range(part: str) -> Interval:
    first, _, last = part.partition("-")
    return int(first), int(last or first)


def _without(intervals: Iterable[Interval], holes: tuple[Interval, ...]) -> Iterator[Interval]:
    """Walks both ascending lists once."""
    at = 0
    for start, last in intervals:
        first = start
        while at < len(holes) and holes[at][1] < first:
            at += 1
        ahead = at  # a hole may reach into the next interval too, so `at` stays behind
        while ahead < len(holes) and holes[ahead][0] <= last:
            if first < holes[ahead][0]:
                yield first, holes[ahead][0] - 1
            first = holes[ahead][1] + 1
            ahead += 1
        if first <= last:
            yield first, last
