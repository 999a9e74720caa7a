"""RiskCast's memory. `open_store` picks the technology by the URL; `contract` says what each of them does."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from riskcast_server.store.contract import (
    NO_PLACE,
    Failure,
    Kept,
    Lease,
    PartitionCount,
    Runs,
    SegmentCoverage,
    SegmentPlace,
    SignalQuery,
    StateKey,
    StatesQuery,
    Store,
    StoreInUse,
    StoreRefused,
    StoreUnknown,
)
from riskcast_server.store.postgres import migrate, open_postgres
from riskcast_server.store.sqlite import back_up, open_sqlite, schema_versions

__all__ = [
    "NO_PLACE",
    "Failure",
    "Kept",
    "Lease",
    "PartitionCount",
    "Runs",
    "SegmentCoverage",
    "SegmentPlace",
    "SignalQuery",
    "StateKey",
    "StatesQuery",
    "Store",
    "StoreInUse",
    "StoreRefused",
    "StoreUnknown",
    "back_up_store",
    "maybe_file_of",
    "migrate_store",
    "open_store",
    "schema_versions",
]

SQLITE = "sqlite:///"
POSTGRES = ("postgresql://", "postgres://")
IN_MEMORY = ":memory:"  # what SQLite takes for no file at all: nothing would survive the process
UNKNOWN = "the database URL must be sqlite:///path or postgresql://user:password@host/database"

TIMEOUT_S = 10.0  # how long a verb waits for a lock or an answer
# How long a server waits for whoever has its file: `riskcast check` has it for tens of milliseconds, on a slow disk for
# some hundred, and a server that is replaced lets go as its process ends.
LOCK_WAIT_S = 2.0
STATEMENTS_CACHED = 100  # of a connection; 0 where the next statement may run in another session: behind a pooler


def open_store(
    url: str,
    *,
    timeout_s: float = TIMEOUT_S,
    lock_wait_s: float = LOCK_WAIT_S,
    statements_cached: int = STATEMENTS_CACHED,
) -> AbstractAsyncContextManager[Store]:
    """Opens; closes on leaving. An older SQLite schema is brought up to date; in PostgreSQL `migrate_store` does that.

    `url` is sqlite:///relative/path, sqlite:////absolute/path or postgresql://user:password@host/database: StoreUnknown
    for anything else, StoreRefused when it cannot be used safely, both in one line that does not repeat it.
    """
    if url.startswith(POSTGRES):
        return open_postgres(url, timeout_s, statements_cached)
    return open_sqlite(_path(url), timeout_s, lock_wait_s)


async def migrate_store(url: str, *, statements_cached: int = STATEMENTS_CACHED) -> None:
    """Brings the schema up to date. Raises as `open_store` does."""
    if url.startswith(POSTGRES):
        await migrate(url, statements_cached=statements_cached)
    else:
        async with open_sqlite(_path(url), TIMEOUT_S, LOCK_WAIT_S):
            pass


def back_up_store(url: str, target: Path) -> None:
    """Copies what is committed into a new file, while a server runs or not.

    StoreUnknown for any store but SQLite; StoreRefused when there is such a file, or it cannot be made.
    """
    if url.startswith(POSTGRES):
        raise StoreUnknown("a PostgreSQL database is backed up by pg_dump")
    back_up(Path(_path(url)), target)


def maybe_file_of(url: str) -> Path | None:
    """Where a SQLite store is. StoreUnknown for a URL that names no store."""
    return None if url.startswith(POSTGRES) else Path(_path(url))


def _path(url: str) -> str:
    path = url.removeprefix(SQLITE)
    if not url.startswith(SQLITE) or path in ("", IN_MEMORY):
        raise StoreUnknown(UNKNOWN)
    return path
