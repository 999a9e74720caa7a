"""Every single bit of a small segment, flipped: the damage is named exactly and no wrong record is ever served."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from ledger import LedgerReader, SegmentInfo, SegmentState
from ledger.files.layout import read_ledger_id
from ledger.opening.takeover import Opening
from ledger.writing.catalog import Catalog
from tests.ledger.conftest import OpenLedger, append_and_mark
from tests.ledger.faults import TODAY, Answers, FaultyDisk, UnsyncedDisk, crash_image, segment_of

GIVEN = [b"alpha", b"beta-beta", b"", b"delta-delta-delta", b"epsilon!"]
Seen = tuple[SegmentInfo, dict[int, bytes]]


@pytest.fixture
def marked(where: Path, open_ledger: OpenLedger) -> Path:
    """Five records and the idle mark: what a kill -9 in a quiet moment leaves."""
    disk = FaultyDisk()
    answers = Answers(disk.events)
    ledger = open_ledger(answers, where / "running", disk, idle_mark_s=0.05)
    append_and_mark(ledger, answers, disk, GIVEN)
    return crash_image(where / "running", where / "marked")


def seen_by_the_writer(directory: Path) -> Seen:
    disk = UnsyncedDisk()
    catalog = Catalog(Opening(disk, directory, read_ledger_id(disk, directory), 0, 0).partitions())
    return _seen(LedgerReader(directory, view=catalog, disk=disk))


def seen_by_another_process(directory: Path) -> Seen:
    return _seen(LedgerReader(directory))


def _seen(reader: LedgerReader) -> Seen:
    records = {record.position.record_index: record.payload for record in reader.records(TODAY)}
    return reader.partition(TODAY).segments[0], records


def record_at(data: bytes, offset: int) -> int | None:
    """Which record's frame the byte belongs to, found by walking the undamaged bytes."""
    at = 8
    while at < len(data):
        size = 48 + -(-int.from_bytes(data[at + 8 : at + 12], "little") // 8) * 8
        if at <= offset < at + size:
            return int.from_bytes(data[at + 16 : at + 20], "little") or None
        at += size
    return None


def check(seen: Seen, hit: int | None, where: int) -> None:
    info, records = seen
    assert info.record_count == 5, where
    assert info.damaged == (((hit, hit),) if hit else ()), where
    assert records == {index: GIVEN[index - 1] for index in range(1, 6) if index != hit}, where


@pytest.mark.parametrize("view", [seen_by_the_writer, seen_by_another_process])
def test_each_flipped_bit_of_a_marked_segment_is_named_exactly(marked: Path, view: Callable[[Path], Seen]) -> None:
    path = segment_of(marked)
    whole = path.read_bytes()
    mark_start = len(whole) - 56
    # The writer's view judges every bit; the other reads by the same walk, so a seventh of the bits is enough for it.
    for bit in range(0, len(whole) * 8, 1 if view is seen_by_the_writer else 7):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        seen = view(marked)
        if bit // 8 < mark_start:
            check(seen, record_at(whole, bit // 8), bit)
            assert seen[0].state is SegmentState.DAMAGED
        elif view is seen_by_the_writer:  # without its mark the tail is torn, and nothing but the mark is lost
            check(seen, None, bit)
        else:  # another process knows no more than that the first four were durable
            assert [seen[1][index] for index in sorted(seen[1])] == GIVEN[: len(seen[1])]
        for torn in (marked / TODAY).glob("*.torn"):
            torn.unlink()


def test_each_flipped_byte_of_a_frozen_segment_is_named_by_reading_it(marked: Path) -> None:
    """Opening trusts the FOOTER, so it is the reader who finds it, and tells the partition."""
    seen_by_the_writer(marked)  # freezes it
    path = segment_of(marked)
    whole = path.read_bytes()
    footer_start = whole.rindex(b'{"segment_id"') - 48
    chance = random.Random(7)
    for offset in range(footer_start):
        flipped = bytearray(whole)
        flipped[offset] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        hit = record_at(whole, offset)
        for view in (seen_by_another_process, seen_by_the_writer):
            seen = view(marked)
            check(seen, hit, offset)
            assert seen[0].state is SegmentState.DAMAGED
        assert path.read_bytes() == bytes(flipped)
    assert [*path.parent.iterdir()] == [path]


def test_a_flipped_byte_of_the_footer_costs_no_record(marked: Path) -> None:
    seen_by_the_writer(marked)
    path = segment_of(marked)
    whole = path.read_bytes()
    for offset in range(whole.rindex(b'{"segment_id"') - 48, len(whole)):
        flipped = bytearray(whole)
        flipped[offset] ^= 0x10
        path.write_bytes(flipped)
        check(seen_by_the_writer(marked), None, offset)
        for torn in path.parent.glob("*.torn"):
            torn.unlink()
