"""Who may read what is on disk."""

import stat
from pathlib import Path

FILE_MODES = (0o600, 0o400)


def exposed(directory: Path) -> dict[str, str]:
    """What anybody but its owner could read, write or list below a directory, itself included, and its mode."""
    found = {}
    for path in (directory, *directory.rglob("*")):
        mode = path.lstat().st_mode
        if not stat.S_ISLNK(mode) and stat.S_IMODE(mode) not in ((0o700,) if stat.S_ISDIR(mode) else FILE_MODES):
            found[str(path.relative_to(directory))] = stat.filemode(mode)
    return found
