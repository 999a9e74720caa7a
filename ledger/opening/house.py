"""A ledger directory taken into possession: locked, identified, recovered."""

import errno
from dataclasses import dataclass
from pathlib import Path

from ledger.disk import Disk, is_no_space, make_directory, space_permitting
from ledger.errors import LedgerError, LedgerFull, LedgerUnavailable
from ledger.files.layout import establish_ledger_id, remove_temporaries
from ledger.opening.lock import DirectoryLock
from ledger.opening.takeover import Opening
from ledger.positions import PartitionInfo, SegmentInfo, SegmentState
from ledger.settings import LedgerSettings


@dataclass(frozen=True, slots=True)
class Recovered:
    """What opening found that was not whole: every damaged segment, and the copies of the tails it has just cut off.

    A torn tail that was left in place for want of free space is in neither: the next opening finds it again.
    `damaged_seals` names the partitions that are sealed by a SEAL which cannot be read.
    """

    damaged: tuple[SegmentInfo, ...]
    torn_files: tuple[Path, ...]
    damaged_seals: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class House:
    """Held until `lock` is released."""

    directory: Path
    ledger_id: str
    lock: DirectoryLock
    partitions: list[PartitionInfo]
    recovered: Recovered


def open_house(disk: Disk, directory: Path, settings: LedgerSettings, now: int) -> House:
    """LedgerLocked at once when another writer is in; the other errors of Ledger.open()."""
    try:
        make_directory(disk, directory)
        if not disk.is_writable(directory):
            raise PermissionError(errno.EACCES, "the directory cannot be written to")
        lock = DirectoryLock(disk, directory)
        try:
            return _recover(disk, directory, lock, settings, now)
        except BaseException:
            lock.release()
            raise
    except OSError as error:
        raise _translated(directory, error) from error


def _recover(disk: Disk, directory: Path, lock: DirectoryLock, settings: LedgerSettings, now: int) -> House:
    # An earlier process may have died between making a directory or a name and making it durable.
    disk.fsync_dir(directory.parent)
    disk.fsync_dir(directory)
    with space_permitting():
        remove_temporaries(disk, directory)
    ledger_id = establish_ledger_id(disk, directory, now)
    opening = Opening(disk, directory, ledger_id, now, settings.free_bytes_min)
    partitions = opening.partitions()
    _settle_last_seal(disk, directory, partitions)
    segments = (segment for partition in partitions for segment in partition.segments)
    damaged = tuple(segment for segment in segments if segment.state is SegmentState.DAMAGED)
    damaged_seals = tuple(info.name for info in partitions if info.is_seal_damaged)
    recovered = Recovered(damaged, tuple(opening.torn_files), damaged_seals)
    return House(directory, ledger_id, lock, partitions, recovered)


def _settle_last_seal(disk: Disk, directory: Path, partitions: list[PartitionInfo]) -> None:
    """A SEAL counts as soon as it can be seen: it must not go with a power cut. The last one alone can: each of the
    others was durable before the next was written."""
    last = max((info.seal.seal_number for info in partitions if info.seal), default=0)
    for info in partitions:
        if info.is_seal_damaged or (info.seal and info.seal.seal_number == last):
            disk.fsync_dir(directory / info.name)


def _translated(directory: Path, error: OSError) -> LedgerError:
    if is_no_space(error):
        return LedgerFull(f"{directory}: no space to open the ledger: {error.strerror}")
    where = f": {error.filename}" if error.filename else ""
    return LedgerUnavailable(f"{directory}: cannot open the ledger: {error.strerror or error}{where}")
