"""A small language for what can go wrong: with files that lie still, with the disk under a writer, with time.

cut_tail, zero_tail, flip_bit and overwrite change a file; FaultyDisk fails the nth operation of a kind and writes down
what it was asked; Answers waits, with a deadline, for what on_commit tells. RecordingDisk (recording.py) writes down
what is done, and power_loss (tests/power/cut.py) says what a power cut may leave of that.
"""

import errno
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Condition
from typing import Self

from ledger import Disk, Ledger, LedgerError, LedgerReader, PartitionInfo, Position
from ledger.files.layout import read_ledger_id
from ledger.opening.takeover import Opening

NOON = datetime(2026, 1, 29, 12, tzinfo=UTC)
DUE = datetime(2026, 1, 30, 6, tzinfo=UTC)  # from then on TODAY takes nothing
TODAY = "2026-01-29"
LATE = "2026-01-29-late"
TOMORROW = "2026-01-30"
DEADLINE_S = 10.0
FOR_GOOD = sys.maxsize  # how often an operation fails
FIVE = [b"one", b"two-two", b"three-three-three", b"four", b"five-five"]


def at_noon() -> datetime:
    return NOON


class Clock:
    """Tells the time it was set to."""

    def __init__(self, moment: datetime = NOON) -> None:
        self.moment = moment

    def __call__(self) -> datetime:
        return self.moment


def segment_of(directory: Path, ordinal: int = 1, partition: str = TODAY) -> Path:
    return directory / partition / f"segment-{ordinal:08d}.log"


def seal_path(directory: Path, partition: str = TODAY) -> Path:
    return directory / partition / "SEAL"


def cut_tail(path: Path, count: int) -> None:
    os.truncate(path, path.stat().st_size - count)


