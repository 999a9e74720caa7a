"""The backlog against plain sets: whatever is taken, given back, settled and added, the two say the same."""

import time

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from contract.coverage import Coverage
from omen_server.delivery.backlog import Backlog, Run, Segment

COUNT_MAX = 30
SEGMENT_IDS = [bytes([number]) * 16 for number in range(3)]


Pair = tuple[int, int]
indexes = st.sets(st.integers(1, COUNT_MAX))


def test_old_is_sent_before_new_by_partition_then_segment_then_index() -> None:
    later_day = Segment("2026-01-30", 1, SEGMENT_IDS[0], 1)
    late = Segment("2026-01-29-late", 1, SEGMENT_IDS[1], 1)
    second = Segment("2026-01-29", 2, SEGMENT_IDS[2], 2)
    first = Segment("2026-01-29", 1, b"f" * 16, 2)
    backlog = Backlog([later_day, late, second, first], {})
    runs = []
    while run := backlog.take(10):
        backlog.keep(run.last, 100)
        runs.append(run)
    assert [run.segment for run in runs] == [first, second, late, later_day]
    assert backlog.take(10) is None


def test_what_is_awaited_is_sent_although_it_is_settled_unless_it_is_damaged() -> None:
    segment = Segment("2026-01-29", 1, SEGMENT_IDS[0], 6, damaged=Coverage.of([5]))
    awaited = [(SEGMENT_IDS[0], 2), (SEGMENT_IDS[0], 5), (SEGMENT_IDS[1], 1)]
    backlog = Backlog([segment], {SEGMENT_IDS[0]: Coverage.up_to(6)}, awaited)
    assert backlog.take(10) == Run(segment, 2, 2)
    backlog.keep(2, 100)
    assert backlog.take(10) is None


def test_what_is_awaited_goes_before_all_that_is_old() -> None:
    old, new = (Segment(f"2026-01-{day}", 1, SEGMENT_IDS[day - 29], 6) for day in (29, 30))
    backlog = Backlog([old, new], {}, [(SEGMENT_IDS[1], 5)])
    taken = []
    while place := backlog.maybe_next():
        run = backlog.take(10)
        assert run
        assert place == (run.segment.segment_id, run.first)
        backlog.keep(run.last, 100)
        taken.append(run)
    assert taken == [Run(new, 5, 5), Run(old, 1, 6), Run(new, 1, 4), Run(new, 6, 6)]


def test_what_is_postponed_is_not_settled_and_is_sent_once_it_is_resumed() -> None:
    segment = Segment("2026-01-29", 1, SEGMENT_IDS[0], 6, byte_length=600)
    backlog = Backlog([segment], {SEGMENT_IDS[0]: Coverage.up_to(6)})
    backlog.postpone(segment, Coverage.of([2, 3]))
    assert (backlog.record_count, backlog.byte_count, backlog.take(10)) == (2, 200, None)
    assert not backlog.is_settled(SEGMENT_IDS[0], 2)
    backlog.resume(SEGMENT_IDS[0], Coverage.of([2, 3, 4]))
    assert backlog.take(10) == Run(segment, 2, 3)
    backlog.keep(3, 200)
    backlog.send()
    backlog.answer()
    assert (backlog.record_count, backlog.byte_count) == (0, 0)


def test_new_and_old_records_take_turns_and_fill_what_the_other_leaves() -> None:
    old = Segment("2026-01-29", 1, SEGMENT_IDS[0], 5)
    new = Segment("2026-01-30", 1, SEGMENT_IDS[1], 3)
    backlog = Backlog([old], {})
    backlog.grow(Run(new, 1, 3), 300)
    messages = []
    for _ in range(4):
        message, room = [], 2
        while room and (run := backlog.take(room)):
            backlog.keep(run.last, 100)
            message.append((run.segment, run.first, run.last))
            room -= run.count
        backlog.send()
        messages.append(message)
    assert messages == [[(new, 1, 2)], [(old, 1, 2)], [(new, 3, 3), (old, 3, 3)], [(old, 4, 5)]]


def test_bytes_are_counted_where_all_was_seen_and_estimated_for_the_rest_of_a_segment() -> None:
    whole = Segment("2026-01-29", 1, SEGMENT_IDS[0], 5, byte_length=500)
    backlog = Backlog([whole], {})
    backlog.grow(Run(whole, 6, 7), 220)
    assert backlog.byte_count == 720
    backlog.take(3)
    backlog.keep(7, 220)
    backlog.send()
    assert backlog.byte_count == 720
    backlog.answer()
    assert backlog.byte_count == 500
    partly = Backlog([whole], {SEGMENT_IDS[0]: Coverage.up_to(2)})
    assert partly.byte_count == 300
    partly.take(2)
    assert partly.byte_count == 300  # being read
    partly.keep(4, 260)
    assert partly.byte_count == 260 + 100
    partly.send()
    partly.answer()
    assert partly.byte_count == 100
    partly.ask_again(whole, Coverage.of([1, 2]))
    assert partly.byte_count == 100 + 200


