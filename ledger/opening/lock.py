"""Who may write a directory: whoever holds flock(2) on its LOCK file, and only while that file keeps its name."""

import errno
from pathlib import Path

from filelock import FileLock, Timeout

from ledger.disk import PRIVATE, Disk
from ledger.errors import LedgerLocked
from ledger.files.layout import LOCK_FILE


class DirectoryLock:
    """Held from the construction on until release(), by the process and not by a thread."""

    def __init__(self, disk: Disk, directory: Path) -> None:
        """LedgerLocked at once when another writer has it."""
        self._disk = disk
        self._path = directory / LOCK_FILE
        # Never a file whose mere existence would lock after kill -9.
        self._lock = FileLock(self._path, timeout=0, mode=PRIVATE, thread_local=False, fallback_to_soft=False)
        try:
            self._lock.acquire()
        except Timeout as error:
            raise LedgerLocked(f"{directory}: another writer holds {LOCK_FILE}") from error
        self._identity = disk.identity(self._path)

    def check(self) -> None:
        """OSError when the file of that name is gone or another one: from then on a second writer can come in."""
        if self._disk.identity(self._path) != self._identity:
            raise OSError(errno.ESTALE, f"{self._path} is no longer the file that was locked")

    def release(self) -> None:
        self._lock.release()
