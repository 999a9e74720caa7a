"""delivery.db, beside the ledger: whether delivery is paused, and the dead letters. One file, one connection.

Nothing of it is needed to deliver: without it nothing is paused, and RiskCast's hello names the records that were
rejected. What only it knows are pauses and what an operator gave up.
"""

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import aiosqlite
import structlog
from google_crc32c import value as crc32c

from contract.errors import ContractError, Reason
from serving.files import read_regular

T = TypeVar("T")
Rows = Sequence[tuple[Any, ...]]

DELIVERY_FILE = "delivery.db"  # in the directory of the ledger
SCHEMA_VERSION = 2  # the file's user_version; 0 is a new file, or one from before it had dead letters
RETRY_DELAY_S = 5.0

# What a row tells. SQLite reads a flipped bit of it as it is: another record would be redriven, or given up.
TOLD = (
    *("number", "partition", "segment_id", "segment_ordinal", "record_index", "reason", "rejection", "attempt_count"),
    *("first_rejected_at", "last_rejected_at", "redrive_requested_at", "drop_reason", "dropped_at"),
)
CHECKSUM = f"row_checksum({', '.join(f'CAST({column} AS BLOB)' for column in TOLD)})"
IS_INTACT = f"checksum IS {CHECKSUM}"

# Times of dead letters are microseconds since the epoch. AUTOINCREMENT: a number names one dead letter for ever, and a
# page begins behind it.
TABLE = """CREATE TABLE IF NOT EXISTS {name} (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    partition TEXT NOT NULL,
    segment_id BLOB NOT NULL,
    segment_ordinal INTEGER NOT NULL,
    record_index INTEGER NOT NULL,
    reason TEXT NOT NULL,
    rejection BLOB NOT NULL, -- omen.v1.ItemError
    attempt_count INTEGER NOT NULL,
    first_rejected_at INTEGER NOT NULL,
    last_rejected_at INTEGER NOT NULL,
    redrive_requested_at INTEGER, -- while it is to be sent again
    drop_reason TEXT NOT NULL DEFAULT '',
    dropped_at INTEGER,
    UNIQUE (segment_id, record_index),
    CHECK (redrive_requested_at IS NULL OR dropped_at IS NULL)
) STRICT;
"""
BY_PLACE = """
CREATE INDEX IF NOT EXISTS dead_letters_by_place ON dead_letters (partition, segment_ordinal, record_index);
"""

SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS pause (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    reason TEXT NOT NULL,
    paused_at TEXT NOT NULL
);
{TABLE.format(name="dead_letters")}
{BY_PLACE}
ALTER TABLE dead_letters ADD COLUMN checksum INTEGER;
UPDATE dead_letters SET checksum = {CHECKSUM};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""

GARBLED = f"SELECT number, partition, record_index, drop_reason FROM dead_letters WHERE {IS_INTACT} IS NOT TRUE"

# Without the rows that are garbled, and with indexes of what is left: those there are may tell of what was.
REBUILD = f"""
BEGIN IMMEDIATE;
{TABLE.format(name="intact")}
ALTER TABLE intact ADD COLUMN checksum INTEGER;
INSERT INTO intact SELECT * FROM dead_letters WHERE {IS_INTACT};
DELETE FROM sqlite_sequence WHERE name = 'intact';
UPDATE sqlite_sequence SET name = 'intact' WHERE name = 'dead_letters';
DROP TABLE dead_letters;
ALTER TABLE intact RENAME TO dead_letters;
{BY_PLACE}
COMMIT;
"""

# Of this connection alone: another one, which has no such function, may read the file all the same.
CHECKSUMS = "".join(
    f"""CREATE TEMP TRIGGER checksum_{name} AFTER {event} ON main.dead_letters BEGIN
    UPDATE dead_letters SET checksum = {CHECKSUM} WHERE number = NEW.number;
END;
"""
    for name, event in (("inserted", "INSERT"), ("updated", f"UPDATE OF {', '.join(TOLD)}"))
)

log = structlog.get_logger(__name__)


class DeliveryFileUnreadable(Exception):
    """delivery.db is not what this program wrote. One line for the operator, who may move the file aside."""


