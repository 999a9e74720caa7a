"""The only door to the file system. Passed in as an argument, so that faults can be injected and operations recorded.

Errors are OSError, as the system gives them; the callers translate. Nothing here retries.
"""

import errno
import os
from pathlib import Path


class Disk:
    """Stateless: file descriptors belong to the caller."""

    def create(self, path: Path) -> int:
        """A new file, open for writing. FileExistsError when there is one already."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)

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
        os.mkdir(path)

    def fsync_dir(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def read(self, path: Path, offset: int, size: int) -> bytes:
        """At most `size` bytes; fewer only at the end of the file."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _pread_all(fd, offset, size)
        finally:
            os.close(fd)

    def size(self, path: Path) -> int:
        return os.stat(path).st_size

    def identity(self, path: Path) -> tuple[int, int]:
        """Device and inode: equal for one file, under whatever name."""
        told = os.stat(path)
        return told.st_dev, told.st_ino

    def has_name(self, fd: int) -> bool:
        """False once the last name of an open file was removed: what is written to it goes when it is closed."""
        return os.fstat(fd).st_nlink > 0

    def names(self, path: Path) -> list[str]:
        return sorted(os.listdir(path))

    def exists(self, path: Path) -> bool:
        return path.exists()

    def free_bytes(self, path: Path) -> int:
        told = os.statvfs(path)
        return told.f_bavail * told.f_frsize


def write_all(disk: Disk, fd: int, data: bytes) -> None:
    """Writes every byte or raises: a short write is followed by the rest, and no progress is an error."""
    written = disk.write(fd, data)
    while written < len(data):
        taken = disk.write(fd, data[written:])
        if taken == 0:
            raise OSError(errno.EIO, "the disk takes no more bytes")
        written += taken


def publish(disk: Disk, path: Path, data: bytes) -> int:
    """A new file that exists whole or not at all, durable under its name. Returns its descriptor, open for writing."""
    temporary = path.with_name(path.name + ".tmp")
    fd = disk.create(temporary)
    try:
        write_all(disk, fd, data)
        disk.fsync(fd)
        disk.rename(temporary, path)
        disk.fsync_dir(path.parent)
    except BaseException:
        disk.close(fd)
        raise
    return fd


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
