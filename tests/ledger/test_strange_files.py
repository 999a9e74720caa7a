"""What has one of our names and is of another kind: nothing hangs, nothing is removed, what is refused is named."""

import os
from pathlib import Path

import pytest

from ledger import LedgerReader, LedgerUnavailable
from ledger.disk import Disk
from tests.ledger.conftest import OpenLedger
from tests.ledger.faults import FIVE, TODAY, Answers, reopened, served


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
@pytest.mark.parametrize("name", ["segment-00000002.log", "SEAL"])
def test_what_is_no_file_under_the_name_of_one_is_refused_at_once_and_named(
    crashed: Path, open_ledger: OpenLedger, name: str, make: object
) -> None:
    """Whoever opens a FIFO to read waits for somebody who writes: then this test never ends."""
    path = crashed / TODAY / name
    assert callable(make)
    make(path)
    with pytest.raises(LedgerUnavailable, match=f"it is no regular file: {path}"):
        open_ledger(Answers(), crashed)
    with pytest.raises(OSError, match="it is no regular file"):
        LedgerReader(crashed).partitions()


def test_a_device_is_not_read(crashed: Path) -> None:
    with pytest.raises(OSError, match="it is no regular file"):
        Disk().read(Path("/dev/zero"), 0, 1)


def test_a_directory_with_a_temporary_name_is_left_alone(crashed: Path) -> None:
    strange = [crashed / "x.tmp", crashed / TODAY / "x.tmp"]
    for path in strange:
        path.mkdir()
    assert reopened(crashed).record_count == 5
    assert all(path.is_dir() for path in strange)


def test_a_file_with_the_name_of_a_day_is_no_partition(crashed: Path) -> None:
    (crashed / "2026-01-31").write_bytes(b"x")
    reopened(crashed)
    assert [info.name for info in LedgerReader(crashed).partitions()] == [TODAY]
    assert served(crashed) == FIVE
