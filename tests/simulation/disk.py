"""The disk under a database: the real SQLite on a real file, without threads, and with bad days.

The code of whoever has one runs unchanged down to aiosqlite, which does everything by one method: queue a call, and
wait until the connection's thread has made it. Here the clock makes it, one after the other just so, and it may fail.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import aiosqlite

from tests.simulation.world import Fault, World

DAY_S = 86_400
UNIX_EPOCH_JULIAN = 2_440_587.5

CALLS_PER_S = (2000, 2000, 200)  # some disks are slow
AT_ONCE = 0.6  # of the calls are made before anybody else gets to do something

CUT = "Connection closed"  # as aiosqlite says it
CHANGES = ("INSERT", "UPDATE", "DELETE")


class Disk:
    """Hands out connections to the one file, and takes them all away when the process that uses it dies."""

    def __init__(self, world: World, path: Path) -> None:
        self.world = world
        self.path = path
        self.on_commit: Callable[[], None] = lambda: None
        self.calls_per_s = world.chance.choice(CALLS_PER_S)
        self._open: list[Connection] = []
        self._is_cut_off = False

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """Nothing reaches the file any more from those who have it open; what they did not commit is gone. A process
        that is dying within, and would open it anew, cannot."""
        self._is_cut_off = True
        for connection in self._open:
            connection.cut()
        self._open.clear()
        yield
        self._is_cut_off = False

    def connect(self, database: str, **options: Any) -> "Connection":
        connection = Connection(self, partial(self._connected, database, options))
        self._open.append(connection)
        return connection

    def _connected(self, database: str, options: dict[str, Any]) -> sqlite3.Connection:
        if self._is_cut_off or self.world.happens(Fault.NOT_OPENED):
            raise sqlite3.OperationalError("unable to open database file")
        connection: sqlite3.Connection = sqlite3.connect(database, **options)
        connection.create_function("julianday", 1, self._julianday)  # the database's clock is the world's
        return connection

    def _julianday(self, when: str) -> float:
        return UNIX_EPOCH_JULIAN + self.world.now().timestamp() / DAY_S


@contextmanager
def mounted(*disks: Disk) -> Iterator[None]:
    """Each database is on the disk that has its path."""

    def connect(database: str | Path, **options: Any) -> "Connection":
        [disk] = [disk for disk in disks if str(disk.path) in str(database)]
        return disk.connect(str(database), **options)

    with patch("aiosqlite.connect", connect):
        yield


class Connection(aiosqlite.Connection):
    def __init__(self, disk: Disk, connector: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connector, iter_chunk_size=64)
        self._disk = disk
        self._world = disk.world
        self._free_at_s = 0.0  # when the last call that was queued has been made

    def __await__(self) -> Any:
        return self._connected().__await__()

    async def _connected(self) -> "Connection":
        self._connection = self._connector()
        return self

    async def _execute(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not self._running or self._connection is None:
            raise ValueError(CUT)
        loop = asyncio.get_running_loop()
        if self._free_at_s <= loop.time() and self._world.chance.random() < AT_ONCE:
            return self._made(partial(fn, *args, **kwargs))
        answer: asyncio.Future[Any] = loop.create_future()
        self._free_at_s = max(self._free_at_s, loop.time()) + self._world.chance.expovariate(self._disk.calls_per_s)
        loop.call_at(self._free_at_s, self._make, partial(fn, *args, **kwargs), answer)
        return await answer

    def stop(self) -> None:
        """There is no thread to stop."""
        self._running = False

    def cut(self) -> None:
        """As when the process dies: no commit, no farewell, no answer."""
        self._running = False
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _make(self, call: "partial[Any]", answer: "asyncio.Future[Any]") -> None:
        """Also when nobody waits for the answer any more, as a thread would."""
        try:
            if self._connection is None:
                raise ValueError(CUT)
            result = self._made(call)
        except (sqlite3.Error, ValueError) as error:
            if not answer.done():
                answer.set_exception(error)
        else:
            if not answer.done():
                answer.set_result(result)

    def _made(self, call: "partial[Any]") -> Any:
        """Fails before it is done, or after, or not at all."""
        sql = call.args[0] if call.args else ""
        if call.func.__name__ == "commit":
            return self._committed(call)
        if sql.startswith("BEGIN IMMEDIATE") and self._world.happens(Fault.LOCKED):
            raise sqlite3.OperationalError("database is locked")
        if sql.startswith(CHANGES) and self._world.happens(Fault.FULL):
            raise sqlite3.OperationalError("database or disk is full")
        if "SELECT" in sql and self._world.happens(Fault.UNREADABLE):
            raise sqlite3.OperationalError("disk I/O error")
        if "SELECT" in sql and self._world.happens(Fault.MALFORMED):
            raise sqlite3.DatabaseError("database disk image is malformed")
        return call()

    def _committed(self, commit: "partial[Any]") -> None:
        if self._world.happens(Fault.COMMIT_FAILED):
            raise sqlite3.OperationalError("disk I/O error")
        commit()
        self._disk.on_commit()
        if self._world.happens(Fault.COMMIT_UNKNOWN):
            raise sqlite3.OperationalError("disk I/O error")
