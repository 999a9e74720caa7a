"""Which records of the ledger RiskCast has not settled, in the order in which to send them.

Pure: built from what the ledger holds and what RiskCast's hello says is settled, then told of every record that
becomes durable, is taken into a message, sent, or answered. Indexes count the records of a segment from 1; ranges of
them include both ends.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from contract.coverage import Coverage, Interval

NOTHING = Coverage()
INDEX_MAX = 1 << 32  # above every index


@dataclass(slots=True)
class Segment:
    """A segment of the ledger as far as it is durable."""

    partition: str
    ordinal: int
    segment_id: bytes
    record_count: int
    byte_length: int = 0
    damaged: Coverage = NOTHING

    def estimated_bytes(self, count: int) -> int:
        """Of so many of its records, by their mean; its head counts as if it were theirs."""
        return count * self.byte_length // max(self.record_count, 1)


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive records of one segment."""

    segment: Segment
    first: int
    last: int

    @property
    def count(self) -> int:
        return self.last - self.first + 1

    def holds(self, segment_id: bytes, index: int) -> bool:
        return self.segment.segment_id == segment_id and self.first <= index <= self.last


@dataclass(slots=True)
class _Unsent:
    """Of one segment. `count` and bytes are those of the ranges and of what was taken and is not kept yet; the bytes
    that nobody has counted are estimated."""

    segment: Segment
    ranges: list[Interval] = field(default_factory=list)  # ascending
    count: int = 0
    maybe_counted_bytes: int | None = 0

    @property
    def byte_count(self) -> int:
        counted = self.maybe_counted_bytes
        # What is damaged may turn out larger than the ledger knew.
        return self.segment.estimated_bytes(self.count) if counted is None else max(counted, 0)

    def place_of(self, index: int) -> int | None:
        """Where the range stands that holds an index."""
        place = bisect_right(self.ranges, (index, INDEX_MAX)) - 1
        return place if place >= 0 and index <= self.ranges[place][1] else None


class Queue:
    """Ranges of records by segment: the segments as they came, the records in their order."""

    def __init__(self) -> None:
        self._segments: dict[bytes, _Unsent] = {}
        self.count = 0

    @property
    def byte_count(self) -> int:
        return sum(unsent.byte_count for unsent in list(self._segments.values()))

    def put(self, run: Run, maybe_bytes: int | None) -> None:
        """Behind all others of their segment. None: nobody has counted their bytes."""
        unsent = self._of(run.segment)
        if unsent.ranges and unsent.ranges[-1][1] == run.first - 1:
            unsent.ranges[-1] = (unsent.ranges[-1][0], run.last)
        else:
            unsent.ranges.append((run.first, run.last))
        self.count += run.count
        unsent.count += run.count
        if maybe_bytes is None or unsent.maybe_counted_bytes is None:
            unsent.maybe_counted_bytes = None
        else:
            unsent.maybe_counted_bytes += maybe_bytes

    def merge(self, segment: Segment, missing: Coverage) -> None:
        """Each at its place; none of them is here already."""
        unsent = self._of(segment)
        unsent.ranges = list(Coverage.spanning((*unsent.ranges, *missing.intervals)).intervals)
        unsent.maybe_counted_bytes = None
        unsent.count += missing.count
        self.count += missing.count

    def take(self, count_max: int) -> Run | None:
        for unsent in self._segments.values():
            first, last = unsent.ranges[0]
            run = Run(unsent.segment, first, min(last, first + count_max - 1))
            unsent.ranges[:1] = [(run.last + 1, last)] if run.last < last else []
            self.count -= run.count
            return run
        return None

    def maybe_first(self) -> tuple[bytes, int] | None:
        """What is taken next."""
        for unsent in self._segments.values():
            return unsent.segment.segment_id, unsent.ranges[0][0]
        return None

    def pick(self, segment_id: bytes, index: int) -> Run | None:
        """This record, wherever it stands; None when it is not here."""
        unsent = self._segments.get(segment_id)
        place = unsent.place_of(index) if unsent else None
        if unsent is None or place is None:
            return None
        first, last = unsent.ranges[place]
        rest = [run for run in ((first, index - 1), (index + 1, last)) if run[0] <= run[1]]
        unsent.ranges[place : place + 1] = rest
        self.count -= 1
        return Run(unsent.segment, index, index)

    def give_back(self, run: Run) -> None:
        """Before all others of their segment, unless it was given up meanwhile."""
        if unsent := self._segments.get(run.segment.segment_id):
            unsent.ranges.insert(0, (run.first, run.last))
            self.count += run.count

    def forget(self, partition: str) -> None:
        """None of its records is to be sent any more."""
        for unsent in [each for each in self._segments.values() if each.segment.partition == partition]:
            self.count -= sum(last - first + 1 for first, last in unsent.ranges)
            del self._segments[unsent.segment.segment_id]

    def left(self, segment: Segment, count: int, byte_count: int) -> None:
        """So many records, of so many bytes, were taken out for good."""
        unsent = self._segments.get(segment.segment_id)
        if unsent is None:  # it was given up meanwhile
            return
        unsent.count -= count
        if not unsent.ranges:
            del self._segments[segment.segment_id]
        elif unsent.maybe_counted_bytes is not None:
            unsent.maybe_counted_bytes -= byte_count

    def holds(self, segment_id: bytes, index: int) -> bool:
        unsent = self._segments.get(segment_id)
        return unsent is not None and unsent.place_of(index) is not None

    def coverage(self, segment_id: bytes) -> Coverage:
        unsent = self._segments.get(segment_id)
        return Coverage.spanning(unsent.ranges) if unsent else NOTHING

    def heads(self) -> Iterator[Run]:
        """The first records of each segment. Another thread may ask while records are taken: hence the copies."""
        for unsent in list(self._segments.values()):
            for first, last in unsent.ranges[:1]:
                yield Run(unsent.segment, first, last)

    def _of(self, segment: Segment) -> _Unsent:
        return self._segments.setdefault(segment.segment_id, _Unsent(segment))


