"""Opening a SQLite file so that what is committed stays committed, and by one RiskCast alone.

WAL with synchronous=FULL is what survives a power cut; every other combination has lost acknowledged commits in trials.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import aiosqlite
from filelock import BaseFileLock, FileLock, Timeout

from riskcast_server.store.contract import StoreInUse, StoreRefused
from riskcast_server.store.schema import migrations, newer_schema
from serving.files import read_regular

SYNCHRONOUS_FULL = 2  # what PRAGMA synchronous answers for FULL

# 32 MiB of pages instead of 2: ids come in no order, and every second page of their index was read from the file again.
CACHED = "PRAGMA cache_size = -32768"

# How a file begins (sqlite.org/fileformat.html): these, and in big-endian bytes 60 to 63 its user_version.
MAGIC = b"SQLite format 3\0"
HEADER_BYTES = 100
USER_VERSION = slice(60, 64)


# How soon a lock that was let go is noticed, well within the time that anybody waits for one.
LOCK_POLL_S = 0.05


@asynccontextmanager
async def locked(path: Path, wait_s: float) -> AsyncIterator[None]:
    """The file is ours alone. StoreInUse in one line when another RiskCast still has it after `wait_s`."""
    with refusing(path):
        path.parent.stat()  # FileLock would make the directory, and a mistyped path would become an empty store
        lock = lock_of(path)
        await _acquire(lock, wait_s)
    try:
        yield
    finally:
        lock.release()


async def _acquire(lock: BaseFileLock, wait_s: float) -> None:
    """Timeout in the end. FileLock would wait too, and the event loop with it."""
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + wait_s
    while True:
        try:
            lock.acquire()
        except Timeout:
            if loop.time() >= ends_at:
                raise
            await asyncio.sleep(LOCK_POLL_S)
        else:
            return


def lock_of(path: Path) -> BaseFileLock:
    """Given up at once when another has it."""
    return FileLock(f"{path}.lock", timeout=0)


@asynccontextmanager
async def connected(
    path: Path, busy_timeout_s: float, *, may_create: bool
) -> AsyncIterator[tuple[aiosqlite.Connection, aiosqlite.Connection]]:
    """The one writing connection and a read-only one, schema up to date. StoreRefused in one line otherwise."""
    async with AsyncExitStack() as stack:
        with refusing(path):
            before = inode_of(path)
            writer = await stack.enter_async_context(_connection(path, "rwc" if may_create else "rw", busy_timeout_s))
            await make_durable(writer, path)  # which opens the log, by its name: it must not be another file's
            if before not in (0, inode_of(path)):
                raise StoreRefused(f"{path} was replaced while it was opened")
            await _migrate(writer, path)
            await _sync_log(writer)
            reader = await stack.enter_async_context(_connection(path, "ro", busy_timeout_s))
        yield writer, reader


def inode_of(path: Path) -> int:
    """0 while there is no such file."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def log_of(path: Path) -> Path:
    """The write-ahead log: commits that are not in the file yet."""
    return path.with_name(f"{path.name}-wal")


def set_log_aside(path: Path, inode: int) -> None:
    """Once another file has taken its place: SQLite would play the log of the old one into the new one, and ruin it.

    It is kept, in case the old file was only moved away. A log that came with the new file has another inode.
    """
    log = log_of(path)
    with suppress(FileNotFoundError):
        if log.stat().st_ino == inode:
            log.replace(f"{log}.replaced")


def _connection(path: Path, mode: str, busy_timeout_s: float) -> aiosqlite.Connection:
    # isolation_level=None: transactions begin and end where the code says so.
    return aiosqlite.connect(uri(path, mode), uri=True, timeout=busy_timeout_s, isolation_level=None)


def uri(path: Path, mode: str) -> str:
    """`mode`: ro, rw (the file must be there) or rwc."""
    return f"file:{quote(str(path))}?mode={mode}"


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """What the system or the database says of the file becomes StoreRefused in one line."""
    # The system lets go of the lock when the process dies, whatever way: it is never stale.
    try:
        yield
    except Timeout:
        raise StoreInUse(f"{path} is in use by another RiskCast") from None
    except OSError as error:
        raise StoreRefused(f"{path} cannot be used: {error.strerror}") from error
    except sqlite3.Error as error:
        raise StoreRefused(f"{path} cannot be used: {error}") from error


async def make_durable(writer: aiosqlite.Connection, path: Path) -> None:
    """StoreRefused unless the database answers that it does what was asked."""
    mode = await answer(writer, "PRAGMA journal_mode = WAL")
    await writer.execute("PRAGMA synchronous = FULL")
    await writer.execute(CACHED)
    if (mode, await answer(writer, "PRAGMA synchronous")) != ("wal", SYNCHRONOUS_FULL):
        raise StoreRefused(f"{path} takes no write-ahead log that is synced: commits would not survive a power cut")


def schema_versions(path: Path) -> tuple[int | None, int]:
    """Of the file, None if there is none, and of this program.

    StoreInUse while a RiskCast has it, or is about to make it; StoreRefused when it is no database.

    Nothing is made where none has run, and no file that has no log is opened as a database.
    """
    with ExitStack() as stack, refusing(path):
        lock = lock_of(path)
        if Path(lock.lock_file).exists():
            stack.enter_context(lock)
        return _version_of(path) if path.exists() else None, len(migrations("riskcast_server.store.sqlite"))


def _version_of(path: Path) -> int:
    """What a server has left in the log when it was killed counts, as it does at the next start."""
    header = read_regular(path, HEADER_BYTES)
    if header and not header.startswith(MAGIC):
        raise StoreRefused(f"{path} cannot be used: file is not a database")
    if not log_of(path).exists():
        return int.from_bytes(header[USER_VERSION], "big")
    with closing(sqlite3.connect(uri(path, "ro"), uri=True)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


async def _migrate(writer: aiosqlite.Connection, path: Path) -> None:
    """Applies what is newer than the file's user_version, each in a transaction of its own."""
    version = int(await answer(writer, "PRAGMA user_version"))
    scripts = migrations("riskcast_server.store.sqlite")
    if version > len(scripts):
        raise newer_schema(path, version, len(scripts))
    for number, script in enumerate(scripts, start=1):
        if number > version:
            sql = script.read_text("utf-8")
            await writer.executescript(f"BEGIN IMMEDIATE;\n{sql}\nPRAGMA user_version = {number};\nCOMMIT;")


async def _sync_log(writer: aiosqlite.Connection) -> None:
    """A commit of its own, which syncs the whole log.

    A process killed between writing a commit and syncing it leaves one that is read, and that a power cut still takes:
    a repeat of its signals must not be answered before this.
    """
    version = await answer(writer, "PRAGMA user_version")
    await writer.execute(f"PRAGMA user_version = {version}")


async def answer(connection: aiosqlite.Connection, sql: str) -> int | str:
    """The one value that a PRAGMA answers."""
    [(value,)] = await connection.execute_fetchall(sql)
    return value  # type: ignore[no-any-return]  # rows of sqlite3 are not typed
