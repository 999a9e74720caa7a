"""Every file operation of a ledger, and every answer it gives in between, written down in order."""

import errno
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition

from ledger import Position
from tests.ledger.faults import DEADLINE_S, Answers, UnsyncedDisk


@dataclass(frozen=True)
class Image:
    """Files and directories by their path below the root, which always exists."""

    files: Mapping[str, bytes] = field(default_factory=dict)
    directories: frozenset[str] = frozenset()

    @property
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


def image_of(root: Path) -> Image:
    """What lies there now, without LOCK, which is no part of what must survive."""
    paths = [path for path in root.rglob("*") if path.name != "LOCK"]
    files = {str(path.relative_to(root)): path.read_bytes() for path in paths if path.is_file()}
    return Image(files, frozenset(str(path.relative_to(root)) for path in paths if path.is_dir()))


@dataclass(frozen=True)
class Created:
    path: Path
    file: int  # files are numbered: a number stays when the name changes


@dataclass(frozen=True)
class Written:
    file: int
    offset: int
    data: bytes


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


@dataclass(frozen=True)
class Appended:
    """Given to the ledger; from here on it may be there."""

    payload: bytes


@dataclass(frozen=True)
class Acknowledged:
    payload: bytes
    position: Position


@dataclass(frozen=True)
class Sealed:
    """seal() has returned."""

    partition: str


NameChange = Created | Renamed | Unlinked | DirectoryMade
Operation = NameChange | Written | Truncated | Synced | DirectorySynced | ModeChanged | Appended | Acknowledged | Sealed


@dataclass(frozen=True)
class Recording:
    """What lay there durable at the start (its files numbered from 0, by name), and what followed."""

    start: Image
    operations: list[Operation] = field(default_factory=list)

    def cut_points(self) -> list[int]:
        """After each operation. Being told of a payload changes nothing on disk."""
        done = enumerate(self.operations, 1)
        return [0, *(at for at, operation in done if not isinstance(operation, Appended))]


class Recorder(UnsyncedDisk):
    """Real files below `root`, each operation written down once it is done. Dies, when told to, as by kill -9."""

    def __init__(self, root: Path, start: Image | None = None) -> None:
        self.recording = Recording(start or Image())
        self._root = root
        self._numbers = {Path(name): number for number, name in enumerate(sorted(self.recording.start.files))}
        self._next_number = len(self._numbers)
        self._open: dict[int, int] = {}
        self._is_over: Callable[[list[Operation]], bool] = lambda done: False
        self._changed = Condition()

    def die_once(self, is_over: Callable[[list[Operation]], bool]) -> None:
        """No operation is done any more while `is_over` holds of those that are written down."""
        self._is_over = is_over

    def die(self) -> None:
        self.die_once(lambda done: True)

    def live_on(self) -> None:
        self.die_once(lambda done: False)

    def note(self, operation: Operation) -> None:
        with self._changed:
            if isinstance(operation, Appended) and self._is_dead():
                return  # what a dead process is given is never there; how much it takes before it says so is a race
            self.recording.operations.append(operation)
            self._changed.notify_all()

    def wait_for(self, predicate: Callable[[list[Operation]], bool]) -> None:
        """Or for its death."""
        with self._changed:
            done = self.recording.operations
            assert self._changed.wait_for(lambda: self._is_dead() or predicate(done), DEADLINE_S), done[-9:]

    def create(self, path: Path) -> int:
        with self._doing():
            fd = super().create(path)
            self._open[fd] = self._numbers[self._below(path)] = self._next_number
            self._next_number += 1
            self.note(Created(self._below(path), self._open[fd]))
        return fd

    def open_existing(self, path: Path) -> int:
        with self._doing():
            fd = super().open_existing(path)
            self._open[fd] = self._numbers[self._below(path)]
        return fd

    def write(self, fd: int, data: bytes) -> int:
        with self._doing():
            taken = super().write(fd, data)
            self.note(Written(self._open[fd], os.lseek(fd, 0, os.SEEK_CUR) - taken, data[:taken]))
        return taken

    def truncate(self, fd: int, size: int) -> None:
        with self._doing():
            super().truncate(fd, size)
            self.note(Truncated(self._open[fd], size))

    def fdatasync(self, fd: int) -> None:
        with self._doing():
            self.note(Synced(self._open[fd]))

    def fsync(self, fd: int) -> None:
        with self._doing():
            self.note(Synced(self._open[fd]))

    def rename(self, source: Path, target: Path) -> None:
        assert source.parent == target.parent, "renaming from one directory to another is not modelled"
        with self._doing():
            super().rename(source, target)
            number = self._numbers[self._below(target)] = self._numbers.pop(self._below(source))
            self.note(Renamed(self._below(source), self._below(target), number))

    def unlink(self, path: Path) -> None:
        with self._doing():
            super().unlink(path)
            del self._numbers[self._below(path)]
            self.note(Unlinked(self._below(path)))

    def mkdir(self, path: Path) -> None:
        with self._doing():
            super().mkdir(path)
            self.note(DirectoryMade(self._below(path)))

    def make_read_only(self, path: Path) -> None:
        with self._doing():
            super().make_read_only(path)
            self.note(ModeChanged(self._below(path)))

    def fsync_dir(self, path: Path) -> None:
        with self._doing():
            self.note(DirectorySynced(self._below(path)))

    def _below(self, path: Path) -> Path:
        return path.relative_to(self._root)

    @contextmanager
    def _doing(self) -> Iterator[None]:
        with self._changed:
            if self._is_dead():
                raise OSError(errno.EIO, "the process is dead")
            yield

    def _is_dead(self) -> bool:
        return self._is_over(self.recording.operations)


class WrittenDown(Answers):
    """An on_commit that writes acknowledgements down between the operations. The payload is its own waiter."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __call__(self, results: object) -> None:
        assert isinstance(results, list)
        for waiter, answer in results:
            if isinstance(answer, Position):
                self._recorder.note(Acknowledged(waiter, answer))
        super().__call__(results)
