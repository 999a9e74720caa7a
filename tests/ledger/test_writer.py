"""What an append promises, and what it refuses."""

import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from time import monotonic

import pytest

from ledger import (
    Ledger,
    LedgerClosed,
    LedgerError,
    LedgerFull,
    LedgerReader,
    LedgerSettings,
    LedgerUnavailable,
    PartitionClosed,
    Position,
    QueueFull,
    SegmentState,
)
from tests.ledger.conftest import OpenLedger
from tests.ledger.decoder import decode
from tests.ledger.faults import (
    DEADLINE_S,
    NOON,
    TODAY,
    TOMORROW,
    Answers,
    FaultyDisk,
    append_each,
    at_noon,
    one_batch,
    segment_of,
)


def payloads(count: int, prefix: str = "signal") -> list[bytes]:
    return [f"{prefix}-{number}".encode() for number in range(1, count + 1)]


def test_what_is_appended_is_read_back_byte_for_byte(open_ledger: OpenLedger) -> None:
    answers = Answers()
    ledger = open_ledger(answers)
    given = [b"", b"\0" * 9, bytes(range(256)), b"x" * 100_000]
    positions = append_each(ledger, answers, given, NOON + timedelta(microseconds=1))
    records = list(ledger.reader().records(TODAY))
    assert [record.payload for record in records] == given
    assert [record.position for record in records] == positions
    assert {record.emitted_at for record in records} == {1_769_688_000_000_001}
    assert {record.written_at for record in records} == {1_769_688_000_000_000}


def test_the_largest_payload_is_taken_and_one_byte_more_is_refused(open_ledger: OpenLedger) -> None:
    answers = Answers()
    ledger = open_ledger(answers, segment_bytes_max=1024)
    largest = b"x" * (4 * 1024 * 1024)
    ledger.append(largest, NOON, "largest")
    answers.positions("largest")
    assert next(ledger.reader().records(TODAY)).payload == largest
    with pytest.raises(ValueError, match="at most"):
        ledger.append(largest + b"x", NOON, "too large")


def test_positions_rise_over_rollover_and_restart_and_are_never_reused(open_ledger: OpenLedger) -> None:
    seen: list[Position] = []
    for run in range(3):
        answers = Answers()
        ledger = open_ledger(answers, segment_records_max=2)
        seen += append_each(ledger, answers, payloads(5, f"run-{run}"))
        ledger.close()
    sequences = [position.sequence for position in seen]
    assert sequences == sorted(set(sequences))
    assert [(position.segment_ordinal, position.record_index) for position in seen[:5]] == [
        (1, 1), (1, 2), (2, 1), (2, 2), (3, 1),
    ]  # fmt: skip
    assert seen[5].segment_ordinal == 4


def test_a_segment_rolls_over_by_bytes_too(open_ledger: OpenLedger) -> None:
    answers = Answers()
    ledger = open_ledger(answers, segment_bytes_max=4096)
    append_each(ledger, answers, [bytes([number]) * 1000 for number in range(8)])
    segments = ledger.partition(TODAY).segments
    assert len(segments) > 2
    assert all(segment.byte_length <= 4096 for segment in segments)
    assert [segment.state for segment in segments[:-1]] == [SegmentState.FROZEN] * (len(segments) - 1)
    assert segments[-1].state is SegmentState.OPEN


