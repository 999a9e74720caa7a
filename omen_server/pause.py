"""Whether an operator has paused delivery, and why: durable in delivery.db, so that a pause survives a restart."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import aiosqlite
import structlog

from contract.errors import ContractError, Reason
from serving.files import read_regular

SCHEMA = """
CREATE TABLE IF NOT EXISTS pause (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    reason TEXT NOT NULL,
    paused_at TEXT NOT NULL
)
"""


SELECT = "SELECT reason, paused_at FROM pause"

DELIVERY_FILE = "delivery.db"  # in the directory of the ledger
RETRY_DELAY_S = 5.0

log = structlog.get_logger(__name__)


class PauseUnreadable(Exception):
    """delivery.db is not what this program wrote. One line for the operator, who may move the file aside."""


@dataclass(frozen=True, slots=True)
class Pause:
    reason: str
    paused_at: datetime


class PauseSwitch:
    """Made by `open_pause_switch`. A change is on disk before `pause` or `resume` returns."""

    def __init__(self, database: aiosqlite.Connection, pause: Pause | None) -> None:
        self._database = database
        self.current = pause
        self._changed = asyncio.Event()
        self._changing = asyncio.Lock()

    async def pause(self, reason: str, paused_at: datetime) -> Pause:
        """Pause, or give the pause that is on another reason; it keeps the time it began."""
        pause = Pause(reason, self.current.paused_at if self.current else paused_at)
        await asyncio.shield(self._change(pause))
        return pause

    async def resume(self) -> bool:
        """End the pause; whether there was one."""
        was_paused = self.current is not None
        await asyncio.shield(self._change(None))
        return was_paused

    async def until_paused(self) -> Pause:
        while self.current is None:
            await self._changed.wait()
        return self.current

    async def until_resumed(self) -> None:
        while self.current is not None:
            await self._changed.wait()

    async def _change(self, pause: Pause | None) -> None:
        """Shielded by its callers: one who leaves must not leave the file saying one thing and `current` another."""
        async with self._changing:
            await self._write(pause)
            self.current = pause
        self._changed.set()  # wakes everyone who waits now; whoever waits next waits for the next change
        self._changed = asyncio.Event()

    async def _write(self, pause: Pause | None) -> None:
        """One statement, one commit. Raises ContractError: LEDGER_UNAVAILABLE when the disk refuses."""
        try:
            if pause is None:
                await self._database.execute("DELETE FROM pause")
            else:
                values = (pause.reason, pause.paused_at.isoformat())
                await self._database.execute("REPLACE INTO pause (id, reason, paused_at) VALUES (1, ?, ?)", values)
        except sqlite3.Error as error:
            log.error("pause_not_written", error=str(error))
            message = "delivery.db cannot be written now"
            raise ContractError(Reason.LEDGER_UNAVAILABLE, message, retry_delay_s=RETRY_DELAY_S) from error


@asynccontextmanager
async def open_pause_switch(path: Path) -> AsyncIterator[PauseSwitch]:
    """Raises PauseUnreadable."""
    async with aiosqlite.connect(path, isolation_level=None) as database:  # each statement commits by itself
        try:
            pause = await _read(database)
        except (sqlite3.Error, ValueError) as error:
            raise PauseUnreadable(f"{path}: whether delivery is paused cannot be read: {error}") from error
        yield PauseSwitch(database, pause)


def kept_pause(path: Path) -> Pause | None:
    """What a start would find in the file, which is left as it is. Raises PauseUnreadable, and OSError for a FIFO."""
    if not path.exists():
        return None
    read_regular(path, 0)
    # Without a log nobody has it open, and SQLite is to make none.
    mode = "ro" if path.with_name(f"{path.name}-wal").exists() else "ro&immutable=1"
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode={mode}", uri=True)) as database:
            is_made = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'pause'").fetchone()
            return _pause_of(database.execute(SELECT).fetchall() if is_made else [])
    except (sqlite3.Error, ValueError) as error:
        raise PauseUnreadable(f"{path}: whether delivery is paused cannot be read: {error}") from error


def _pause_of(rows: Sequence[tuple[str, str]]) -> Pause | None:
    return Pause(rows[0][0], datetime.fromisoformat(rows[0][1]).astimezone(UTC)) if rows else None


async def _read(database: aiosqlite.Connection) -> Pause | None:
    await database.execute("PRAGMA journal_mode = WAL")
    await database.execute("PRAGMA synchronous = FULL")
    await database.execute(SCHEMA)
    return _pause_of([(reason, paused_at) for reason, paused_at in await database.execute_fetchall(SELECT)])
