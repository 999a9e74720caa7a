"""index.db, the SQLite file of the index. It is derived and expendable: whatever is wrong with it, a new one is made.

WAL with synchronous=NORMAL is enough. A power cut may take the last transactions away, each with its rows and the
progress that says so, and they are indexed again; nobody was promised anything that lives here alone. FULL would sync
at every pass, on the disk whose syncs each append waits for.
"""

import os
import sqlite3
from pathlib import Path

from ledger.disk import PRIVATE

INDEX_FILE = "index.db"
ABSENT = "there is none"  # why a file is made the first time
INDEX_VERSION = 1  # raised when the schema changes, or what is indexed: a file of another version is made anew

_BESIDE = ("", "-wal", "-shm", "-journal")  # the file itself first: a log without its file is never taken for anything
_BUSY_S = 0.1  # whoever locks the file is waited for by the next pass, not within one
_CACHE_KIB = 16 * 1024
_CHECKPOINT_PAGES = 4096  # 16 MiB: written back seldom, and soon enough at the close

# `partition` is the day counted from 1970-01-01, doubled, odd when late: it sorts as the names do. A signal has one row
# per partition that it was appended to, the first append there; the first of all is the lowest (written_at, partition).
SCHEMA = (
    """CREATE TABLE about (ledger_id TEXT NOT NULL, version INTEGER NOT NULL)""",
    """CREATE TABLE segments (
    partition INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    segment_id BLOB NOT NULL,
    indexed_count INTEGER NOT NULL,
    passed_over_count INTEGER NOT NULL,
    damaged_count INTEGER NOT NULL,
    is_pruned INTEGER NOT NULL,
    PRIMARY KEY (partition, ordinal)
) WITHOUT ROWID""",
    """CREATE TABLE signals (
    signal_id TEXT NOT NULL,
    partition INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    written_at INTEGER NOT NULL,
    emitted_at INTEGER NOT NULL,
    trace_id TEXT NOT NULL,
    category INTEGER NOT NULL,
    source_event_id TEXT NOT NULL
)""",
    "CREATE UNIQUE INDEX by_signal ON signals (signal_id, partition)",
    "CREATE INDEX by_time ON signals (emitted_at, signal_id)",
    "CREATE INDEX by_trace ON signals (trace_id)",
    "CREATE INDEX by_category ON signals (category, emitted_at, signal_id)",
    "CREATE INDEX by_source_event ON signals (source_event_id, emitted_at, signal_id)",
)

# What passes by itself, or is mended by an operator, and says nothing against the file.
_PASSING = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
)
_UNFIT = (sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_READONLY_DBMOVED)


class Unfit(Exception):
    """The file is no index of this ledger. The message says why, in words for a log."""


def is_unfit(error: sqlite3.Error) -> bool:
    """Whether an error says that the file must be made anew: damaged bytes, another schema, another file."""
    if isinstance(error, sqlite3.ProgrammingError | sqlite3.InterfaceError):
        return False
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)  # text that is no UTF-8 comes without a code
    return code in _UNFIT or code & 0xFF not in _PASSING


def identity(path: Path) -> tuple[int, int] | None:
    """Device and inode; None when there is no file of that name."""
    try:
        told = os.stat(path)
    except FileNotFoundError:
        return None
    return told.st_dev, told.st_ino


def opened(path: Path, ledger_id: str) -> sqlite3.Connection:
    """The writing connection to an index that is there. Unfit, or sqlite3.Error when it cannot be used now."""
    if identity(path) is None:
        raise Unfit(ABSENT)
    connection = _connect(path, "rw")
    try:
        _check(connection, ledger_id)
        _configure(connection)
    except sqlite3.Error as error:
        connection.close()
        if is_unfit(error):
            raise Unfit(str(error)) from error
        raise
    except Unfit:
        connection.close()
        raise
    return connection


def created(path: Path, ledger_id: str) -> sqlite3.Connection:
    """The writing connection to a new and empty index in the place of whatever lies there."""
    for suffix in _BESIDE:
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    os.close(
        os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE)
    )  # SQLite gives its mode to the log beside it
    connection = _connect(path, "rw")
    try:
        _configure(connection)
        connection.execute("BEGIN IMMEDIATE")
        for statement in SCHEMA:
            connection.execute(statement)
        connection.execute("INSERT INTO about VALUES (?, ?)", (ledger_id, INDEX_VERSION))
        connection.execute("COMMIT")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def opened_for_reading(path: Path) -> sqlite3.Connection:
    """Any thread may use it, one at a time. It never waits for the writing connection, nor makes that wait."""
    return _connect(path, "ro")


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    # isolation_level=None: transactions begin and end where the code says so.
    return sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)


def _configure(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")


def _check(connection: sqlite3.Connection, ledger_id: str) -> None:
    found = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    if sorted(sql for (sql,) in found) != sorted(SCHEMA):
        raise Unfit("its schema is another one")
    about = connection.execute("SELECT ledger_id, version FROM about").fetchall()
    if about != [(ledger_id, INDEX_VERSION)]:
        raise Unfit("it is of another ledger or version")
