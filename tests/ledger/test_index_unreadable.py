"""What the index makes of records that it cannot read: lost ones, those that are restored, those that are away."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ledger import IndexUnavailable, LedgerReader
from tests.ledger.conftest import OpenLedger
from tests.ledger.faults import Answers, FaultyDisk, append_each, flip_byte, segment_of
from tests.ledger.indexing import appended, caught_up, everything, firsts, ids, index_of, payload


def test_a_lost_segment_does_not_keep_it_behind(open_ledger: OpenLedger, directory: Path) -> None:
    appended(open_ledger, directory, *ids(6), segment_records_max=2)
    segment_of(directory, 2).unlink()
    with index_of(directory) as index:
        caught_up(index)
        assert [entry.signal_id for entry in everything(index)] == ["S-0001", "S-0002", "S-0005", "S-0006"]


def hit_by_rot(directory: Path, payloads: Sequence[bytes]) -> None:
    flip_byte(segment_of(directory), segment_of(directory).read_bytes().index(payloads[1]))


def taken_away(directory: Path, payloads: Sequence[bytes]) -> None:
    segment_of(directory).unlink()


@pytest.mark.parametrize("harm", [hit_by_rot, taken_away])
@pytest.mark.parametrize("records_max", [1, 100])
def test_what_could_not_be_read_and_was_restored_is_found_after_the_next_opening(
    open_ledger: OpenLedger, directory: Path, harm: Callable[[Path, Sequence[bytes]], None], records_max: int
) -> None:
    payloads = [*ids(3), payload("S-0002", note="again"), *ids(2, start=4)]
    appended(open_ledger, directory, *payloads, segment_records_max=3)
    whole = segment_of(directory).read_bytes()
    harm(directory, payloads)
    for _ in range(2):  # as long as it is not restored, an opening changes nothing
        with index_of(directory) as index:
            caught_up(index, records_max)
            found = index.find("S-0002")
            assert found
            assert (found.segment_ordinal, index.damaged_count > 0) == (2, True)
    segment_of(directory).write_bytes(whole)
    with index_of(directory) as index:
        index.advance(0)
        assert index.is_behind()
        caught_up(index, records_max)
        assert everything(index) == firsts(LedgerReader(directory))
        assert index.damaged_count == 0
    with index_of(directory) as index:
        assert index.advance(100).record_count == 0


def test_a_file_that_is_away_keeps_it_behind_and_is_indexed_when_it_is_back(
    open_ledger: OpenLedger, directory: Path
) -> None:
    answers = Answers()
    ledger = open_ledger(answers, segment_records_max=2)
    append_each(ledger, answers, ids(5))
    away = segment_of(directory).rename(directory / "away")
    with index_of(directory, ledger.reader()) as index:
        assert index.advance(100).record_count == 3
        for _ in range(2):
            with pytest.raises(IndexUnavailable, match="is away"):
                index.advance(100)
            assert [record.payload for record in ledger.reader().records("2026-01-29")] == ids(3, start=3)
        assert not index.covers(ledger.partitions())
        assert not ledger.partition("2026-01-29").damaged
        away.rename(segment_of(directory))
        caught_up(index)
        assert everything(index) == firsts(ledger.reader())
        assert index.damaged_count == 0


class BadSector(FaultyDisk):
    """Reads of one segment fail until it is mended."""

    is_mended = False

    def read(self, path: Path, offset: int, size: int) -> bytes:
        if path.name == "segment-00000001.log" and not self.is_mended:
            raise OSError(5, "bad sector")
        return super().read(path, offset, size)


def test_a_segment_that_cannot_be_read_now_holds_up_no_other_and_is_indexed_later(
    open_ledger: OpenLedger, directory: Path
) -> None:
    disk = BadSector()
    answers = Answers()
    ledger = open_ledger(answers, disk=disk, segment_records_max=2)
    first = append_each(ledger, answers, [payload("S-1"), payload("S-2"), payload("S-3")])[0]
    append_each(ledger, answers, [payload("S-1", note="again")])
    with index_of(directory, ledger.reader()) as index:
        assert index.advance(100).record_count == 2
        assert index.find("S-3")
        with pytest.raises(IndexUnavailable, match="bad sector"):
            index.advance(100)
        assert index.is_behind()
        assert index.indexed_through() is None
        disk.is_mended = True
        caught_up(index)
        assert index.find("S-1") == first