class Backlog:
    """Sends old before new: by partition, then segment, then index.

    What became durable since the hello has a queue of its own, and the two take turns, so that neither a long outage
    nor a flood of new records keeps the other waiting. Records in `asked_for`, (segment_id, index), are sent although
    they are settled: somebody still waits for an answer that was lost with the stream before, or had one sent again.
    They count as new, so that a stream that ends every few seconds keeps nobody waiting for all that is old.
    Those in `apart` are sent when they are picked, and with no others.
    """

    def __init__(
        self,
        segments: Iterable[Segment],
        settled: Mapping[bytes, Coverage],
        asked_for: Iterable[tuple[bytes, int]] = (),
        apart: Iterable[tuple[bytes, int]] = (),
    ) -> None:
        self._old, self._new, self._apart = Queue(), Queue(), Queue()
        self._turns = deque([self._new, self._old])
        self._composed: list[tuple[Queue, Run]] = []
        self._composed_bytes = 0
        self._sent: deque[tuple[list[Run], int]] = deque()  # the messages without an answer yet, and their bytes
        asked, kept_apart = by_segment(asked_for), by_segment(apart)
        for segment in sorted(segments, key=lambda segment: (segment.partition, segment.ordinal)):
            done = settled.get(segment.segment_id, NOTHING)
            wanted = asked.get(segment.segment_id, NOTHING)
            missing = Coverage.up_to(segment.record_count) - (done - wanted)
            maybe_bytes = None if done.intervals else segment.byte_length
            here = missing & kept_apart.get(segment.segment_id, NOTHING)
            if here.intervals:
                self._apart.merge(segment, here)
                missing, maybe_bytes = missing - here, None
            missing -= segment.damaged
            if (urgent := missing & wanted).intervals:
                self._new.merge(segment, urgent)
                missing, maybe_bytes = missing - urgent, None
            for first, last in missing.intervals:
                self._old.put(Run(segment, first, last), maybe_bytes)
                maybe_bytes = None if maybe_bytes is None else 0

    @property
    def record_count(self) -> int:
        """Records not settled: those to send and those sent without an answer yet."""
        under_way = sum(run.count for run in self._under_way())
        return self.unsent_count + self._apart.count + under_way

    @property
    def byte_count(self) -> int:
        """Their bytes in the ledger, those of a segment that is settled in part by an estimate."""
        unsent = sum(queue.byte_count for queue in (self._old, self._new, self._apart))
        return unsent + self._composed_bytes + sum(size for _, size in list(self._sent))

    def fills(self, records_max: int, bytes_max: int) -> bool:
        """Whether what is to send fills a message."""
        return self.unsent_count >= records_max or self._unsent_bytes() >= bytes_max

    @property
    def unsent_count(self) -> int:
        return self._old.count + self._new.count

    def message_count(self, records_max: int, bytes_max: int) -> int:
        """How many answers have to come until it is empty, with messages as full as they can be."""
        by_count = -(-self.unsent_count // records_max)
        return len(self._sent) + max(by_count, -(-self._unsent_bytes() // bytes_max))

    def is_settled(self, segment_id: bytes, index: int) -> bool:
        """Whether a durable record needs no sending."""
        return not (
            any(run.holds(segment_id, index) for run in self._under_way())
            or self._old.holds(segment_id, index)
            or self._new.holds(segment_id, index)
            or self._apart.holds(segment_id, index)
        )

    def heads(self) -> list[Run]:
        """Runs that the oldest unsettled record is the first one of; one for each partition."""
        first: dict[str, Run] = {}
        for run in (*self._under_way(), *self._old.heads(), *self._new.heads(), *self._apart.heads()):
            known = first.setdefault(run.segment.partition, run)
            if (run.segment.ordinal, run.first) < (known.segment.ordinal, known.first):
                first[run.segment.partition] = run
        return list(first.values())

    def grow(self, run: Run, byte_count: int) -> None:
        """These became durable, after every other of their segment."""
        self._new.put(run, byte_count)

    def ask_again(self, segment: Segment, indexes: Coverage) -> None:
        """Settled records are to be sent once more."""
        if (missing := indexes - self._held(segment)).intervals:
            self._new.merge(segment, missing)

    def postpone(self, segment: Segment, indexes: Coverage) -> None:
        """As `ask_again`, but they are sent after `resume` only."""
        if (missing := indexes - self._held(segment)).intervals:
            self._apart.merge(segment, missing)

    def resume(self, segment_id: bytes, indexes: Coverage) -> None:
        """Of what was postponed."""
        for index in (index for first, last in indexes.intervals for index in range(first, last + 1)):
            if run := self._apart.pick(segment_id, index):
                self._apart.left(run.segment, 1, 0)
                self._new.merge(run.segment, Coverage.of([index]))

    def forget(self, partition: str) -> None:
        """What it held was given up: nothing of it is sent any more."""
        for queue in (self._old, self._new, self._apart):
            queue.forget(partition)

    def take(self, count_max: int) -> Run | None:
        """The next records for the message that is composed, at most `count_max`; None when all were taken."""
        for queue in self._turns:
            if run := queue.take(count_max):
                self._composed.append((queue, run))
                return run
        return None

    def maybe_next(self) -> tuple[bytes, int] | None:
        """The record that is taken next."""
        return next((place for queue in self._turns if (place := queue.maybe_first())), None)

    def pick(self, segment_id: bytes, index: int) -> Run | None:
        """A record that is kept apart, for a message of its own; None when it needs no sending."""
        run = self._apart.pick(segment_id, index)
        if run:
            self._composed.append((self._apart, run))
        return run

    def keep(self, last: int, byte_count: int) -> None:
        """Of the run taken last the records to `last`, of so many bytes, go into the message; the others are given
        back."""
        queue, run = self._composed.pop()
        if last < run.last:
            queue.give_back(Run(run.segment, last + 1, run.last))
        queue.left(run.segment, last - run.first + 1, byte_count)
        self._composed.append((queue, Run(run.segment, run.first, last)))
        self._composed_bytes += byte_count

    def leave_out(self) -> None:
        """Nothing of the run taken last can be read: it is not sent."""
        queue, run = self._composed.pop()
        queue.left(run.segment, run.count, 0)

    def send(self) -> None:
        """The message that was composed is under way; the next one begins with the other queue."""
        self._sent.append(([run for _, run in self._composed], self._composed_bytes))
        self._composed, self._composed_bytes = [], 0
        self._turns.rotate()

    def answer(self) -> None:
        """The oldest message is settled."""
        self._sent.popleft()

    def _held(self, segment: Segment) -> Coverage:
        held = Coverage.spanning((run.first, run.last) for run in self._under_way() if run.segment is segment)
        for queue in (self._old, self._new, self._apart):
            held |= queue.coverage(segment.segment_id)
        return held

    def _unsent_bytes(self) -> int:
        return self._old.byte_count + self._new.byte_count

    def _under_way(self) -> Iterator[Run]:
        for runs, _ in list(self._sent):
            yield from runs
        for _, run in list(self._composed):
            yield run


def by_segment(places: Iterable[tuple[bytes, int]]) -> dict[bytes, Coverage]:
    indexes: dict[bytes, list[int]] = {}
    for segment_id, index in places:
        indexes.setdefault(segment_id, []).append(index)
    return {segment_id: Coverage.of(found) for segment_id, found in indexes.items()}
