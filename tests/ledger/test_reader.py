"""Reading beside the writer: in its process, and from files alone."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from ledger import Lateness, Ledger, LedgerDamaged, LedgerReader, SegmentInfo, SegmentState
from ledger.positions import IndexRange
from ledger.reading.damage import DamageNotes
from ledger.times import microseconds_of
from tests.ledger.conftest import OpenLedger
from tests.ledger.faults import (
    NOON,
    TODAY,
    Answers,
    FaultyDisk,
    append_each,
    crash_image,
    flip_byte,
    one_batch,
    segment_of,
)

MANY = [f"payload-{number:05d}".encode() for number in range(1, 1001)]
Reading = Callable[[Ledger, Path], LedgerReader]


def from_memory(ledger: Ledger, directory: Path) -> LedgerReader:
    return ledger.reader()


def from_files(ledger: Ledger, directory: Path) -> LedgerReader:
    return LedgerReader(directory)


both_ways = pytest.mark.parametrize("reading", [from_memory, from_files])


def append_at_once(ledger: Ledger, answers: Answers, payloads: list[bytes]) -> None:
    with one_batch(ledger):
        for payload in payloads:
            ledger.append(payload, NOON, payload)
    answers.positions(*payloads)


@both_ways
def test_a_partition_is_read_from_any_sequence(open_ledger: OpenLedger, directory: Path, reading: Reading) -> None:
    answers = Answers()
    ledger = open_ledger(answers, segment_records_max=300)
    append_at_once(ledger, answers, MANY)
    ledger.close()
    reader = reading(ledger, directory)
    for start in (0, 1, 256, 257, 299, 300, 301, 700, 1000):
        sequence = (start - 1) // 300 + 1 << 32 | (start - 1) % 300 + 1 if start else 0
        records = [record.payload for record in reader.records(TODAY, from_sequence=sequence)]
        assert records == MANY[max(start - 1, 0) :]
    assert list(reader.records(TODAY, from_sequence=9 << 32)) == []


@both_ways
def test_ranges_are_answered_exactly_in_order_and_without_repeats(
    open_ledger: OpenLedger, directory: Path, reading: Reading
) -> None:
    answers = Answers()
    ledger = open_ledger(answers)
    append_at_once(ledger, answers, MANY)
    ledger.close()
    asked = [(900, 902), (1, 1), (255, 258), (257, 260), (999, 5000)]
    indexes = [record.position.record_index for record in reading(ledger, directory).ranges(TODAY, 1, asked)]
    assert indexes == [1, *range(255, 261), *range(900, 903), 999, 1000]


@both_ways
def test_a_cursor_keeps_to_both_limits_and_still_moves_over_a_large_record(
    open_ledger: OpenLedger, directory: Path, reading: Reading
) -> None:
    answers = Answers()
    ledger = open_ledger(answers)
    append_at_once(ledger, answers, [b"a" * 10, b"b" * 10, b"c" * 1000, b"d" * 10])
    ledger.close()
    cursor = reading(ledger, directory).segment_cursor(TODAY, 1)
    assert [[record.payload[:1] for record in cursor.read(9, 25)] for _ in range(4)] == [
        [b"a", b"b"],
        [b"c"],
        [b"d"],
        [],
    ]
    cursor = reading(ledger, directory).segment_cursor(TODAY, 1, from_index=2)
    assert (cursor.next_index, len(cursor.read(1, 9999)), cursor.next_index) == (2, 1, 3)


def test_a_cursor_follows_a_live_segment_in_the_writers_process(open_ledger: OpenLedger) -> None:
    answers = Answers()
    ledger = open_ledger(answers, segment_records_max=10)
    append_each(ledger, answers, MANY[:1])
    cursor = ledger.reader().segment_cursor(TODAY, 1)
    seen = []
    for payload in MANY[1:15]:
        seen += [record.payload for record in cursor.read(100, 1 << 20)]
        append_each(ledger, answers, [payload])
    seen += [record.payload for record in cursor.read(100, 1 << 20)]
    assert seen == MANY[:10]
    assert ledger.reader().partition(TODAY).segments[0].state is SegmentState.FROZEN


class CountingDisk(FaultyDisk):
    bytes_read = 0

    def read(self, path: Path, offset: int, size: int) -> bytes:
        data = super().read(path, offset, size)
        self.bytes_read += len(data)
        return data


def test_following_a_live_segment_reads_each_byte_about_once(open_ledger: OpenLedger) -> None:
    disk = CountingDisk()
    answers = Answers()
    ledger = open_ledger(answers, disk=disk)
    append_each(ledger, answers, [b"first"])
    cursor = ledger.reader().segment_cursor(TODAY, 1)
    for number in range(200):
        append_each(ledger, answers, [str(number).encode() * 100])
        cursor.read(10, 1 << 20)
    assert disk.bytes_read < 3 * ledger.partition(TODAY).segments[0].byte_length


def test_scattered_ranges_of_a_live_segment_are_read_in_one_pass(open_ledger: OpenLedger) -> None:
    disk = CountingDisk()
    answers = Answers()
    ledger = open_ledger(answers, disk=disk)
    payloads = [str(number).encode() * 100 for number in range(600)]
    append_each(ledger, answers, payloads)
    before = disk.bytes_read
    records = ledger.reader().ranges(TODAY, 1, [(index, index) for index in range(1, 601, 2)])
    assert [record.payload for record in records] == payloads[::2]
    assert disk.bytes_read - before < 3 * ledger.partition(TODAY).segments[0].byte_length


def test_nothing_beyond_the_durable_mark_is_ever_read(open_ledger: OpenLedger, directory: Path) -> None:
    """A batch that is written and whose fdatasync fails lies in the file, whole, and is served to nobody."""
    disk = FaultyDisk().fail("fdatasync", at=2)
    answers = Answers()
    ledger = open_ledger(answers, disk=disk, idle_mark_s=3600)
    append_each(ledger, answers, [b"durable"])
    ledger.append(b"unknown", NOON, "waiter")
    answers.of("waiter")
    assert b"unknown" in segment_of(directory).read_bytes()
    assert [record.payload for record in ledger.reader().records(TODAY)] == [b"durable"]
    assert [record.payload for record in LedgerReader(directory).records(TODAY)] == [b"durable"]


def test_durable_offset_is_the_end_of_what_the_last_fdatasync_covered_when_the_frame_was_encoded(
    open_ledger: OpenLedger, directory: Path
) -> None:
    durable: list[int] = []

    class SyncWatch(FaultyDisk):
        def fdatasync(self, fd: int) -> None:
            super().fdatasync(fd)
            durable.append(segment_of(directory).stat().st_size)

    answers = Answers()
    ledger = open_ledger(answers, disk=SyncWatch(), idle_mark_s=3600)
    append_at_once(ledger, answers, MANY[:3])
    append_at_once(ledger, answers, MANY[3:5])
    append_at_once(ledger, answers, MANY[5:7])
    data = segment_of(directory).read_bytes()
    head_end = data.index(MANY[0]) - 48
    told = [int.from_bytes(data[data.index(payload) - 24 :][:8], "little") for payload in MANY[:7]]
    assert told == [head_end] * 3 + [durable[0]] * 2 + [durable[1]] * 2


def test_another_process_sees_everything_once_the_idle_mark_is_written(
    open_ledger: OpenLedger, directory: Path
) -> None:
    disk = FaultyDisk()
    answers = Answers(disk.events)
    ledger = open_ledger(answers, disk=disk, idle_mark_s=0.02)
    reader: LedgerReader | None = None
    for number in range(3):
        append_each(ledger, answers, MANY[number * 5 : number * 5 + 5])
        disk.wait_for(lambda events: events[-3][0] == "ack")
        reader = reader or LedgerReader(directory)
        info = reader.partition(TODAY).segments[0]
        assert (info.record_count, info.state) == (number * 5 + 5, SegmentState.OPEN)
        assert [record.payload for record in reader.records(TODAY)] == MANY[: number * 5 + 5]


@both_ways
def test_damage_in_a_frozen_segment_is_stepped_over_named_and_remembered(
    open_ledger: OpenLedger, directory: Path, reading: Reading
) -> None:
    answers = Answers()
    ledger = open_ledger(answers, segment_records_max=1000)
    append_at_once(ledger, answers, MANY)
    ledger.close()
    data = segment_of(directory).read_bytes()
    for number, field in ((10, 0), (11, -48), (500, 0), (1000, 3)):
        flip_byte(segment_of(directory), data.index(MANY[number - 1]) + field)
    reader = reading(ledger, directory)
    cursor = reader.segment_cursor(TODAY, 1)
    payloads = [record.payload for record in cursor.read(5000, 1 << 20)]
    assert payloads == [payload for number, payload in enumerate(MANY, 1) if number not in (10, 11, 500, 1000)]
    info = reader.partition(TODAY).segments[0]
    assert (info.state, info.record_count) == (SegmentState.DAMAGED, 1000)
    assert info.damaged == ((10, 11), (500, 500), (1000, 1000))
    assert [record.position.record_index for record in reader.ranges(TODAY, 1, [(9, 12)])] == [9, 12]


def test_scattered_damage_is_told_once_a_stride_and_not_once_a_record(
    open_ledger: OpenLedger, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = Answers()
    ledger = open_ledger(answers)
    append_at_once(ledger, answers, MANY)
    ledger.close()
    data = bytearray(segment_of(directory).read_bytes())
    for payload in MANY[::2]:
        data[data.index(payload)] ^= 0xFF
    segment_of(directory).write_bytes(data)
    told: list[tuple[IndexRange, ...]] = []
    keep = DamageNotes.add

    def counted(notes: DamageNotes, partition: str, ordinal: int, damaged: tuple[IndexRange, ...]) -> None:
        told.append(damaged)
        keep(notes, partition, ordinal, damaged)

    monkeypatch.setattr(DamageNotes, "add", counted)
    reader = LedgerReader(directory)
    assert [record.payload for record in reader.records(TODAY)] == MANY[1::2]
    assert len(reader.partition(TODAY).segments[0].damaged) == len(MANY[::2])
    assert len(told) <= 3


def test_damage_in_a_live_segment_is_named_from_outside(open_ledger: OpenLedger, tmp_path: Path) -> None:
    answers = Answers()
    ledger = open_ledger(answers, tmp_path / "running", idle_mark_s=3600)
    append_each(ledger, answers, MANY[:6])
    image = crash_image(tmp_path / "running", tmp_path / "image")
    data = segment_of(image).read_bytes()
    for number in (2, 5):
        flip_byte(segment_of(image), data.index(MANY[number - 1]) - 40)
    reader = LedgerReader(image)
    info = reader.partition(TODAY).segments[0]
    assert (info.state, info.record_count, info.damaged) == (SegmentState.DAMAGED, 5, ((2, 2), (5, 5)))
    assert [record.payload for record in reader.records(TODAY)] == [MANY[0], MANY[2], MANY[3]]


@both_ways
def test_names_that_do_not_exist_are_key_errors(open_ledger: OpenLedger, directory: Path, reading: Reading) -> None:
    answers = Answers()
    ledger = open_ledger(answers)
    append_each(ledger, answers, [b"x"])
    reader = reading(ledger, directory)
    with pytest.raises(KeyError):
        reader.partition("2026-01-30")
    with pytest.raises(KeyError):
        reader.segment_cursor(TODAY, 2)
    with pytest.raises(KeyError):
        next(reader.records("../elsewhere"))


def test_a_directory_without_identity_is_no_ledger(tmp_path: Path) -> None:
    with pytest.raises(LedgerDamaged, match=r"ledger\.json"):
        LedgerReader(tmp_path)


def test_the_highwater_is_a_sequence_and_the_count_is_a_count(open_ledger: OpenLedger) -> None:
    answers = Answers()
    ledger = open_ledger(answers, segment_records_max=3)
    append_at_once(ledger, answers, MANY[:8])
    info = ledger.partition(TODAY)
    assert (info.record_count, info.highwater_sequence) == (8, 3 << 32 | 2)
    assert all(before.ordinal + 1 == after.ordinal for before, after in pairwise(info.segments))


def test_any_record_of_a_live_segment_is_read_without_what_lies_before_it(open_ledger: OpenLedger) -> None:
    disk = CountingDisk()
    answers = Answers()
    ledger = open_ledger(answers, disk=disk)
    payloads = [b"%05d" % number + bytes(4096) for number in range(1, 1301)]
    append_at_once(ledger, answers, payloads)
    for index in (1, 255, 256, 257, 258, 512, 513, 1024, 1025, 1300):
        disk.bytes_read = 0
        assert [record.payload for record in ledger.reader().ranges(TODAY, 1, [(index, index)])] == [
            payloads[index - 1]
        ]
        assert disk.bytes_read < 3 * 1024 * 1024
    assert list(ledger.reader().ranges(TODAY, 1, [(1301, 1400)])) == []


@pytest.mark.parametrize("looks", range(1, 8))
@pytest.mark.parametrize("how", ["records", "emitted"])
def test_whenever_a_segment_is_filled_and_followed_by_another_a_reader_leaves_no_gap(
    open_ledger: OpenLedger, monkeypatch: pytest.MonkeyPatch, looks: int, how: str
) -> None:
    """The writer goes on after so many of the looks that a reader takes at what comes next."""
    answers = Answers()
    ledger = open_ledger(answers, segment_records_max=4)
    append_each(ledger, answers, [b"1", b"2"])
    reader, taken = ledger.reader(), 0
    look = reader._maybe_segment

    def look_and_be_overtaken(partition: str, ordinal: int) -> SegmentInfo | None:
        nonlocal taken
        found = look(partition, ordinal)
        taken += 1
        if taken == looks:
            append_each(ledger, answers, [b"3", b"4", b"5", b"6"])
        return found

    monkeypatch.setattr(reader, "_maybe_segment", look_and_be_overtaken)
    day = microseconds_of(NOON)
    records = reader.records(TODAY) if how == "records" else reader.emitted(day, day + 1, Lateness.BOTH)
    read = [record.payload for record in records]
    assert read == [b"1", b"2", b"3", b"4", b"5", b"6"][: len(read)]
    assert len(read) >= 2
