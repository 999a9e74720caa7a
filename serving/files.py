"""Files that are read again when they change: keys are revoked and certificates replaced without a restart."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import structlog

T = TypeVar("T")

Signature = tuple[tuple[int, int, int, int] | None, ...]

log = structlog.get_logger()


class Reloaded(Generic[T]):
    """What files say, as of the last time they could be read; looking whether they changed costs a stat each.

    A change that cannot be read is told once and leaves what was read before in force: a half-written file must
    neither lock everybody out nor let anybody in.
    """

    def __init__(self, paths: Sequence[Path], read: Callable[[], T]) -> None:
        """`read` raises OSError or ValueError, whose texts hold nothing secret. The first time, it is raised on."""
        self._paths = tuple(paths)
        self._read = read
        self._seen = self._signature()
        self._value = read()

    def current(self) -> T:
        """A file that changes while it is read is read again by the next call."""
        signature = self._signature()
        if signature != self._seen:
            self._seen = signature
            try:
                self._value = self._read()
            except (OSError, ValueError) as error:
                log.error("file_not_reloaded", paths=[str(path) for path in self._paths], error=str(error))
            else:
                log.info("file_reloaded", paths=[str(path) for path in self._paths])
        return self._value

    def _signature(self) -> Signature:
        return tuple(map(maybe_signature, self._paths))


def maybe_signature(path: Path) -> tuple[int, int, int, int] | None:
    """What changes when a file is written, or another one put in its place, by a link too; None: not there."""
    try:
        told = os.stat(path)
    except OSError:
        return None
    return told.st_dev, told.st_ino, told.st_mtime_ns, told.st_size
