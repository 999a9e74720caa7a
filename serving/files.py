"""Files that only their owner reads, and files that are read again when they change.

Keys are revoked and certificates replaced without a restart.
"""

import errno
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

import structlog

T = TypeVar("T")

Signature = tuple[tuple[int, ...] | None, ...]

log = structlog.get_logger(__name__)


def keep_private() -> None:
    """Whatever this process makes from now on is for its owner alone: files have mode 0600, directories 0700."""
    os.umask(0o077)


def read_regular(path: Path, size: int = -1) -> bytes:
    """All of a file, or its first `size` bytes. OSError, at once, for what is no regular file.

    A FIFO would wait for somebody to write, and everything else with it.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    with open(descriptor, "rb") as file:
        return file.read(size)


class Reloaded(Generic[T]):
    """What files say, as of the last time they could be read; looking whether they changed costs a stat each.

    A change that cannot be read is told once and leaves what was read before in force: a half-written file must
    neither lock everybody out nor let anybody in. Any thread may ask.
    """

    def __init__(self, paths: Sequence[Path], read: Callable[[], T]) -> None:
        """`read` raises OSError or ValueError, whose texts hold nothing secret. The first time, it is raised on."""
        self._paths = tuple(paths)
        self._read = read
        self._reading = Lock()
        self._told = ""
        self._seen = self._signature()
        self._value = read()

    def current(self) -> T:
        """A file that changes while it is read is read again by the next call."""
        if self._signature() != self._seen:
            with self._reading:
                self._read_again()
        return self._value

    def _read_again(self) -> None:
        signature = self._signature()
        if signature == self._seen:  # another thread was faster
            return
        try:
            self._value = self._read()
        except (OSError, ValueError) as error:
            if isinstance(error, ValueError):  # it stays as it is until somebody writes; what the system says may pass
                self._seen = signature
            self._tell(str(error))
        else:
            self._seen, self._told = signature, ""
            log.info("file_reloaded", paths=[str(path) for path in self._paths])

    def _tell(self, flaw: str) -> None:
        if flaw != self._told:
            self._told = flaw
            log.error("file_not_reloaded", paths=[str(path) for path in self._paths], error=flaw)

    def _signature(self) -> Signature:
        return tuple(map(maybe_signature, self._paths))


def maybe_signature(path: Path) -> tuple[int, ...] | None:
    """What changes when a file is written, given to somebody, or replaced, by a link too; None: not there."""
    try:
        told = os.stat(path)
    except OSError:
        return None
    return told.st_dev, told.st_ino, told.st_mtime_ns, told.st_ctime_ns, told.st_size
