"""Two ways to read a file that is checked: through a disk that fails here and there, and hashing what goes by."""

import errno
import hashlib
from pathlib import Path

from ledger.disk import Disk

STRIDE_BYTES = 1024 * 1024
_PIECE_BYTES = 4096  # a sector of today's disks: what is given up when it cannot be read


_LASTING = (
    errno.EACCES,
    errno.EINVAL,  # no regular file
    errno.EIO,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ENXIO,
    errno.EPERM,
)


def is_lost(error: OSError) -> bool:
    """Whether nobody can read it until somebody mends it. A want of descriptors or of memory, say, passes."""
    return error.errno in _LASTING


class SalvagedReads(Disk):
    """Reads what a failing disk still gives: zeros stand where it gives nothing, and `unreadable` says where that is.

    Only read() and size() may be used.
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.unreadable: tuple[int, int] | None = None  # the first and the last such byte, and what lies between

    def size(self, path: Path) -> int:
        return self._disk.size(path)

    def read(self, path: Path, offset: int, size: int) -> bytes:
        try:
            return self._disk.read(path, offset, size)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
        pieces = range(offset, min(offset + size, self.size(path)), _PIECE_BYTES)
        return b"".join(self._piece(path, at, min(_PIECE_BYTES, offset + size - at)) for at in pieces)

    def _piece(self, path: Path, offset: int, size: int) -> bytes:
        try:
            return self._disk.read(path, offset, size)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
        size = min(size, self.size(path) - offset)
        start, end = self.unreadable or (offset, offset)
        self.unreadable = (min(start, offset), max(end, offset + size))
        return bytes(size)


class HashedReads(Disk):
    """Reads one file as far as `end`, and hashes each byte when it is first read. Only read() may be used."""

    def __init__(self, disk: Disk, end: int) -> None:
        self._disk = disk
        self._end = end
        self._sha256 = hashlib.sha256()
        self.bytes_read = 0

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    def read(self, path: Path, offset: int, size: int) -> bytes:
        self.read_to(path, offset)
        data = self._disk.read(path, offset, max(0, min(size, self._end - offset)))
        if offset <= self.bytes_read < offset + len(data):
            self._sha256.update(memoryview(data)[self.bytes_read - offset :])
            self.bytes_read = offset + len(data)
        return data

    def read_to(self, path: Path, offset: int) -> None:
        """Hashes what a walk has left out."""
        while self.bytes_read < min(offset, self._end):
            data = self._disk.read(path, self.bytes_read, min(STRIDE_BYTES, offset - self.bytes_read))
            if not data:
                return
            self._sha256.update(data)
            self.bytes_read += len(data)
