"""Whether a directory is fit to hold the backup of a ledger: reads it, changes nothing."""

from collections.abc import Iterator
from pathlib import Path

from ledger.checking.seal_check import maybe_seal_file
from ledger.disk import Disk
from ledger.errors import BackupRefused, FormatUnsupported, LedgerDamaged
from ledger.files.head import read_head
from ledger.files.layout import LEDGER_FILE, partition_names, read_ledger_id, segment_ordinals, segment_path
from ledger.positions import SEGMENT_ID_UNKNOWN, PartitionInfo
from ledger.reader import LedgerReader


def refuse_unless_backup(disk: Disk, target: Path, reader: LedgerReader, infos: list[PartitionInfo]) -> None:
    """BackupRefused unless `target` is not there, empty, or holds an earlier state of the same ledger and no more."""
    _refuse_overlap(disk, target, reader.directory)
    if not disk.exists(target):
        return
    if disk.exists(target / LEDGER_FILE):
        _refuse_other(disk, target, reader.ledger_id)
    elif partition_names(disk, target):
        raise BackupRefused(f"{target} holds partitions and no {LEDGER_FILE}: nobody can tell of which ledger")
    known = {info.name: info for info in infos}
    for name in partition_names(disk, target):
        for reason in _reasons(disk, target, name, known.get(name)):
            raise BackupRefused(f"{target} is no longer a backup of this ledger: {name} {reason}")


def _refuse_overlap(disk: Disk, target: Path, directory: Path) -> None:
    there, here = target.resolve(), directory.resolve()
    is_same = disk.exists(there) and disk.identity(there) == disk.identity(here)
    if is_same or there == here or here in there.parents or there in here.parents:
        raise BackupRefused(f"{target} and the ledger's directory {directory} must not lie within each other")


def _refuse_other(disk: Disk, target: Path, ledger_id: str) -> None:
    try:
        found = read_ledger_id(disk, target)
    except (LedgerDamaged, FormatUnsupported) as error:
        raise BackupRefused(f"{target} holds a ledger that cannot be understood: {error}") from error
    if found != ledger_id:
        raise BackupRefused(f"{target} holds another ledger, {found}")


def _reasons(disk: Disk, target: Path, name: str, info: PartitionInfo | None) -> Iterator[str]:
    """What the copy of a partition has, and the ledger has not: somebody has written to the copy."""
    ordinals = segment_ordinals(disk, target / name)
    file = maybe_seal_file(disk, target, name)
    segments = {segment.ordinal: segment for segment in info.segments} if info else {}
    for ordinal in ordinals:
        if ordinal not in segments:
            yield f"has a segment {ordinal} that the ledger has not"
            continue
        header = read_head(disk, segment_path(target, name, ordinal)).header
        known = (SEGMENT_ID_UNKNOWN, header.segment_id if header else SEGMENT_ID_UNKNOWN)
        if header and segments[ordinal].segment_id not in known:
            yield f"has another segment {ordinal}"
    if file and file.seal and info and not info.is_seal_damaged:
        if info.seal is None:
            yield "is sealed there, and not in the ledger"
        elif info.seal.sha256 != file.seal.sha256:
            yield "has another SEAL"