def zero_tail(path: Path, count: int) -> None:
    overwrite(path, path.stat().st_size - count, bytes(count))


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def flip_bit(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def flip_byte(path: Path, offset: int) -> None:
    overwrite(path, offset, bytes([path.read_bytes()[offset] ^ 0xFF]))


def crash_image(directory: Path, target: Path) -> Path:
    """What kill -9 would leave of a running writer now: every byte it has written, no FOOTER, no lock."""
    return shutil.copytree(directory, target, ignore=shutil.ignore_patterns("LOCK"))


class Answers:
    """An on_commit that remembers, in order. `events` may be shared with a FaultyDisk."""

    def __init__(self, events: list[tuple[str, object]] | None = None) -> None:
        self.events = events if events is not None else []
        self.batches: list[Sequence[tuple[object, Position | LedgerError]]] = []
        self.written_at: list[int] = []  # of each batch
        self.by_waiter: dict[object, Position | LedgerError] = {}
        self.changed = Condition()

    def __call__(self, results: Sequence[tuple[object, Position | LedgerError]], written_at: int) -> None:
        with self.changed:
            self.batches.append(results)
            self.written_at.append(written_at)
            for waiter, answer in results:
                assert waiter not in self.by_waiter, f"{waiter} was answered twice"
                self.by_waiter[waiter] = answer
                self.events.append(("ack" if isinstance(answer, Position) else "refusal", waiter))
            self.changed.notify_all()

    def of(self, *waiters: object) -> list[Position | LedgerError]:
        with self.changed:
            came = self.changed.wait_for(lambda: all(waiter in self.by_waiter for waiter in waiters), DEADLINE_S)
            assert came, f"no answer for one of {waiters}"
            return [self.by_waiter[waiter] for waiter in waiters]

    def positions(self, *waiters: object) -> list[Position]:
        answers = self.of(*waiters)
        assert all(isinstance(answer, Position) for answer in answers), answers
        return [answer for answer in answers if isinstance(answer, Position)]


def append_each(ledger: Ledger, answers: Answers, payloads: Sequence[bytes], moment: datetime = NOON) -> list[Position]:
    """One batch per payload: each is answered before the next is given. The payload is its own waiter."""
    positions = []
    for payload in payloads:
        ledger.append(payload, moment, payload)
        positions += answers.positions(payload)
    return positions


@contextmanager
def one_batch(ledger: Ledger) -> Iterator[None]:
    """What is appended within becomes one batch: the flusher cannot look into the queue before the block ends."""
    with ledger._queue._changed:
        yield


class FaultyDisk(Disk):
    """Writes down every operation as (kind, file name) and fails those it was told to, from the nth on or just then.

    Kinds: create, open_existing, write, fdatasync, fsync, fsync_dir, truncate, rename, unlink, mkdir, chmod. "sync"
    counts the three ways to sync as one kind, "any" counts all. `when_failing` is called in the thread that asked,
    before it is told of its first failure.
    """

    def __init__(self) -> None:
        self.events: list[tuple[str, object]] = []
        self.free = 1 << 40
        self.short_writes = False
        self._names: dict[int, str] = {}
        self._counts: Counter[str] = Counter()
        self._fail: tuple[str, range, int] | None = None
        self.when_failing: Callable[[], None] = lambda: None
        self._changed = Condition()

    def wait_for(self, predicate: Callable[[list[tuple[str, object]]], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: predicate(self.events), DEADLINE_S), self.events[-20:]

    def fail(self, kind: str, *, at: int, with_: int = errno.EIO, times: int = 1) -> Self:
        self._fail = (kind, range(at, min(at + times, FOR_GOOD)), with_)
        return self

    def count_of(self, kind: str) -> int:
        return self._counts[kind]

    def fail_write(self, *, at: int, with_: int = errno.EIO) -> Self:
        return self.fail("write", at=at, with_=with_)

    def fail_fsync(self, *, at: int) -> Self:
        return self.fail("sync", at=at)

    @property
    def has_failed(self) -> bool:
        return any(kind == "failed" for kind, _ in self.events)

    def _do(self, kind: str, name: str) -> None:
        kinds = {kind, "any", "sync"} if kind in ("fsync", "fdatasync", "fsync_dir") else {kind, "any"}
        self._counts.update(kinds)
        with self._changed:
            self.events.append((kind, name))
            self._changed.notify_all()
        if self._fail and self._fail[0] in kinds and self._counts[self._fail[0]] in self._fail[1]:
            self._refuse(kind, self._fail[2])

    def _refuse(self, kind: str, error: int) -> None:
        if not self.has_failed:
            self.when_failing()
        with self._changed:
            self.events.append(("failed", kind))
            self._changed.notify_all()
        raise OSError(error, os.strerror(error))

    def create(self, path: Path) -> int:
        self._do("create", path.name)
        fd = super().create(path)
        self._names[fd] = path.name.removesuffix(".tmp")
        return fd

    def open_existing(self, path: Path) -> int:
        self._do("open_existing", path.name)
        fd = super().open_existing(path)
        self._names[fd] = path.name
        return fd

    def write(self, fd: int, data: bytes) -> int:
        self._do("write", self._names[fd])
        return super().write(fd, data[: max(1, len(data) // 2)] if self.short_writes else data)

    def fdatasync(self, fd: int) -> None:
        self._do("fdatasync", self._names[fd])
        super().fdatasync(fd)

    def fsync(self, fd: int) -> None:
        self._do("fsync", self._names[fd])
        super().fsync(fd)

    def fsync_dir(self, path: Path) -> None:
        self._do("fsync_dir", path.name)
        super().fsync_dir(path)

    def truncate(self, fd: int, size: int) -> None:
        self._do("truncate", self._names[fd])
        super().truncate(fd, size)

    def rename(self, source: Path, target: Path) -> None:
        self._do("rename", target.name)
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self._do("unlink", path.name)
        super().unlink(path)

    def mkdir(self, path: Path) -> None:
        self._do("mkdir", path.name)
        super().mkdir(path)

    def make_read_only(self, path: Path) -> None:
        self._do("chmod", path.name)
        super().make_read_only(path)

    def free_bytes(self, path: Path) -> int:
        return min(self.free, super().free_bytes(path))


class UnsyncedDisk(Disk):
    """For thousands of openings of files that lie still: leaves out what only a power cut would miss."""

    def fdatasync(self, fd: int) -> None: ...

    def fsync(self, fd: int) -> None: ...

    def fsync_dir(self, path: Path) -> None: ...


def reopened(directory: Path, disk: Disk | None = None) -> PartitionInfo:
    """What opening makes of the first partition, without a writer afterwards."""
    disk = disk or UnsyncedDisk()
    return Opening(disk, directory, read_ledger_id(disk, directory), 0, 0).partitions()[0]


def served(directory: Path) -> list[bytes]:
    return [record.payload for record in LedgerReader(directory).records(TODAY)]


def frame_starts(directory: Path) -> list[int]:
    """Offsets of the five records, found by their payloads."""
    data = segment_of(directory).read_bytes()
    return [data.index(payload) - 48 for payload in FIVE]
