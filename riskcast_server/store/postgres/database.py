"""How the store speaks to PostgreSQL: a pool, transactions that end in time, errors translated."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Self, TypeAlias, TypeVar

import asyncpg
import structlog
from asyncpg.pool import PoolConnectionProxy

from contract.errors import ContractError, Reason
from riskcast_server.store.contract import StoreRefused
from riskcast_server.store.postgres.address import Address

log = structlog.get_logger(__name__)

T = TypeVar("T")
Connection: TypeAlias = "asyncpg.Connection[Any] | PoolConnectionProxy[Any]"
Pool: TypeAlias = "asyncpg.Pool[Any]"

# Microseconds since the epoch by the database's clock, as it is now and not as the transaction began.
NOW = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"

CONNECTIONS_MAX = 10
READERS_MAX = 8  # so that no question, however long it takes to answer, keeps a commit or a lease waiting
ATTEMPTS_MAX = 10  # each one that fails means that another replica got something done
RETRY_DELAY_S = 1.0  # what callers are told to wait: a server that was killed is back within seconds

# All settings are of the transaction, for behind a pooler the next one may run in another session. A commit must be on
# the disk, and what the administrator asks beyond that stays. A replica that hangs, or a statement whose replica has
# gone, holds no locks for longer than others wait.
BEGIN = """BEGIN ISOLATION LEVEL READ COMMITTED;
    SELECT set_config('synchronous_commit',
            CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true),
        set_config('statement_timeout', '{timeout_ms}', true),
        set_config('idle_in_transaction_session_timeout', '{timeout_ms}', true)"""

DURABILITY = """SELECT current_setting('fsync') = 'on', current_setting('full_page_writes') = 'on',
    current_setting('synchronous_commit') IN ('on', 'remote_apply')"""


class Outrun(Exception):
    """Somebody else changed what was looked up: another replica stored one of the signals, or coverage was deleted."""


# Nothing was written, and another try sees what the other one wrote.
CONTENTION = (Outrun, asyncpg.SerializationError, asyncpg.DeadlockDetectedError)

UNAVAILABLE = (*CONTENTION, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


class Database:
    """One RiskCast's hold on a database. Every method raises ContractError STORE_UNAVAILABLE while it cannot answer."""

    def __init__(self, pool: Pool, timeout_s: float) -> None:
        self._pool = pool
        self._timeout_s = timeout_s
        self._reading = asyncio.Semaphore(READERS_MAX)
        self._begin = BEGIN.format(timeout_ms=round(timeout_s * 1000))

    @classmethod
    @asynccontextmanager
    async def opened(cls, address: Address, timeout_s: float, statements_cached: int) -> AsyncIterator[Self]:
        """Connects when first used. Leaving waits for no answer longer than the others did."""
        pool = asyncpg.create_pool(
            **address.arguments,
            timeout=timeout_s,
            min_size=0,
            max_size=CONNECTIONS_MAX,
            statement_cache_size=statements_cached,
            init=_check_durable,
            reset=_keep,
        )
        try:
            yield cls(await pool, timeout_s)
        finally:
            with suppress(TimeoutError):
                await asyncio.wait_for(pool.close(), timeout_s)

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Does the work in a transaction, committed and synced on return; again when another replica got in between."""
        with _translated():
            async with asyncio.timeout(self._timeout_s):
                for _ in range(ATTEMPTS_MAX - 1):
                    try:
                        return await self.attempt(work)
                    except CONTENTION as error:
                        log.info("store_contended", error=type(error).__name__)
                return await self.attempt(work)

    async def read(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with _translated():
            async with asyncio.timeout(self._timeout_s), self._reading:
                return [tuple(row) for row in await self.attempt(lambda connection: connection.fetch(sql, *values))]

    async def attempt(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Once, and errors as they come."""
        async with self._pool.acquire(timeout=self._timeout_s) as connection:
            try:
                await connection.execute(self._begin)
                result = await work(connection)
                await connection.execute("COMMIT")
            except (asyncpg.PostgresError, Outrun, ContractError):
                with suppress(asyncpg.InterfaceError):  # the connection is gone, and so is the transaction
                    await connection.execute("ROLLBACK")
                raise
            except BaseException:
                with suppress(asyncpg.InterfaceError):
                    connection.terminate()  # nobody knows what it waits for; the server rolls back
                raise
            return result


async def _keep(_connection: Connection) -> None:
    """Whatever a transaction sets ends with it: between two there is nothing to reset."""


async def _check_durable(connection: Connection) -> None:
    """StoreRefused unless the server answers that commits survive a power cut."""
    await connection.execute(BEGIN.format(timeout_ms=0))
    row = await connection.fetchrow(DURABILITY)
    await connection.execute("ROLLBACK")
    if row is None or not all(row):
        settings = "fsync, full_page_writes and synchronous_commit"
        raise StoreRefused(f"PostgreSQL runs without {settings}: commits would not survive a power cut")


@contextmanager
def refusing(place: str) -> Iterator[None]:
    """While opening: whatever the server, or the way to it, says is StoreRefused in one line."""
    try:
        yield
    except UNAVAILABLE as error:
        raise StoreRefused(f"{place} cannot be used: {described(error)}") from error


@contextmanager
def _translated() -> Iterator[None]:
    """Gone, hung, starting, full, contended or closed: the caller learns that it may try again, the log learns why."""
    try:
        yield
    except (*UNAVAILABLE, StoreRefused) as error:
        log.error("store_unavailable", error=described(error))
        message = "the store cannot be used now; what became of this is unknown"
        raise ContractError(Reason.STORE_UNAVAILABLE, message, retry_delay_s=RETRY_DELAY_S) from error


def described(error: Exception) -> str:
    """One line; neither servers nor sockets repeat a password."""
    return " ".join(f"{type(error).__name__}: {error}".split())
