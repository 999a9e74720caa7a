"""How the store speaks to its file: transactions on the one writing connection, reads beside it, errors translated."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Self

import aiosqlite
import structlog

from contract.errors import ContractError, Reason
from riskcast_server.store.contract import StoreRefused
from riskcast_server.store.sqlite.file import connected, inode_of, locked, log_of, set_log_aside

log = structlog.get_logger(__name__)

# Microseconds since the epoch by the database's clock, to the millisecond.
NOW = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) * 1000"

RETRY_DELAY_S = 1.0  # what callers are told to wait: locks and full disks do not pass within milliseconds


class Moved(sqlite3.OperationalError):
    """Another file has taken the place of the one that is open: what was written here would never be found again."""


class Database:
    """One RiskCast's hold on a file. Every method raises ContractError STORE_UNAVAILABLE while it cannot be used.

    A file that was replaced, or found corrupt, is opened anew before it is used again, so that putting a sound one in
    its place needs no restart.
    """

    def __init__(self, path: Path, busy_timeout_s: float) -> None:
        self._path = path
        self._busy_timeout_s = busy_timeout_s
        self._writing = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._is_sound = False
        self._is_closed = False
        self._inode = 0
        self._log_inode = 0
        self.writer: aiosqlite.Connection
        self.reader: aiosqlite.Connection

    @classmethod
    @asynccontextmanager
    async def opened(cls, path: Path, busy_timeout_s: float, lock_wait_s: float) -> AsyncIterator[Self]:
        """StoreRefused in one line when another RiskCast has the file, or it cannot be used safely."""
        async with locked(path, lock_wait_s):
            database = cls(path, busy_timeout_s)
            try:
                await database._open(may_create=True)
                yield database
            finally:
                database._is_closed = True
                await database._stack.aclose()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[aiosqlite.Connection]:
        """Committed and synced on leaving; rolled back on any error."""
        async with self._writing:
            with self._translated():
                await self._make_sure()
                try:
                    await self.writer.execute("BEGIN IMMEDIATE")
                    yield self.writer
                    await self.writer.commit()
                    if not self._is_usable():
                        raise Moved("another file took its place meanwhile")
                except BaseException:
                    await self.writer.rollback()
                    raise

    async def read(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._translated():
            if not self._is_usable():
                async with self._writing:
                    await self._make_sure()
            return [tuple(row) for row in await self.reader.execute_fetchall(sql, values)]

    async def _open(self, *, may_create: bool) -> None:
        before = inode_of(self._path)  # what takes its place while it is opened is another one
        connections = connected(self._path, self._busy_timeout_s, may_create=may_create)
        self.writer, self.reader = await self._stack.enter_async_context(connections)
        self._inode = before or inode_of(self._path)
        self._log_inode = log_of(self._path).stat().st_ino
        self._is_sound = True

    async def _make_sure(self) -> None:
        """Raises sqlite3.Error while the file cannot be used."""
        if self._is_closed or self._is_usable():
            return
        self._is_sound = False
        await self._stack.aclose()
        try:
            if not self._is_ours():
                set_log_aside(self._path, self._log_inode)
            await self._open(may_create=False)
        except (StoreRefused, OSError) as error:
            raise Moved(str(error)) from error
        if not self._is_usable():
            raise Moved(f"another file took the place of {self._path} while it was opened")
        log.warning("store_opened_anew", path=str(self._path))

    def _is_usable(self) -> bool:
        return self._is_sound and self._is_ours()

    def _is_ours(self) -> bool:
        """Whether the file that is open still has its name."""
        try:
            return inode_of(self._path) == self._inode != 0
        except OSError:
            return False

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Locked, corrupt, full, read-only or closed: the caller learns that it may try again, the log learns why."""
        try:
            yield
        except (sqlite3.Error, ValueError) as error:  # aiosqlite says ValueError once the connection is closed
            # Locks, full disks and the like are OperationalErrors, and pass; what is left says that the file is broken.
            self._is_sound &= isinstance(error, sqlite3.OperationalError)
            log.error("store_unavailable", error=f"{type(error).__name__}: {error}")
            message = "the store cannot be used now; what became of this is unknown"
            raise ContractError(Reason.STORE_UNAVAILABLE, message, retry_delay_s=RETRY_DELAY_S) from error
