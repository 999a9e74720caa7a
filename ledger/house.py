"""A ledger directory taken into possession: locked, identified, recovered."""

import errno
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from ledger.disk import Disk, make_directory
from ledger.errors import LedgerError, LedgerFull, LedgerLocked, LedgerUnavailable
from ledger.layout import LOCK_FILE, establish_ledger_id, remove_temporaries
from ledger.opening import Opening
from ledger.positions import PartitionInfo
from ledger.settings import LedgerSettings


@dataclass(frozen=True, slots=True)
class House:
    """Held until `lock` is released."""

    directory: Path
    ledger_id: str
    lock: FileLock
    recovered: list[PartitionInfo]


def open_house(disk: Disk, directory: Path, settings: LedgerSettings, now: int) -> House:
    """LedgerLocked at once when another writer is in; the other errors of Ledger.open()."""
    try:
        make_directory(disk, directory)
        lock = _locked(directory)
        try:
            return _recover(disk, directory, lock, settings, now)
        except BaseException:
            lock.release()
            raise
    except OSError as error:
        raise _translated(directory, error) from error


def _locked(directory: Path) -> FileLock:
    # Held by the process, not by a thread; and never a file whose mere existence would lock after kill -9.
    lock = FileLock(directory / LOCK_FILE, timeout=0, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise LedgerLocked(f"{directory}: another writer holds {LOCK_FILE}") from error
    return lock


def _recover(disk: Disk, directory: Path, lock: FileLock, settings: LedgerSettings, now: int) -> House:
    # An earlier process may have died between making a directory or a name and making it durable.
    disk.fsync_dir(directory.parent)
    disk.fsync_dir(directory)
    remove_temporaries(disk, directory)
    ledger_id = establish_ledger_id(disk, directory, now)
    recovered = Opening(disk, directory, ledger_id, now, settings.free_bytes_min).partitions()
    return House(directory, ledger_id, lock, recovered)


def _translated(directory: Path, error: OSError) -> LedgerError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LedgerFull(f"{directory}: no space to open the ledger: {error.strerror}")
    return LedgerUnavailable(f"{directory}: cannot open the ledger: {error.strerror or error}")