class DeliveryFile:
    """Made by `open_delivery_file`. Whoever must not be interrupted halfway shields itself."""

    def __init__(self, path: Path, database: aiosqlite.Connection) -> None:
        self._path = path
        self._database = database
        self._files = _files_at(path)
        self._is_there = True

    async def load(self, sql: str, read: Callable[[Rows], T]) -> T:
        """What is in it at the start. Raises DeliveryFileUnreadable, also when `read` raises ValueError."""
        with _readable(self._path):
            return read(list(map(tuple, await self._database.execute_fetchall(sql))))

    async def read(self, sql: str, values: Sequence[object] = ()) -> Rows:
        """The rows of a query, also while the file has lost its name: it is open still.

        Raises ContractError LEDGER_UNAVAILABLE when the disk refuses, or the file.
        """
        try:
            return list(map(tuple, await self._database.execute_fetchall(sql, values)))
        except sqlite3.Error as error:
            log.error("delivery_file_refused", error=str(error))
            raise _unusable() from error

    async def execute(self, sql: str, values: Sequence[object] = ()) -> Rows:
        """One statement, which is one transaction, on disk when this returns; the rows it gives.

        Raises as `read`, and when the file was deleted or replaced: the next start would find nothing of it.
        """
        self._make_sure()
        rows = await self.read(sql, values)
        self._make_sure()
        return rows

    def _make_sure(self) -> None:
        was_there, self._is_there = self._is_there, _files_at(self._path) == self._files
        if self._is_there:
            return
        if was_there:
            told = f"{self._path} or its log was deleted or replaced: put it back, or restart OMEN"
            log.error("delivery_file_refused", error=told)
        raise _unusable()


@asynccontextmanager
async def open_delivery_file(path: Path) -> AsyncIterator[DeliveryFile]:
    """Made where it is missing, brought up to date where it is older. Raises DeliveryFileUnreadable."""
    async with aiosqlite.connect(path, isolation_level=None) as database:  # each statement commits by itself
        with _readable(path):
            database.text_factory = _text
            await database.create_function("row_checksum", -1, row_checksum, deterministic=True)
            await _prepare(database)
            await database.executescript(CHECKSUMS)
        yield DeliveryFile(path, database)


def kept(path: Path, table: str, sql: str, read: Callable[[Rows], T]) -> T:
    """What `load` would give, from a file that is left as it is; of no rows while there is none, or no such table.

    Raises DeliveryFileUnreadable, and OSError for a FIFO.
    """
    if not path.exists():
        return read([])
    read_regular(path, 0)
    # Without a log nobody has it open, and SQLite is to make none.
    mode = "ro" if path.with_name(f"{path.name}-wal").exists() else "ro&immutable=1"
    with (
        _readable(path),
        closing(sqlite3.connect(f"file:{quote(str(path))}?mode={mode}", uri=True)) as database,
    ):
        database.text_factory = _text
        _check_version(database.execute("PRAGMA user_version").fetchone()[0])
        is_made = database.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        return read(database.execute(sql).fetchall() if is_made else [])


def row_checksum(*values: bytes | None) -> int:
    """CRC32C of what a row tells, and of where each value ends."""
    parts = (b"-" if value is None else b"%d:%b" % (len(value), value) for value in values)
    return int(crc32c(b"".join(parts)))


def _files_at(path: Path) -> list[tuple[int, int]]:
    """Which files have the names of the database and of its log; commits are in the log first."""
    found = []
    for each in (path, path.with_name(f"{path.name}-wal")):
        with suppress(OSError):
            about = each.stat()
            found.append((about.st_dev, about.st_ino))
    return found


def _text(stored: bytes) -> str:
    """Garbled, it costs itself, and not the rows around it."""
    return stored.decode(errors="replace")


def _unusable() -> ContractError:
    message = "delivery.db cannot be used now"
    return ContractError(Reason.LEDGER_UNAVAILABLE, message, retry_delay_s=RETRY_DELAY_S)


async def _prepare(database: aiosqlite.Connection) -> None:
    await database.execute_fetchall("PRAGMA journal_mode = WAL")  # to its end: no commit goes beside it
    await database.execute("PRAGMA synchronous = FULL")
    [(version,)] = await database.execute_fetchall("PRAGMA user_version")
    _check_version(version)
    if (found := await _found_by(database, "quick_check")) != "ok":
        raise ValueError(found)
    if version < SCHEMA_VERSION:
        await database.executescript(SCHEMA)
    if garbled := await database.execute_fetchall(GARBLED):
        for number, partition, index, drop_reason in garbled:
            about = {"partition": str(partition), "record_index": str(index), "drop_reason": str(drop_reason)}
            log.error("dead_letter_unreadable", number=number, **about)
        await database.executescript(REBUILD)
    # Through an index that does not fit its rows, another one than was named would be redriven, or given up.
    elif await _found_by(database, "integrity_check") != "ok":
        log.warning("delivery_file_indexes_rebuilt")
        await database.execute("REINDEX dead_letters")


async def _found_by(database: aiosqlite.Connection, check: str) -> str:
    """The first thing that is wrong, or "ok"."""
    [(found,)] = await database.execute_fetchall(f"PRAGMA {check}(1)")
    return str(found)


def _check_version(version: int) -> None:
    if version > SCHEMA_VERSION:
        raise ValueError(f"it has schema version {version}; this program knows {SCHEMA_VERSION}: upgrade it")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, ValueError) as error:
        what = "whether delivery is paused, and which dead letters there are, cannot be read"
        raise DeliveryFileUnreadable(f"{path}: {what}: {' '.join(str(error).split())}") from error