def test_bytes_that_the_ledger_knew_too_few_of_are_none_and_never_less() -> None:
    damaged = Segment("2026-01-29", 1, SEGMENT_IDS[0], 5, byte_length=50)
    backlog = Backlog([damaged], {})
    backlog.take(3)
    backlog.keep(3, 300)
    backlog.send()
    backlog.answer()
    assert backlog.byte_count == 0


def test_a_settled_part_of_a_segment_leaves_it_known_how_many_messages_are_to_come() -> None:
    segment = Segment("2026-01-29", 1, SEGMENT_IDS[0], 10, byte_length=1000)
    backlog = Backlog([segment], {SEGMENT_IDS[0]: Coverage.up_to(4)})
    assert backlog.message_count(256, 100) == 6
    assert backlog.fills(256, 600)
    assert not backlog.fills(256, 601)


def test_the_oldest_is_the_first_of_each_partition_sent_or_not() -> None:
    first = Segment("2026-01-29", 1, SEGMENT_IDS[0], 5)
    second = Segment("2026-01-29", 2, SEGMENT_IDS[1], 5)
    other = Segment("2026-01-30", 1, SEGMENT_IDS[2], 5)
    backlog = Backlog([first, second, other], {SEGMENT_IDS[0]: Coverage.up_to(3)})
    assert [(run.segment, run.first) for run in backlog.heads()] == [(first, 4), (other, 1)]
    backlog.take(2)
    backlog.keep(5, 10)
    backlog.send()
    assert [(run.segment, run.first) for run in backlog.heads()] == [(first, 4), (other, 1)]
    backlog.answer()
    assert [(run.segment, run.first) for run in backlog.heads()] == [(second, 1), (other, 1)]


def test_a_settled_record_that_is_asked_for_again_is_sent_once_more() -> None:
    segment = Segment("2026-01-29", 1, SEGMENT_IDS[0], 5)
    backlog = Backlog([segment], {SEGMENT_IDS[0]: Coverage.up_to(5)})
    for _ in range(2):
        backlog.ask_again(segment, Coverage.of([3]))
    assert backlog.record_count == 1
    assert backlog.take(10) == Run(segment, 3, 3)


def test_what_is_kept_apart_is_sent_when_it_is_picked_and_only_then() -> None:
    segment = Segment("2026-01-29", 1, SEGMENT_IDS[0], 6)
    backlog = Backlog(
        [segment], {SEGMENT_IDS[0]: Coverage.of([6])}, apart=[(SEGMENT_IDS[0], index) for index in (2, 3, 6)]
    )
    assert (backlog.record_count, backlog.unsent_count) == (5, 3)
    assert not backlog.is_settled(SEGMENT_IDS[0], 2)
    taken = []
    while run := backlog.take(10):
        backlog.keep(run.last, 10)
        taken.append((run.first, run.last))
    backlog.send()
    assert taken == [(1, 1), (4, 5)]
    assert backlog.pick(SEGMENT_IDS[0], 6) is None  # it is settled
    assert backlog.pick(SEGMENT_IDS[0], 3) == Run(segment, 3, 3)
    backlog.keep(3, 10)
    backlog.send()
    assert [(run.first, run.last) for run in backlog.heads()] == [(1, 1)]
    backlog.answer()
    backlog.answer()
    assert backlog.record_count == 1


def test_a_partition_that_was_given_up_is_not_sent_whatever_is_under_way() -> None:
    given_up = Segment("2026-01-29", 1, SEGMENT_IDS[0], 6)
    kept = Segment("2026-01-30", 1, SEGMENT_IDS[1], 2)
    backlog = Backlog([given_up, kept], {})
    backlog.take(2)
    backlog.forget("2026-01-29")
    backlog.keep(1, 10)
    backlog.send()
    assert (backlog.record_count, backlog.byte_count) == (1 + 2, 10)
    backlog.answer()
    assert backlog.take(10) == Run(kept, 1, 2)
    backlog.keep(2, 10)
    assert backlog.take(10) is None


def test_a_hundred_thousand_scattered_records_are_asked_for_again_at_once() -> None:
    segment = Segment("2026-01-29", 1, SEGMENT_IDS[0], 200_000)
    backlog = Backlog([segment], {SEGMENT_IDS[0]: Coverage.up_to(200_000)})
    began = time.process_time()
    backlog.ask_again(segment, Coverage.of(range(1, 200_000, 2)))
    assert backlog.record_count == 100_000
    assert not backlog.is_settled(SEGMENT_IDS[0], 99_999)
    assert time.process_time() - began < 20  # one after the other they took minutes


