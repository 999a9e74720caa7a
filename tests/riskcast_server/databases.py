"""Empty databases, one technology each, and what an operator might do to them behind a store's back."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from bench.postgres import Postgres, execute
from tests.riskcast_server import running

TABLES = "signals, settlements, coverage, leases, reconcile_history, reconcile_missing, accepted_divergences"


class Database(Protocol):
    @property
    def url(self) -> str: ...

    async def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Committed, on a connection of its own. Values stand for question marks."""

    def refusing_inserts(self, table: str) -> AbstractAsyncContextManager[None]:
        """Every insert fails inside the block."""


@dataclass(frozen=True)
class SqliteDatabase:
    directory: Path

    @property
    def url(self) -> str:
        return running.url(self.directory)

    async def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        return running.sql(self.directory, statement, *values)

    @asynccontextmanager
    async def refusing_inserts(self, table: str) -> AsyncIterator[None]:
        await self.sql(f"CREATE TRIGGER stop BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'no'); END")
        yield
        await self.sql("DROP TRIGGER stop")


@dataclass(frozen=True)
class PostgresDatabase:
    server: Postgres
    name: str

    @property
    def url(self) -> str:
        return self.server.url(self.name)

    async def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        numbers = count(1)
        return await execute(self.url, re.sub(r"\?", lambda _: f"${next(numbers)}", statement), *values)

    @asynccontextmanager
    async def refusing_inserts(self, table: str) -> AsyncIterator[None]:
        await self.sql("CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $_$BEGIN RAISE 'no'; END$_$")
        await self.sql(f"CREATE TRIGGER stop BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION no()")
        try:
            yield
        finally:
            await self.sql("DROP FUNCTION no CASCADE")

    def empty(self) -> None:
        asyncio.run(self.sql(f"TRUNCATE {TABLES}"))
