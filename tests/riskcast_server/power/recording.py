"""Every file operation of RiskCast's SQLite, and every answer of its store in between, written down in order.

The code is the product's; beneath it SQLite comes with apsw, whose file systems can be written in Python. It is a newer
SQLite than the one in Python's sqlite3, and syncs at the same places.
"""

import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import apsw
import pytest

from riskcast_server.settlement import Entry, Outcome
from riskcast_server.store import Store, open_store
from riskcast_server.store.sqlite import file
from tests.power.operations import Attempt, DirectorySynced, Note, Synced, Truncated, Written
from tests.power.recorder import Recorder
from tests.riskcast_server.running import url

NAME = "recorded"
# unixOpen in SQLite's os_unix.c: the first sync of one of these, each time it was opened, syncs its directory too.
SYNCED_WITH_DIRECTORY = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_SUPER_JOURNAL
NOON_MS = 212_636_880_000_000  # 2026-01-29, as milliseconds of the Julian calendar


@dataclass(frozen=True)
class Submitted(Attempt):
    """Given to the store, to be settled in one transaction."""

    entries: tuple[Entry, ...] = field(repr=False)


@dataclass(frozen=True)
class Answered(Note):
    """The caller has the outcomes."""

    entries: tuple[Entry, ...] = field(repr=False)
    outcomes: tuple[Outcome, ...] = field(repr=False)


class RecordingVfs(apsw.VFS):
    """Files as ever, written down. Time and chance stand still: they make no state new."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self._chance = Random(0)
        super().__init__(NAME, "unix", makedefault=True)
        apsw.randomness(0)  # from here on SQLite's own comes from xRandomness

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        if name is None:
            return apsw.VFSFile("unix", name, flags)  # a temporary file is no part of what must survive
        path = Path(name if isinstance(name, str) else name.filename())
        if path.exists():
            return RecordingFile(self.recorder, name, flags, self.recorder.number_of(path), path.parent)
        with self.recorder.doing():
            made = RecordingFile(self.recorder, name, flags, self.recorder.next_number, path.parent)
            self.recorder.note_created(path)
        return made

    def xDelete(self, filename: str, syncdir: bool) -> None:
        path = Path(filename)
        with self.recorder.doing():
            super().xDelete(filename, syncdir)
            self.recorder.note_unlinked(path)
            if syncdir:
                self.recorder.note(DirectorySynced(self.recorder.below(path.parent)))

    def xRandomness(self, numbytes: int) -> bytes:
        return self._chance.randbytes(numbytes)

    def xCurrentTimeInt64(self) -> int:
        return NOON_MS


class RecordingFile(apsw.VFSFile):
    def __init__(
        self, recorder: Recorder, name: str | apsw.URIFilename, flags: list[int], number: int, directory: Path
    ) -> None:
        self._recorder = recorder
        self._number = number
        self._directory = recorder.below(directory)
        self._syncs_directory = bool(flags[0] & SYNCED_WITH_DIRECTORY)
        super().__init__("unix", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        with self._recorder.doing():
            super().xWrite(data, offset)
            self._recorder.note(Written(self._number, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:
        with self._recorder.doing():
            super().xTruncate(newsize)
            self._recorder.note(Truncated(self._number, newsize))

    def xSync(self, flags: int) -> None:
        with self._recorder.doing():
            self._recorder.note(Synced(self._number))
            if self._syncs_directory:
                self._recorder.note(DirectorySynced(self._directory))
                self._syncs_directory = False


class RecordedConnection:
    """What the store uses of an aiosqlite.Connection, answered at once."""

    def __init__(self, path: Path, mode: str, checkpoint_pages: int) -> None:
        self._path = path
        self._flags = {
            "rwc": apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE,
            "rw": apsw.SQLITE_OPEN_READWRITE,
            "ro": apsw.SQLITE_OPEN_READONLY,
        }[mode]
        self._checkpoint_pages = checkpoint_pages
        self._connection: apsw.Connection

    async def __aenter__(self) -> "RecordedConnection":
        with _as_sqlite3_says_it():
            self._connection = apsw.Connection(str(self._path), flags=self._flags, vfs=NAME)
            self._connection.wal_autocheckpoint(self._checkpoint_pages)
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(apsw.Error, OSError):  # sqlite3 too closes without a word about a last checkpoint that failed
            self._connection.close()

    async def execute(self, sql: str, values: Sequence[Any] = ()) -> None:
        await self.execute_fetchall(sql, values)

    async def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        with _as_sqlite3_says_it():
            self._connection.executemany(sql, rows).fetchall()

    async def execute_fetchall(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with _as_sqlite3_says_it():
            return self._connection.execute(sql, values).fetchall()

    async def executescript(self, sql: str) -> None:
        await self.execute(sql)

    async def commit(self) -> None:
        await self._end("COMMIT")

    async def rollback(self) -> None:
        await self._end("ROLLBACK")

    async def _end(self, how: str) -> None:
        if self._connection.in_transaction:
            await self.execute(how)


@contextmanager
def _as_sqlite3_says_it() -> Iterator[None]:
    try:
        yield
    except (apsw.Error, OSError) as error:
        raise sqlite3.OperationalError(str(error)) from error


@contextmanager
def recorded_files(recorder: Recorder) -> Iterator[None]:
    """SQLite, as `opened_recorded` uses it, tells the recorder."""
    vfs = RecordingVfs(recorder)
    try:
        yield
    finally:
        vfs.unregister()


@asynccontextmanager
async def opened_recorded(directory: Path, checkpoint_pages: int) -> AsyncIterator[Store]:
    """As `open_store`, apart from the size of the log that makes SQLite move it into the database."""

    def connection(path: Path, mode: str, busy_timeout_s: float) -> RecordedConnection:
        return RecordedConnection(path, mode, checkpoint_pages)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file, "_connection", connection)
        async with open_store(url(directory)) as store:
            yield store
