"""Which records of the ledger RiskCast has not settled, in the order in which to send them.

Pure: built from what the ledger holds and what RiskCast's hello says is settled, then told of every record that
becomes durable, is taken for sending, or is settled. Indexes count the records of a segment from 1; ranges of them
include both ends.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from contract.coverage import Coverage, Interval

NOTHING = Coverage()


@dataclass(slots=True)
class Segment:
    """A segment of the ledger as far as it is durable."""

    partition: str
    ordinal: int
    segment_id: bytes
    record_count: int
    damaged: Coverage = NOTHING


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive records of one segment that are to be sent."""

    segment: Segment
    first: int
    last: int


@dataclass(slots=True)
class _Unsent:
    segment: Segment
    ranges: list[Interval] = field(default_factory=list)


class Backlog:
    """Sends old before new: by partition, then segment, then index.

    Records in `awaited`, (segment_id, index), are sent although they are settled: somebody still waits for the answer,
    which was lost with the stream before.
    """

    def __init__(
        self,
        segments: Iterable[Segment],
        settled: Mapping[bytes, Coverage],
        awaited: Iterable[tuple[bytes, int]] = (),
    ) -> None:
        asked: defaultdict[bytes, list[int]] = defaultdict(list)
        for segment_id, index in awaited:
            asked[segment_id].append(index)
        self._unsent: dict[bytes, _Unsent] = {}
        for segment in sorted(segments, key=lambda segment: (segment.partition, segment.ordinal)):
            done = settled.get(segment.segment_id, NOTHING) - Coverage.of(asked[segment.segment_id])
            missing = Coverage.up_to(segment.record_count) - done - segment.damaged
            if missing.intervals:
                self._unsent[segment.segment_id] = _Unsent(segment, list(missing.intervals))
        self._unsent_count = sum(last - first + 1 for unsent in self._unsent.values() for first, last in unsent.ranges)
        self._in_flight: set[tuple[bytes, int]] = set()

    @property
    def record_count(self) -> int:
        """Records not settled: those to send and those sent without an answer yet."""
        return self._unsent_count + len(self._in_flight)

    def is_settled(self, segment_id: bytes, index: int) -> bool:
        """Whether a durable record needs no sending."""
        if (segment_id, index) in self._in_flight:
            return False
        unsent = self._unsent.get(segment_id)
        if unsent is None:
            return True
        place = bisect_right(unsent.ranges, (index, 1 << 32)) - 1
        return place < 0 or unsent.ranges[place][1] < index

    def grow(self, segment: Segment, index: int) -> None:
        """One more record became durable, after every other of its segment."""
        unsent = self._unsent.setdefault(segment.segment_id, _Unsent(segment))
        if unsent.ranges and unsent.ranges[-1][1] == index - 1:
            unsent.ranges[-1] = (unsent.ranges[-1][0], index)
        else:
            unsent.ranges.append((index, index))
        self._unsent_count += 1

    def take(self, count_max: int) -> Run | None:
        """The next records to send, at most `count_max`; None when all were taken."""
        for unsent in self._unsent.values():
            first, last = unsent.ranges[0]
            taken_last = min(last, first + count_max - 1)
            if taken_last == last:
                unsent.ranges.pop(0)
            else:
                unsent.ranges[0] = (taken_last + 1, last)
            segment = unsent.segment
            if not unsent.ranges:
                del self._unsent[segment.segment_id]
            self._unsent_count -= taken_last - first + 1
            self._in_flight.update((segment.segment_id, index) for index in range(first, taken_last + 1))
            return Run(segment, first, taken_last)
        return None

    def give_back(self, run: Run) -> None:
        """Records that were taken and not sent are to be sent before all others of their segment."""
        unsent = self._unsent.setdefault(run.segment.segment_id, _Unsent(run.segment))
        unsent.ranges.insert(0, (run.first, run.last))
        self._unsent_count += run.last - run.first + 1
        self._in_flight.difference_update((run.segment.segment_id, index) for index in range(run.first, run.last + 1))

    def settle(self, segment_id: bytes, index: int) -> None:
        """RiskCast has answered for a record that was taken."""
        self._in_flight.discard((segment_id, index))
