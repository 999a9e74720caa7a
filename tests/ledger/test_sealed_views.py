"""What a reader from outside remembers of a sealed partition."""

from dataclasses import replace
from pathlib import Path

from ledger import Disk, LedgerReader, SealState
from ledger.disk import publish
from ledger.files.layout import seal_path
from ledger.seal import encode_seal
from tests.ledger.faults import FIVE, TODAY
from tests.ledger.sealed_days import seal_of


class SealWatch(Disk):
    read_count = 0

    def read(self, path: Path, offset: int, size: int) -> bytes:
        self.read_count += path.name == "SEAL"
        return super().read(path, offset, size)


def test_a_seal_is_read_once_however_many_segments_it_lists(sealed: Path) -> None:
    reader = LedgerReader(sealed, disk=(disk := SealWatch()))
    assert [record.payload for record in reader.records(TODAY)] == FIVE
    assert disk.read_count == 1


def test_a_seal_that_was_replaced_is_read_again(sealed: Path) -> None:
    reader = LedgerReader(sealed)
    assert not reader.partition(TODAY).is_pruned
    pruned = replace(seal_of(sealed), state=SealState.PRUNED)
    disk = Disk()
    disk.close(publish(disk, seal_path(sealed, TODAY), encode_seal(pruned)))
    assert reader.partition(TODAY).is_pruned


def test_a_seal_that_cannot_be_read_is_asked_again_so_a_good_one_put_back_counts(sealed: Path) -> None:
    path = seal_path(sealed, TODAY)
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    reader = LedgerReader(sealed)
    assert reader.partition(TODAY).is_seal_damaged
    path.write_bytes(good)
    assert not reader.partition(TODAY).is_seal_damaged
