"""Whether an operator has paused delivery, and why: durable in delivery.db, so that a pause survives a restart."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import aiosqlite

SCHEMA = """
CREATE TABLE IF NOT EXISTS pause (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    reason TEXT NOT NULL,
    paused_at TEXT NOT NULL
)
"""


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
            await self._database.execute("DELETE FROM pause")
            if pause is not None:
                values = (pause.reason, pause.paused_at.isoformat())
                await self._database.execute("INSERT INTO pause (id, reason, paused_at) VALUES (1, ?, ?)", values)
            await self._database.commit()
            self.current = pause
        self._changed.set()  # wakes everyone who waits now; whoever waits next waits for the next change
        self._changed = asyncio.Event()


@asynccontextmanager
async def open_pause_switch(path: Path) -> AsyncIterator[PauseSwitch]:
    async with aiosqlite.connect(path) as database:
        await database.execute("PRAGMA journal_mode = WAL")
        await database.execute("PRAGMA synchronous = FULL")
        await database.execute(SCHEMA)
        await database.commit()
        rows = list(await database.execute_fetchall("SELECT reason, paused_at FROM pause"))
        pause = Pause(rows[0][0], datetime.fromisoformat(rows[0][1]).astimezone(UTC)) if rows else None
        yield PauseSwitch(database, pause)