def test_one_batch_may_span_several_segments_and_partitions(open_ledger: OpenLedger) -> None:
    answers = Answers()
    ledger = open_ledger(answers, segment_records_max=3)
    with one_batch(ledger):
        for number in range(20):
            ledger.append(str(number).encode(), NOON - timedelta(hours=13 * (number % 2)), number)
    positions = answers.positions(*range(20))
    assert [position.partition for position in positions[:2]] == [TODAY, "2026-01-28-late"]
    for name in (TODAY, "2026-01-28-late"):
        indexes = [(p.segment_ordinal, p.record_index) for p in positions if p.partition == name]
        assert indexes == [(number // 3 + 1, number % 3 + 1) for number in range(10)]
        assert len(list(ledger.reader().records(name))) == 10


def test_a_batch_is_answered_in_one_call(open_ledger: OpenLedger) -> None:
    answers = Answers()
    ledger = open_ledger(answers)
    with one_batch(ledger):
        for number in range(100):
            ledger.append(b"x", NOON, number)
    answers.positions(*range(100))
    assert [len(batch) for batch in answers.batches] == [100]


def test_nothing_is_acknowledged_before_fdatasync_has_returned(open_ledger: OpenLedger) -> None:
    disk = FaultyDisk()
    answers = Answers(disk.events)
    ledger = open_ledger(answers, disk=disk, segment_records_max=3)
    append_each(ledger, answers, payloads(10))
    ledger.close()
    unsynced: set[object] = set()
    acknowledged = 0
    for kind, name in disk.events:
        if kind == "write":
            unsynced.add(name)
        elif kind in ("fdatasync", "fsync"):
            unsynced.discard(name)
        elif kind == "ack":
            acknowledged += 1
            assert not unsynced, f"{name!r} was acknowledged while {unsynced} was not durable"
    assert acknowledged == 10


def test_at_rollover_the_records_are_durable_before_a_footer_says_so(open_ledger: OpenLedger) -> None:
    disk = FaultyDisk()
    answers = Answers()
    ledger = open_ledger(answers, disk=disk, segment_records_max=2, idle_mark_s=3600)
    with one_batch(ledger):
        for payload in payloads(3):
            ledger.append(payload, NOON, payload)
    answers.positions(*payloads(3))
    first = [kind for kind, name in disk.events if name == "segment-00000001.log"]
    assert first == ["write", "fsync", "rename", *["write", "fdatasync"] * 3]  # batch, mark, FOOTER


def test_a_new_file_and_a_new_directory_are_durable_under_their_names_before_the_first_acknowledgement(
    open_ledger: OpenLedger,
) -> None:
    disk = FaultyDisk()
    answers = Answers(disk.events)
    append_each(open_ledger(answers, disk=disk), answers, [b"x"])
    events = disk.events[: disk.events.index(("ack", b"x"))]
    name = "segment-00000001.log"
    steps = [("mkdir", TODAY), ("fsync_dir", "ledger"), ("create", name + ".tmp"), ("write", name), ("fsync", name)]
    steps += [("rename", name), ("fsync_dir", TODAY), ("write", name), ("fdatasync", name)]
    assert events[-len(steps) :] == steps
    start = [("mkdir", "ledger"), ("fsync_dir", events[1][1])]
    assert events[:2] == start


def test_a_short_write_is_followed_by_the_rest(open_ledger: OpenLedger) -> None:
    disk = FaultyDisk()
    disk.short_writes = True
    answers = Answers()
    ledger = open_ledger(answers, disk=disk)
    given = [b"a" * 1000, b"b" * 1000]
    append_each(ledger, answers, given)
    assert [record.payload for record in ledger.reader().records(TODAY)] == given


def test_a_naive_datetime_is_refused(open_ledger: OpenLedger) -> None:
    with pytest.raises(ValueError, match="naive"):
        open_ledger(Answers()).append(b"x", datetime(2026, 1, 29), "waiter")  # noqa: DTZ001 - what is refused


@pytest.mark.parametrize(
    "moment",
    [
        datetime.max.replace(tzinfo=timezone(-timedelta(hours=1))),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
    ],
)
def test_a_moment_whose_utc_day_has_no_date_is_refused(open_ledger: OpenLedger, moment: datetime) -> None:
    with pytest.raises(ValueError, match="years 1 to 9999"):
        open_ledger(Answers()).append(b"x", moment, "waiter")


def test_a_payload_that_is_not_bytes_is_refused_before_it_can_stop_the_flusher(open_ledger: OpenLedger) -> None:
    with pytest.raises(TypeError, match="bytearray"):
        open_ledger(Answers()).append(bytearray(b"x"), NOON, "waiter")  # type: ignore[arg-type]


def test_emitted_at_in_another_zone_is_routed_by_its_utc_day(open_ledger: OpenLedger) -> None:
    answers = Answers()
    ledger = open_ledger(answers)
    tokyo = datetime(2026, 1, 30, 8, tzinfo=timezone(timedelta(hours=9)))
    assert append_each(ledger, answers, [b"x"], tokyo)[0].partition == TODAY


def test_a_day_too_old_is_refused_and_nothing_is_written(open_ledger: OpenLedger, directory: Path) -> None:
    answers = Answers()
    ledger = open_ledger(answers)
    ledger.append(b"x", NOON - timedelta(days=5), "old")
    ledger.append(b"x", datetime.min.replace(tzinfo=UTC), "oldest")
    assert [type(answer) for answer in answers.of("old", "oldest")] == [PartitionClosed, PartitionClosed]
    assert ledger.partitions() == []
    append_each(ledger, answers, [b"new"])
    assert [info.name for info in ledger.partitions()] == [TODAY]


def test_a_full_queue_refuses_by_count_and_by_bytes(open_ledger: OpenLedger) -> None:
    answers = Answers()
    ledger = open_ledger(answers, queue_records_max=3, queue_bytes_max=100)
    with one_batch(ledger):
        for number in range(3):
            ledger.append(b"x", NOON, number)
        with pytest.raises(QueueFull, match="3 records"):
            ledger.append(b"x", NOON, "one too many")
    answers.positions(0, 1, 2)
    with one_batch(ledger):
        ledger.append(b"x" * 90, NOON, "large")
        with pytest.raises(QueueFull, match="bytes"):
            ledger.append(b"x" * 11, NOON, "too much")
    answers.positions("large")


def test_below_the_free_space_floor_appends_are_refused_and_taken_again_when_space_is_back(
    open_ledger: OpenLedger,
) -> None:
    disk = FaultyDisk()
    answers = Answers()
    ledger = open_ledger(answers, disk=disk, free_bytes_min=1_000_000)
    append_each(ledger, answers, [b"before"])
    disk.free = 1_000_000
    ledger.append(b"x", NOON, "refused")
    assert isinstance(answers.of("refused")[0], LedgerFull)
    assert ledger.failure is None
    disk.free = 1 << 40
    append_each(ledger, answers, [b"after"])
    assert [record.payload for record in ledger.reader().records(TODAY)] == [b"before", b"after"]


def test_close_commits_what_is_queued_and_is_idempotent(open_ledger: OpenLedger) -> None:
    answers = Answers()
    ledger = open_ledger(answers)
    for number in range(50):
        ledger.append(b"x", NOON, number)
    ledger.close()
    ledger.close()
    assert all(isinstance(answers.by_waiter[number], Position) for number in range(50))
    assert ledger.partition(TODAY).segments[0].state is SegmentState.FROZEN
    with pytest.raises(LedgerClosed):
        ledger.append(b"x", NOON, "late")


def test_only_so_many_segments_are_live_at_once(open_ledger: OpenLedger) -> None:
    answers = Answers()
    ledger = open_ledger(answers, segments_live_max=2)
    for number in range(5):
        append_each(ledger, answers, [f"day {number}".encode()], NOON + timedelta(days=number))
    states = [info.segments[0].state for info in ledger.partitions()]
    assert states == [SegmentState.FROZEN] * 3 + [SegmentState.OPEN] * 2


def test_an_idle_ledger_writes_a_commit_mark_that_nobody_waits_for(open_ledger: OpenLedger, directory: Path) -> None:
    disk = FaultyDisk()
    answers = Answers(disk.events)
    ledger = open_ledger(answers, disk=disk, idle_mark_s=0.001)
    append_each(ledger, answers, [b"x"])
    name = "segment-00000001.log"
    disk.wait_for(lambda events: events[-3:] == [("ack", b"x"), ("write", name), ("fdatasync", name)])
    record_end = LedgerReader(directory).partition(TODAY).segments[0].byte_length
    mark = segment_of(directory).read_bytes()[record_end:]
    assert (mark[4], mark[48:]) == (0x02, (1).to_bytes(8, "little"))


class BusyElsewhere(Answers):
    """Appends the next record of TODAY in the flusher's own thread, so that its queue is never empty when it looks."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.ledger: Ledger
        self.batches_after_mark = 0
        self._file = segment_of(directory, partition=TOMORROW)
        self._marked = threading.Event()
        self._deadline = monotonic() + DEADLINE_S

    def __call__(self, results: Sequence[tuple[object, Position | LedgerError]], written_at: int) -> None:
        super().__call__(results, written_at)
        self.batches_after_mark += b"\x02\x00\x00\x00\x08" in self._file.read_bytes()  # a COMMIT_MARK of 8 bytes
        if self.batches_after_mark < 100 and monotonic() < self._deadline:
            self.ledger.append(b"busy", NOON, len(self.batches))
        else:
            self._marked.set()

    def wait(self) -> None:
        assert self._marked.wait(2 * DEADLINE_S)


def test_an_idle_segment_is_marked_once_while_others_are_under_load(open_ledger: OpenLedger, directory: Path) -> None:
    answers = BusyElsewhere(directory)
    answers.ledger = open_ledger(answers, idle_mark_s=0.05)
    answers.ledger.append(b"idle", NOON + timedelta(days=1), "idle")
    answers.wait()
    assert answers.batches_after_mark == 100
    answers.ledger.close()
    idle, busy = ([frame.type for frame in decode(segment_of(directory, partition=day))] for day in (TOMORROW, TODAY))
    assert idle == ["HEADER", "HEADER", "RECORD", "COMMIT_MARK", "FOOTER"]
    assert busy.count("COMMIT_MARK") < 50  # a machine may sleep for 50 ms now and then


def test_an_on_commit_that_raises_stops_the_ledger_and_leaves_nobody_waiting(directory: Path) -> None:
    told: list[Sequence[tuple[object, Position | LedgerError]]] = []
    stopped = threading.Event()

    def raise_first(results: Sequence[tuple[object, Position | LedgerError]], written_at: int) -> None:
        told.append(results)
        if len(told) == 1:
            raise RuntimeError("the loop is closed")
        stopped.set()

    settings = LedgerSettings(free_bytes_min=0)
    with Ledger.open(directory, on_commit=raise_first, settings=settings, now=at_noon) as ledger:
        ledger.append(b"x", NOON, "waiter")
        assert stopped.wait(DEADLINE_S)
        assert isinstance(ledger.failure, LedgerUnavailable)
        assert told[1] == [("waiter", ledger.failure)]
        with pytest.raises(LedgerUnavailable, match="outcome unknown"):
            ledger.append(b"x", NOON, "after")


@pytest.mark.parametrize(
    "limits",
    [{"segment_records_max": 0}, {"idle_mark_s": -1}, {"segment_records_max": 2**32}, {"segment_bytes_max": 2**31}],
)
def test_limits_that_make_no_sense_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(limits))):
        LedgerSettings(**limits)


def test_a_group_is_one_commit_in_its_order_with_the_time_its_records_carry(
    open_ledger: OpenLedger, directory: Path
) -> None:
    answers = Answers()
    ledger = open_ledger(answers)
    payloads = [b"%d" % number for number in range(300)]
    ledger.append_all([(payload, NOON, payload) for payload in payloads])
    positions = answers.positions(*payloads)
    assert [position.sequence for position in positions] == [1 << 32 | index for index in range(1, 301)]
    assert [len(batch) for batch in answers.batches] == [300]
    ledger.close()
    records = list(LedgerReader(directory).records(TODAY))
    assert [record.payload for record in records] == payloads
    assert {record.written_at for record in records} == {answers.written_at[0]}


def test_a_group_with_a_bad_member_or_without_room_is_refused_as_a_whole(open_ledger: OpenLedger) -> None:
    disk = FaultyDisk()
    answers = Answers()
    ledger = open_ledger(answers, disk=disk, queue_records_max=3)
    with pytest.raises(ValueError, match="naive"):
        ledger.append_all([(b"good", NOON, 1), (b"bad", NOON.replace(tzinfo=None), 2)])
    with one_batch(ledger):
        ledger.append_all([(b"a", NOON, "a"), (b"b", NOON, "b")])
        with pytest.raises(QueueFull, match="2 records are waiting already, at most 3"):
            ledger.append_all([(b"c", NOON, "c"), (b"d", NOON, "d")])
        ledger.append(b"e", NOON, "e")
    answers.of("a", "b", "e")
    assert answers.by_waiter.keys() == {"a", "b", "e"}
