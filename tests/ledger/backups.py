"""Taking backups, and what holds for each of them."""

from pathlib import Path

from ledger import (
    BackedUp,
    Copying,
    Damage,
    Disk,
    LedgerReader,
    LedgerSettings,
    SegmentState,
    backup,
)
from tests.ledger.faults import (
    UnsyncedDisk,
)
from tests.ledger.sealed_days import (
    found,
)

SETTINGS = LedgerSettings(free_bytes_min=0, segment_records_max=2, idle_mark_s=3600)


def taken(reader: LedgerReader, target: Path, disk: Disk | None = None) -> tuple[BackedUp, list[Damage]]:
    told = list(backup(reader, target, disk=disk or UnsyncedDisk()))
    assert isinstance(told[-1], BackedUp)
    progress = [each for each in told if isinstance(each, Copying)]
    assert [each.bytes_copied for each in progress] == sorted(each.bytes_copied for each in progress)
    assert not progress or progress[-1].bytes_copied == progress[-1].bytes_total
    damage = [each for each in told if isinstance(each, Damage)]
    assert told[-1].is_damaged == bool(damage)
    assert told[-1].damaged_record_count == sum(1 for each in damage if each.sequence)
    return told[-1], damage


def files_of(directory: Path) -> dict[str, bytes]:
    paths = (path for path in directory.rglob("*") if path.is_file() and path.name != "LOCK")
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


def assert_whole(target: Path) -> None:
    reader = LedgerReader(target)
    assert list(reader.verify_chain()) == []
    for info in reader.partitions():
        assert found(reader, info.name) == []
        assert all(segment.state is SegmentState.FROZEN for segment in info.segments)
