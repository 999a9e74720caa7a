"""The databases that RiskCast stores in, without it: what it is compared with, and what happens behind its back."""

import asyncio
import itertools
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Protocol

import asyncpg

import serving
from bench.postgres import Postgres, migrated, postgres
from riskcast_server.settlement import Row
from riskcast_server.store import migrate_store
from riskcast_server.store.rows import ROW, values_of
from riskcast_server.store.sqlite.file import CACHED

POSTGRES_SETTINGS = ("shared_buffers=256MB", "max_wal_size=2GB")  # twice its defaults; all that syncs stays on
LOADED_AT_ONCE = 50_000  # rows a transaction: write-ahead logs stay small
COLUMNS = [name.strip() for name in ROW.split(",")]


class Connection(Protocol):
    async def insert(self, rows: Sequence[Row]) -> None:
        """One executemany in one transaction; what is there already stays. On return it is durable."""

    async def load(self, rows: Sequence[Row]) -> None:
        """As fast as the database can, beside what else this process does."""

    async def tidy(self) -> None:
        """After all is loaded: what the database would do by itself within a minute."""

    async def delete(self, signal_ids: Sequence[str]) -> None: ...


class Database(Protocol):
    """`name` is that of the technology, `synced` says what one commit waits for."""

    name: str
    synced: str
    url: str
    ingest_share_min: float | None  # P7: what of plain inserting the door has to reach
    growth_share_min: float  # P10: what of its rate on a small store it has to keep on a full one

    def connected(self) -> AbstractAsyncContextManager[Connection]: ...


Technology = Callable[[str], Database]  # makes an empty one of that name, with RiskCast's own schema


@contextmanager
def postgres_below(folder: Path) -> Iterator[Postgres]:
    folder.chmod(0o711)  # a PostgreSQL that root starts runs as nobody, who has to get to its own folder
    with postgres(*POSTGRES_SETTINGS, within=folder) as server:
        yield server


@contextmanager
def technologies(folder: Path) -> Iterator[list[Technology]]:
    with postgres_below(folder) as server:
        yield [lambda name: SqliteDatabase(folder / f"{name}.db"), lambda name: PostgresDatabase(server)]


async def fill(databases: Sequence[Database], rows: Iterable[Row]) -> None:
    """All of them at once with the same rows."""
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(database.connected()) for database in databases]
        waiting = iter(rows)
        while portion := list(itertools.islice(waiting, LOADED_AT_ONCE)):
            await asyncio.gather(*(connection.load(portion) for connection in connections))
        for connection in connections:
            await connection.tidy()


class SqliteDatabase:
    name = "SQLite"
    synced = "WAL, synchronous=FULL"
    ingest_share_min: float | None = 0.5
    growth_share_min = 0.5

    def __init__(self, path: Path) -> None:
        self.url = f"sqlite:///{path}"
        self._path = path
        serving.run(migrate_store(self.url))

    @asynccontextmanager
    async def connected(self) -> AsyncIterator["SqliteConnection"]:
        with closing(
            sqlite3.connect(self._path, isolation_level=None, timeout=10, check_same_thread=False)
        ) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(CACHED)
            yield SqliteConnection(connection)


class SqliteConnection:
    _SQL = f"INSERT INTO signals ({ROW}) VALUES ({', '.join('?' * len(COLUMNS))}) ON CONFLICT DO NOTHING"

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def insert(self, rows: Sequence[Row]) -> None:
        self._insert(rows)

    def _insert(self, rows: Sequence[Row]) -> None:
        with self._transaction():
            self._connection.executemany(self._SQL, map(values_of, rows))

    async def load(self, rows: Sequence[Row]) -> None:
        await asyncio.to_thread(self._insert, rows)

    async def tidy(self) -> None: ...

    async def delete(self, signal_ids: Sequence[str]) -> None:
        with self._transaction():
            self._connection.executemany("DELETE FROM signals WHERE signal_id = ?", [(each,) for each in signal_ids])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        yield
        self._connection.execute("COMMIT")


class PostgresDatabase:
    name = "PostgreSQL"
    synced = "fsync and synchronous_commit on"
    ingest_share_min: float | None = None
    growth_share_min = 0.7

    def __init__(self, server: Postgres) -> None:
        self.url = server.url(migrated(server))

    @asynccontextmanager
    async def connected(self) -> AsyncIterator["PostgresConnection"]:
        connection = await asyncpg.connect(self.url)
        try:
            yield PostgresConnection(connection)
        finally:
            await connection.close()


class PostgresConnection:
    _MARKS = ", ".join(f"${number}" for number in range(1, len(COLUMNS) + 1))
    _SQL = f"INSERT INTO signals ({ROW}) VALUES ({_MARKS}) ON CONFLICT DO NOTHING"

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection

    async def insert(self, rows: Sequence[Row]) -> None:
        await self._connection.executemany(self._SQL, map(values_of, rows))

    async def load(self, rows: Sequence[Row]) -> None:
        await self._connection.copy_records_to_table("signals", records=map(values_of, rows), columns=COLUMNS)

    async def tidy(self) -> None:
        await self._connection.execute("VACUUM (ANALYZE) signals")

    async def delete(self, signal_ids: Sequence[str]) -> None:
        await self._connection.execute("DELETE FROM signals WHERE signal_id = ANY($1)", signal_ids)
