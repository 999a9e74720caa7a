"""Reading a file through one window, so that a walk costs few reads and stays in the cache of its core."""

from pathlib import Path

from ledger.disk import Disk

_WINDOW_BYTES = 256 * 1024  # with the payloads cut out of it well within 1 MiB of L2 cache: a third faster than 1 MiB


class Source:
    """The bytes of one file. Opens it for each window and holds nothing open."""

    def __init__(self, disk: Disk, path: Path) -> None:
        self._disk = disk
        self._path = path
        self._window = b""
        self._start = 0

    def at(self, offset: int, size: int, end: int) -> tuple[bytes, int]:
        """Bytes and where in them `offset` lies. They reach `size` further unless `end` or the file's end is nearer.

        Nothing at or beyond `end` is ever kept: it may still change.
        """
        start = offset - self._start
        if start < 0 or offset + size > self._start + len(self._window):
            self._window = self._disk.read(self._path, offset, min(max(size, _WINDOW_BYTES), end - offset))
            self._start, start = offset, 0
        return self._window, start
