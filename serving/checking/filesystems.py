"""Which file system a path is on, and whether what is synced there stays."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")  # Linux alone has it; elsewhere nothing is known

# Type -> what an operator should know before anything that matters is kept there.
PASSING = {
    "tmpfs": "tmpfs is memory: what is there is gone after a restart of the machine",
    "ramfs": "ramfs is memory: what is there is gone after a restart of the machine",
    "overlay": "overlay belongs to a container, and goes with it: mount a volume",
}
NOT_SYNCED = {
    "volatile": "mounted volatile: nothing is synced",
    "nobarrier": "mounted with nobarrier: a power cut takes what was synced",
    "barrier=0": "mounted with barrier=0: a power cut takes what was synced",
}


@dataclass(frozen=True, slots=True)
class Mounted:
    """Where a file system is mounted, its type, and all of its options."""

    place: Path
    kind: str
    options: frozenset[str]


def maybe_flaw(path: Path, mounts: Path = MOUNTS) -> str:
    """Why what is synced at an existing path may not stay; "" when nothing speaks against it."""
    found = maybe_mounted(path, mounts)
    if found is None:
        return ""
    flaws = [flaw for option, flaw in NOT_SYNCED.items() if option in found.options]
    return "; ".join([*flaws, *([PASSING[found.kind]] if found.kind in PASSING else [])])


def maybe_mounted(path: Path, mounts: Path = MOUNTS) -> Mounted | None:
    """The innermost, and of several at one place the last, which hides the others."""
    resolved = path.resolve()
    try:
        around = [each for each in mounted(mounts.read_text("utf-8", "surrogateescape")) if is_in(resolved, each.place)]
    except OSError:
        return None
    return max(reversed(around), key=lambda each: len(each.place.parts), default=None)


def is_in(path: Path, place: Path) -> bool:
    return path.is_relative_to(place)


def mounted(text: str) -> Iterator[Mounted]:
    """`36 35 98:0 /root /place rw,noatime master:1 - ext4 /dev/sda rw,barrier=0`, one a line (proc(5))."""
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, _, options) = before.split(" "), after.split(" ", 2)
        yield Mounted(Path(unescaped(fields[4])), kind, frozenset([*fields[5].split(","), *options.split(",")]))


def unescaped(text: str) -> str:
    r"""A space is \040 there."""
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), os.fsencode(text)))
