"""The only door to the file system. Passed in as an argument, so that faults can be injected and operations recorded.

Errors are OSError, as the system gives them; the callers translate. Nothing here retries.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
PRIVATE = 0o600  # signals are for those alone whom the server lets read them
_PRIVATE_DIRECTORY = 0o700
_READ_ONLY = 0o400
_PIECE_BYTES = 1024 * 1024


class Disk:
    """Stateless: file descriptors belong to the caller."""

    def create(self, path: Path) -> int:
        """A new file, open for writing. FileExistsError when there is one already."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE)

    def open_existing(self, path: Path) -> int:
        """An existing file, to be appended to and truncated by recovery."""
        return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)

    def close(self, fd: int) -> None:
        os.close(fd)

    def write(self, fd: int, data: bytes) -> int:
        """Returns how many bytes were taken, which may be fewer than given."""
        return os.write(fd, data)

    def fdatasync(self, fd: int) -> None:
        getattr(os, "fdatasync", os.fsync)(fd)  # macOS has none, and is for development only

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def make_read_only(self, path: Path) -> None:
        if stat.S_IMODE(os.stat(path).st_mode) != _READ_ONLY:
            os.chmod(path, _READ_ONLY)

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def drop_cache(self, fd: int) -> None:
        """Asks the kernel to read from the device next time, so that a scan sees what is durable."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def rename(self, source: Path, target: Path) -> None:
        os.rename(source, target)

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def mkdir(self, path: Path) -> None:
        os.mkdir(path, _PRIVATE_DIRECTORY)

    def fsync_dir(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def read(self, path: Path, offset: int, size: int) -> bytes:
        """At most `size` bytes; fewer only at the end of the file. OSError, at once, for what is no regular file."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO would wait for somebody to write
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "it is no regular file", str(path))
            return _pread_all(fd, offset, size)
        except OSError as error:
            error.filename = str(path)  # a descriptor does not tell
            raise
        finally:
            os.close(fd)

    def size(self, path: Path) -> int:
        return os.stat(path).st_size

    def identity(self, path: Path) -> tuple[int, int]:
        """Device and inode: equal for one file, under whatever name."""
        told = os.stat(path)
        return told.st_dev, told.st_ino

    def is_named(self, fd: int, path: Path) -> bool:
        """False once an open file is no longer the one at `path`: what is written to it would not be found there."""
        try:
            return os.path.samestat(os.fstat(fd), os.stat(path))
        except (FileNotFoundError, NotADirectoryError):
            return False

    def names(self, path: Path) -> list[str]:
        return sorted(os.listdir(path))

    def directory_names(self, path: Path) -> list[str]:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())

    def is_directory(self, path: Path) -> bool:
        return path.is_dir()

    def exists(self, path: Path) -> bool:
        return path.exists()

    def is_writable(self, path: Path) -> bool:
        """False for a directory on a read-only file system, or one that belongs to others."""
        return os.access(path, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)

    def free_bytes(self, path: Path) -> int:
        told = os.statvfs(path)
        return told.f_bavail * told.f_frsize


def is_no_space(error: OSError) -> bool:
    """The disk is full, or the quota is used up: nothing is broken."""
    return error.errno in _NO_SPACE


@contextmanager
def space_permitting() -> Iterator[None]:
    """For what can wait until there is space again: lets nothing but the want of it pass in silence."""
    try:
        yield
    except OSError as error:
        if not is_no_space(error):
            raise


def write_all(disk: Disk, fd: int, data: bytes) -> None:
    """Writes every byte or raises: a short write is followed by the rest, and no progress is an error."""
    written = 0
    while written < len(data):
        taken = disk.write(fd, data[written:])
        if taken == 0:
            raise OSError(errno.EIO, "the disk takes no more bytes")
        written += taken


def publish(disk: Disk, path: Path, data: bytes) -> int:
    """A new file that exists whole or not at all, durable under its name. Returns its descriptor, open for writing."""
    return publish_pieces(disk, path, (data,))


def publish_pieces(disk: Disk, path: Path, pieces: Iterable[bytes]) -> int:
    """publish() for what is too large to be held at once."""
    temporary = path.with_name(path.name + ".tmp")
    fd = disk.create(temporary)
    try:
        for piece in pieces:
            write_all(disk, fd, piece)
        disk.fsync(fd)
        disk.rename(temporary, path)
        disk.fsync_dir(path.parent)
    except BaseException:
        disk.close(fd)
        raise
    return fd


def protect(disk: Disk, paths: Iterable[Path]) -> None:
    """Makes files read-only as far as the system lets us: nothing depends on it."""
    for path in paths:
        with suppress(OSError):
            disk.make_read_only(path)


def pieces_of(disk: Disk, path: Path, start: int, end: int) -> Iterator[bytes]:
    """The bytes from `start` to `end`, or to where the file ends, a MiB at a time."""
    for offset in range(start, end, _PIECE_BYTES):
        yield disk.read(path, offset, min(_PIECE_BYTES, end - offset))


def sha256_of(disk: Disk, path: Path, size: int) -> str:
    """Of the first `size` bytes, in hex."""
    digest = hashlib.sha256()
    for piece in pieces_of(disk, path, 0, size):
        digest.update(piece)
    return digest.hexdigest()


def make_directory(disk: Disk, path: Path) -> None:
    """The directory and its missing parents, each durable under its name before it is used."""
    if disk.exists(path):
        return
    if not disk.exists(path.parent):
        make_directory(disk, path.parent)
    disk.mkdir(path)
    disk.fsync_dir(path.parent)


def _pread_all(fd: int, offset: int, size: int) -> bytes:
    first = os.pread(fd, size, offset)
    if len(first) == size or not first:
        return first
    parts = [first]
    missing = size - len(first)
    while missing and (part := os.pread(fd, missing, offset + size - missing)):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
