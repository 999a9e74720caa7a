"""A ledger directory taken into possession: locked, identified, recovered."""

import errno
from dataclasses import dataclass
from pathlib import Path

from ledger.disk import Disk, make_directory
from ledger.errors import LedgerError, LedgerFull, LedgerUnavailable
from ledger.layout import establish_ledger_id, remove_temporaries
from ledger.lock import DirectoryLock
from ledger.opening import Opening
from ledger.positions import PartitionInfo, SegmentInfo, SegmentState
from ledger.settings import LedgerSettings


@dataclass(frozen=True, slots=True)
class Recovered:
    """What opening found that was not whole: every damaged segment, and the copies of the tails it has just cut off.

    A torn tail that was left in place for want of free space is in neither: the next opening finds it again.
    """

    damaged: tuple[SegmentInfo, ...]
    torn_files: tuple[Path, ...]


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
    remove_temporaries(disk, directory)
    ledger_id = establish_ledger_id(disk, directory, now)
    opening = Opening(disk, directory, ledger_id, now, settings.free_bytes_min)
    partitions = opening.partitions()
    segments = (segment for partition in partitions for segment in partition.segments)
    damaged = tuple(segment for segment in segments if segment.state is SegmentState.DAMAGED)
    return House(directory, ledger_id, lock, partitions, Recovered(damaged, tuple(opening.torn_files)))


def _translated(directory: Path, error: OSError) -> LedgerError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LedgerFull(f"{directory}: no space to open the ledger: {error.strerror}")
    return LedgerUnavailable(f"{directory}: cannot open the ledger: {error.strerror or error}")
