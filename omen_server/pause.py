"""Whether an operator has paused delivery, and why: durable in delivery.db, so that a pause survives a restart."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from omen_server.delivery_file import DeliveryFile, Rows, kept

SELECT = "SELECT reason, paused_at FROM pause"


@dataclass(frozen=True, slots=True)
class Pause:
    reason: str
    paused_at: datetime


class PauseSwitch:
    """A change is on disk before `pause` or `resume` returns."""

    def __init__(self, file: DeliveryFile, pause: Pause | None) -> None:
        self._file = file
        self.current = pause
        self._changed = asyncio.Event()
        self._changing = asyncio.Lock()

    @classmethod
    async def of(cls, file: DeliveryFile) -> Self:
        """As it was left. Raises DeliveryFileUnreadable."""
        return cls(file, await file.load(SELECT, _pause_of))

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
        """Raises ContractError: LEDGER_UNAVAILABLE when the disk refuses."""
        if pause is None:
            await self._file.execute("DELETE FROM pause")
        else:
            values = (pause.reason, pause.paused_at.isoformat())
            await self._file.execute("REPLACE INTO pause (id, reason, paused_at) VALUES (1, ?, ?)", values)


def kept_pause(path: Path) -> Pause | None:
    """What a start would find in the file. Raises DeliveryFileUnreadable, and OSError for a FIFO."""
    return kept(path, "pause", SELECT, _pause_of)


def _pause_of(rows: Rows) -> Pause | None:
    return Pause(rows[0][0], datetime.fromisoformat(rows[0][1]).astimezone(UTC)) if rows else None
