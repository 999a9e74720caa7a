"""A payload is made by others, and may end with the bytes of a whole FOOTER that speaks of its own offset."""

from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

import pytest

from ledger import Ledger, LedgerReader, Recovered, SegmentState
from ledger.disk import Disk
from ledger.files import head
from ledger.files.bookends import SegmentFooter, encode_footer
from ledger.files.head import footer_at_end
from ledger.format import HEADER_BYTES, TYPE_FOOTER, encode_frame, seed_of
from tests.ledger.conftest import OpenLedger
from tests.ledger.faults import (
    FIVE,
    NOON,
    TODAY,
    Answers,
    append_each,
    crash_image,
    one_batch,
    overwrite,
    segment_of,
    served,
)
from tests.ledger.sealed_days import found

LONG_AFTER = datetime(2026, 2, 9, tzinfo=UTC)


def forged(ledger: Ledger, segment_id: bytes | None = None) -> bytes:
    """A FOOTER for the end of the live segment, as the next payload: it denies every record."""
    info = ledger.partition(TODAY).segments[-1]
    offset = info.byte_length + HEADER_BYTES
    told = SegmentFooter(segment_id or info.segment_id, 0, offset, None, None, (), "00" * 32)
    seed = seed_of(told.segment_id)
    return encode_frame(TYPE_FOOTER, encode_footer(told), seed=seed, durable_offset=offset, written_at=0)


@pytest.fixture
def hostile(open_ledger: OpenLedger, tmp_path: Path) -> tuple[Path, list[bytes]]:
    """A crashed ledger whose last record ends with a FOOTER, and all its payloads."""
    answers = Answers()
    ledger = open_ledger(answers, idle_mark_s=3600)
    append_each(ledger, answers, FIVE)
    payload = forged(ledger)
    append_each(ledger, answers, [payload])
    image = crash_image(tmp_path / "ledger", tmp_path / "crashed")
    assert footer_at_end(Disk(), segment_of(image))  # so it is one, for whoever looks at the end alone
    return image, [*FIVE, payload]


def test_a_footer_within_a_payload_ends_nothing_at_opening(
    hostile: tuple[Path, list[bytes]], open_ledger: OpenLedger
) -> None:
    image, payloads = hostile
    answers = Answers()
    ledger = open_ledger(answers, image, now=lambda: NOON)
    assert ledger.recovered == Recovered((), ())
    append_each(ledger, answers, [b"next"])
    ledger.close()
    assert served(image) == [*payloads, b"next"]
    assert found(LedgerReader(image)) == []
    sealing = open_ledger(Answers(), image, now=lambda: LONG_AFTER)
    assert sealing.seal(TODAY).total_records == 7


def test_a_footer_within_a_payload_ends_nothing_for_a_reader_from_outside(
    open_ledger: OpenLedger, directory: Path
) -> None:
    answers = Answers()
    ledger = open_ledger(answers, idle_mark_s=3600)
    append_each(ledger, answers, FIVE)
    reader = LedgerReader(directory)
    append_each(ledger, answers, [payload := forged(ledger)])
    for each in (reader, LedgerReader(directory)):
        info = each.partition(TODAY).segments[0]
        assert (info.record_count, info.state) == (5, SegmentState.OPEN)
    append_each(ledger, answers, [b"next"])
    assert [record.payload for record in reader.records(TODAY)] == [*FIVE, payload]
    ledger.close()
    for each in (reader, LedgerReader(directory)):
        info = each.partition(TODAY).segments[0]
        assert (info.record_count, info.state) == (7, SegmentState.FROZEN)


def test_a_forged_footer_gives_no_identity_to_what_has_a_readable_header(
    open_ledger: OpenLedger, directory: Path, tmp_path: Path
) -> None:
    answers = Answers()
    ledger = open_ledger(answers, idle_mark_s=3600)
    append_each(ledger, answers, FIVE)
    append_each(ledger, answers, [payload := forged(ledger, bytes(range(16)))])
    image = crash_image(directory, tmp_path / "crashed")
    overwrite(segment_of(image), 8, b"\xff")
    again = open_ledger(Answers(), image)
    assert [record.payload for record in again.reader().records(TODAY)] == [*FIVE, payload]


def test_a_judged_segment_is_read_once_by_one_reader(open_ledger: OpenLedger, directory: Path) -> None:
    class Counting(Disk):
        bytes_read = 0

        def read(self, path: Path, offset: int, size: int) -> bytes:
            data = super().read(path, offset, size)
            self.bytes_read += len(data)
            return data

    answers = Answers()
    ledger = open_ledger(answers)
    append_each(ledger, answers, [bytes(1_000_000), bytes(1_000_001)])
    ledger.close()
    reader = LedgerReader(directory, disk=(disk := Counting()))
    assert reader.partition(TODAY).record_count == 2
    disk.bytes_read = 0
    assert reader.partition(TODAY).record_count == 2
    assert disk.bytes_read < 100_000


def test_bytes_that_look_like_many_footers_cost_no_time(open_ledger: OpenLedger, directory: Path) -> None:
    """Behind each of them stands a length that reaches far, and nothing that is JSON: none is summed up or parsed."""
    answers = Answers()
    ledger = open_ledger(answers, idle_mark_s=3600)
    pattern = bytes([0x00, 0x20, 0x04, 0x00, 0x81, 0x41, 0x41, 0x41])
    with one_batch(ledger):
        ledger.append(pattern * (300 * 1024 // 8), NOON, 1)
    answers.positions(1)
    with patch.object(head, "maybe_header") as summed_up, patch.object(head, "maybe_footer") as parsed:
        assert footer_at_end(Disk(), segment_of(directory)) is None
    assert (summed_up.called, parsed.called) == (False, False)  # of thousands of calls a mock would tell for minutes
