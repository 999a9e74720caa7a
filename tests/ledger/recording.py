"""Every file operation of a ledger, and every answer it gives in between, written down in order."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ledger import Position
from tests.ledger.faults import DEADLINE_S, Answers, UnsyncedDisk
from tests.power.operations import (
    Attempt,
    DirectoryMade,
    DirectorySynced,
    Image,
    ModeChanged,
    Note,
    Operation,
    Renamed,
    Synced,
    Truncated,
    Written,
)
from tests.power.recorder import Recorder


def image_of(root: Path) -> Image:
    """What lies there now, without LOCK, which is no part of what must survive."""
    files: dict[str, bytes] = {}
    directories: set[str] = set()
    for folder, inner, names in os.walk(root):
        below = "" if folder == str(root) else f"{folder[len(str(root)) + 1 :]}/"
        directories.update(f"{below}{name}" for name in inner)
        for name in names:
            if name != "LOCK":
                files[f"{below}{name}"] = Path(f"{folder}/{name}").read_bytes()
    return Image(files, frozenset(directories))


@dataclass(frozen=True)
class Appended(Attempt):
    """Given to the ledger; from here on it may be there."""

    payload: bytes


@dataclass(frozen=True)
class Acknowledged(Note):
    payload: bytes
    position: Position


@dataclass(frozen=True)
class Sealed(Note):
    """seal() has returned."""

    partition: str


@dataclass(frozen=True)
class Pruning(Attempt):
    """Asked for; from here on what the partition held may be gone."""

    partition: str


@dataclass(frozen=True)
class Pruned(Note):
    """prune() has come to its end."""

    partition: str


class RecordingDisk(Recorder, UnsyncedDisk):
    """Real files below `root`, each operation written down once it is done."""

    def __init__(self, root: Path, start: Image | None = None) -> None:
        super().__init__(root, start)
        self._open: dict[int, int] = {}

    def wait_for(self, predicate: Callable[[list[Operation]], bool]) -> None:
        """Or for its death."""
        with self._changed:
            done = self.recording.operations
            assert self._changed.wait_for(lambda: self._is_dead() or predicate(done), DEADLINE_S), done[-9:]

    def create(self, path: Path) -> int:
        with self.doing():
            fd = super().create(path)
            self._open[fd] = self.note_created(path)
        return fd

    def open_existing(self, path: Path) -> int:
        with self.doing():
            fd = super().open_existing(path)
            self._open[fd] = self.number_of(path)
        return fd

    def write(self, fd: int, data: bytes) -> int:
        with self.doing():
            taken = super().write(fd, data)
            self.note(Written(self._open[fd], os.lseek(fd, 0, os.SEEK_CUR) - taken, data[:taken]))
        return taken

    def truncate(self, fd: int, size: int) -> None:
        with self.doing():
            super().truncate(fd, size)
            self.note(Truncated(self._open[fd], size))

    def fdatasync(self, fd: int) -> None:
        with self.doing():
            self.note(Synced(self._open[fd]))

    def fsync(self, fd: int) -> None:
        with self.doing():
            self.note(Synced(self._open[fd]))

    def rename(self, source: Path, target: Path) -> None:
        assert source.parent == target.parent, "renaming from one directory to another is not modelled"
        with self.doing():
            super().rename(source, target)
            number = self._numbers[self.below(target)] = self._numbers.pop(self.below(source))
            self.note(Renamed(self.below(source), self.below(target), number))

    def unlink(self, path: Path) -> None:
        with self.doing():
            super().unlink(path)
            self.note_unlinked(path)

    def mkdir(self, path: Path) -> None:
        with self.doing():
            super().mkdir(path)
            self.note(DirectoryMade(self.below(path)))

    def make_read_only(self, path: Path) -> None:
        with self.doing():
            super().make_read_only(path)
            self.note(ModeChanged(self.below(path)))

    def fsync_dir(self, path: Path) -> None:
        with self.doing():
            self.note(DirectorySynced(self.below(path)))


class WrittenDown(Answers):
    """An on_commit that writes acknowledgements down between the operations. The payload is its own waiter."""

    def __init__(self, recorder: RecordingDisk) -> None:
        super().__init__()
        self._recorder = recorder

    def __call__(self, results: object, written_at: int) -> None:
        assert isinstance(results, list)
        for waiter, answer in results:
            if isinstance(answer, Position):
                self._recorder.note(Acknowledged(waiter, answer))
        super().__call__(results, written_at)
