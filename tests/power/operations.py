"""What is done to files, written down in order: what a power cut may leave is derived from that (cut.py)."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path


@dataclass(frozen=True)
class Image:
    """Files and directories by their path below the root, which always exists."""

    files: Mapping[str, bytes] = field(default_factory=dict)
    directories: frozenset[str] = frozenset()

    @cached_property
    def digest(self) -> str:
        told = hashlib.sha256(repr(sorted(self.directories)).encode())
        for name, data in sorted(self.files.items()):
            told.update(f"\n{name} {len(data)}\n".encode() + data)
        return told.hexdigest()

    def laid_out(self, root: Path) -> Path:
        root.mkdir()
        for directory in sorted(self.directories):
            (root / directory).mkdir()
        for name, data in self.files.items():
            (root / name).write_bytes(data)
        return root


@dataclass(frozen=True)
class Created:
    path: Path
    file: int  # files are numbered: a number stays when the name changes


@dataclass(frozen=True)
class Written:
    file: int
    offset: int
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Truncated:
    file: int
    size: int


@dataclass(frozen=True)
class Synced:
    file: int


@dataclass(frozen=True)
class Renamed:
    path: Path
    target: Path
    file: int


@dataclass(frozen=True)
class Unlinked:
    path: Path


@dataclass(frozen=True)
class DirectoryMade:
    path: Path


@dataclass(frozen=True)
class DirectorySynced:
    path: Path


@dataclass(frozen=True)
class ModeChanged:
    """May be there or not, and decides nothing: images leave modes out."""

    path: Path


class Note:
    """Something that was said between the operations; no file changes."""


class Attempt(Note):
    """Something was asked for; from here on it may be there."""


NameChange = Created | Renamed | Unlinked | DirectoryMade
Operation = NameChange | Written | Truncated | Synced | DirectorySynced | ModeChanged | Note


@dataclass(frozen=True)
class Recording:
    """What lay there durable at the start (its files numbered from 0, by name), and what followed."""

    start: Image
    operations: list[Operation] = field(default_factory=list)

    def cut_points(self) -> list[int]:
        """After each operation and each answer. An attempt alone changes nothing on disk and promises nothing."""
        done = enumerate(self.operations, 1)
        return [0, *(at for at, operation in done if not isinstance(operation, Attempt))]
