"""Changing a file of keys: whole or not at all, durably, and by one command at a time."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import mkstemp

from filelock import FileLock

from serving.access.keys import ApiKey, KeyFile, read_keys

# Another command holds the lock for milliseconds.
LOCK_WITHIN_S = 10.0
FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
# A file's owner may have let a group read it; nobody else ever.
KEPT_MODES = 0o640

Edit = Callable[[Sequence[ApiKey]], Sequence[ApiKey]]


def edit_keys(path: Path, edit: Edit) -> None:
    """Replaces the file by what `edit` makes of its keys; without a file there are none yet.

    A reader sees the file of before or the one of after. A link goes on to point to its file. Raises what `edit` does,
    OSError, ValueError (see `read_keys`), and filelock.Timeout.
    """
    path = path.resolve()
    path.parent.mkdir(DIRECTORY_MODE, parents=True, exist_ok=True)
    with FileLock(f"{path}.lock", timeout=LOCK_WITHIN_S, mode=FILE_MODE):
        replace(path, KeyFile(keys=tuple(edit(read_keys(path) if path.exists() else ()))))


def replace(path: Path, content: KeyFile) -> None:
    """Durable when it returns."""
    descriptor, name = mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.model_dump_json(indent=2, exclude_none=True).encode() + b"\n")
            file.flush()
            keep_readers(path, file.fileno())
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def keep_readers(path: Path, descriptor: int) -> None:
    """The server still reads a file that root edits: it stays its owner's, or becomes that of the folder's owner."""
    exists = path.exists()
    told = os.stat(path if exists else path.parent)
    if exists:
        os.fchmod(descriptor, told.st_mode & KEPT_MODES | FILE_MODE)
    if os.geteuid() == 0:
        os.fchown(descriptor, told.st_uid, told.st_gid)


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
