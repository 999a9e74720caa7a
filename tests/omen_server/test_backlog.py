"""The backlog against plain sets: whatever is taken, given back, settled and added, the two say the same."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
)

from contract.coverage import Coverage
from omen_server.backlog import Backlog, Run, Segment

COUNT_MAX = 30
SEGMENT_IDS = [bytes([number]) * 16 for number in range(3)]


indexes = st.sets(st.integers(1, COUNT_MAX))


def test_old_is_sent_before_new_by_partition_then_segment_then_index() -> None:
    later_day = Segment("2026-01-30", 1, SEGMENT_IDS[0], 1)
    late = Segment("2026-01-29-late", 1, SEGMENT_IDS[1], 1)
    second = Segment("2026-01-29", 2, SEGMENT_IDS[2], 2)
    first = Segment("2026-01-29", 1, b"f" * 16, 2)
    backlog = Backlog([later_day, late, second, first], {})
    runs = [run for _ in range(4) if (run := backlog.take(10))]
    assert [run.segment for run in runs] == [first, second, late, later_day]
    assert backlog.take(10) is None


def test_what_is_awaited_is_sent_although_it_is_settled_unless_it_is_damaged() -> None:
    segment = Segment("2026-01-29", 1, SEGMENT_IDS[0], 6, damaged=Coverage.of([5]))
    awaited = [(SEGMENT_IDS[0], 2), (SEGMENT_IDS[0], 5), (SEGMENT_IDS[1], 1)]
    backlog = Backlog([segment], {SEGMENT_IDS[0]: Coverage.up_to(6)}, awaited)
    assert backlog.take(10) == Run(segment, 2, 2)
    assert backlog.take(10) is None


class BacklogIsASet(RuleBasedStateMachine):
    """`unsent` and `in_flight` are the model: (segment number, index)."""

    runs: Bundle[Run] = Bundle("runs")

    def __init__(self) -> None:
        super().__init__()
        self.segments = [Segment("2026-01-29", number + 1, key, 0) for number, key in enumerate(SEGMENT_IDS)]
        self.backlog = Backlog([], {})
        self.unsent: set[tuple[int, int]] = set()
        self.in_flight: set[tuple[int, int]] = set()

    @precondition(lambda self: not (self.unsent or self.in_flight))
    @rule(counts=st.tuples(*[st.integers(0, COUNT_MAX)] * 3), settled=st.tuples(*[indexes] * 3), damaged=indexes)
    def hello(self, counts: tuple[int, ...], settled: tuple[set[int], ...], damaged: set[int]) -> None:
        """A new stream: a new backlog."""
        for segment, count in zip(self.segments, counts, strict=True):
            segment.record_count = max(segment.record_count, count)
            segment.damaged = Coverage.of(index for index in damaged if index <= segment.record_count)
        told = {key: Coverage.of(done) for key, done in zip(SEGMENT_IDS, settled, strict=True)}
        self.backlog = Backlog(self.segments, told)
        self.unsent = {
            (number, index)
            for number, segment in enumerate(self.segments)
            for index in range(1, segment.record_count + 1)
            if index not in settled[number] and index not in damaged
        }

    @rule(number=st.integers(0, 2))
    def a_record_becomes_durable(self, number: int) -> None:
        segment = self.segments[number]
        segment.record_count += 1
        self.backlog.grow(segment, segment.record_count)
        self.unsent.add((number, segment.record_count))

    @rule(target=runs, count_max=st.integers(1, 8))
    def take(self, count_max: int) -> Run | MultipleResults[Run]:
        run = self.backlog.take(count_max)
        if run is None:
            assert not self.unsent
            return multiple()
        taken = self.pairs(run)
        assert 1 <= len(taken) <= count_max
        assert taken <= self.unsent
        number = self.segments.index(run.segment)
        assert run.first == min(index for owner, index in self.unsent if owner == number)
        self.unsent -= taken
        self.in_flight |= taken
        return run

    @rule(run=consumes(runs), kept=st.integers(0, 8))
    def what_did_not_fit_is_given_back_and_the_rest_is_settled(self, run: Run, kept: int) -> None:
        """As in delivery, only the newest run of a segment is given back."""
        given = Run(run.segment, run.first + kept, run.last)
        is_in_flight = self.pairs(run) <= self.in_flight
        if is_in_flight and given.first <= given.last and not self.is_followed(run):
            self.backlog.give_back(given)
            self.in_flight -= self.pairs(given)
            self.unsent |= self.pairs(given)
        for number, index in self.pairs(run) & self.in_flight:
            self.backlog.settle(SEGMENT_IDS[number], index)
            self.in_flight.discard((number, index))

    def is_followed(self, run: Run) -> bool:
        number = self.segments.index(run.segment)
        return any(owner == number and index > run.last for owner, index in self.in_flight)

    def pairs(self, run: Run) -> set[tuple[int, int]]:
        number = self.segments.index(run.segment)
        return {(number, index) for index in range(run.first, run.last + 1)}

    @invariant()
    def it_counts_what_is_not_settled(self) -> None:
        assert self.backlog.record_count == len(self.unsent) + len(self.in_flight)

    @invariant()
    def it_knows_what_is_settled(self) -> None:
        for number, segment in enumerate(self.segments):
            for index in range(1, segment.record_count + 1):
                expected = (number, index) not in self.unsent and (number, index) not in self.in_flight
                assert self.backlog.is_settled(SEGMENT_IDS[number], index) == expected


TestBacklogIsASet = BacklogIsASet.TestCase
TestBacklogIsASet.settings = settings(max_examples=60, stateful_step_count=30, deadline=None, derandomize=True)