def test_a_message_is_full_by_its_records_or_by_its_bytes() -> None:
    segment = Segment("2026-01-29", 1, SEGMENT_IDS[0], 0)
    backlog = Backlog([], {})
    backlog.grow(Run(segment, 1, 3), 300)
    assert not backlog.fills(4, 301)
    assert backlog.fills(3, 301)
    assert backlog.fills(4, 300)


def test_it_says_how_many_messages_are_to_come() -> None:
    segment = Segment("2026-01-29", 1, SEGMENT_IDS[0], 10, byte_length=1000)
    backlog = Backlog([segment], {})
    assert backlog.message_count(4, 10_000) == 3
    assert backlog.message_count(4, 100) == 10
    backlog.take(4)
    backlog.keep(4, 400)
    backlog.send()
    assert backlog.message_count(4, 10_000) == 1 + 2


class BacklogIsASet(RuleBasedStateMachine):
    """`unsent`, `composed` and `sent` are the model: (segment number, index)."""

    def __init__(self) -> None:
        super().__init__()
        self.segments = [Segment("2026-01-29", number + 1, key, 0) for number, key in enumerate(SEGMENT_IDS)]
        self.backlog = Backlog([], {})
        self.unsent: set[Pair] = set()
        self.composed: set[Pair] = set()
        self.sent: list[set[Pair]] = []

    @precondition(lambda self: not self.composed)
    @rule(counts=st.tuples(*[st.integers(0, COUNT_MAX)] * 3), settled=st.tuples(*[indexes] * 3), damaged=indexes)
    def hello(self, counts: tuple[int, ...], settled: tuple[set[int], ...], damaged: set[int]) -> None:
        """A new stream: a new backlog."""
        for segment, count in zip(self.segments, counts, strict=True):
            segment.record_count = max(segment.record_count, count)
            segment.damaged = Coverage.of(index for index in damaged if index <= segment.record_count)
        told = {key: Coverage.of(done) for key, done in zip(SEGMENT_IDS, settled, strict=True)}
        self.backlog = Backlog(self.segments, told)
        self.sent = []
        self.unsent = {
            (number, index)
            for number, segment in enumerate(self.segments)
            for index in range(1, segment.record_count + 1)
            if index not in settled[number] and index not in damaged
        }

    @rule(number=st.integers(0, 2), count=st.integers(1, 4))
    def records_become_durable(self, number: int, count: int) -> None:
        segment = self.segments[number]
        run = Run(segment, segment.record_count + 1, segment.record_count + count)
        segment.record_count += count
        self.backlog.grow(run, 100 * count)
        self.unsent |= self.pairs(run)

    @rule(count_max=st.integers(1, 8), read=st.integers(0, 8))
    def take_and_keep_what_could_be_read(self, count_max: int, read: int) -> None:
        """Nothing read: none of the run can be. Otherwise what did not fit is given back."""
        run = self.backlog.take(count_max)
        if run is None:
            assert not self.unsent
            return
        taken = self.pairs(run)
        assert 1 <= len(taken) <= count_max
        assert taken <= self.unsent
        last = min(run.last, run.first + read - 1) if read else run.last
        self.backlog.keep(last, 100)
        kept = self.pairs(Run(run.segment, run.first, last))
        self.unsent -= kept
        self.composed |= kept

    @precondition(lambda self: self.composed)
    @rule()
    def send(self) -> None:
        self.backlog.send()
        self.sent.append(self.composed)
        self.composed = set()

    @precondition(lambda self: self.sent)
    @rule()
    def answer(self) -> None:
        self.backlog.answer()
        self.sent.pop(0)

    @rule(number=st.integers(0, 2), index=st.integers(1, COUNT_MAX))
    def ask_again(self, number: int, index: int) -> None:
        if index <= self.segments[number].record_count:
            self.backlog.ask_again(self.segments[number], Coverage.of([index]))
            if (number, index) not in self.not_settled():
                self.unsent.add((number, index))

    def pairs(self, run: Run) -> set[Pair]:
        number = self.segments.index(run.segment)
        return {(number, index) for index in range(run.first, run.last + 1)}

    def not_settled(self) -> set[Pair]:
        return self.unsent | self.composed | {pair for message in self.sent for pair in message}

    @invariant()
    def it_counts_what_is_not_settled(self) -> None:
        assert self.backlog.record_count == len(self.not_settled())

    @invariant()
    def it_knows_what_is_settled(self) -> None:
        for number, segment in enumerate(self.segments):
            for index in range(1, segment.record_count + 1):
                expected = (number, index) not in self.not_settled()
                assert self.backlog.is_settled(SEGMENT_IDS[number], index) == expected


TestBacklogIsASet = BacklogIsASet.TestCase
TestBacklogIsASet.settings = settings(max_examples=60, stateful_step_count=30, deadline=None, derandomize=True)
