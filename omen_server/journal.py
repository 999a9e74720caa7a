"""The ledger as the event loop sees it: awaitable appends, reads off the loop, one wake-up per commit.

Ledger errors become errors of the contract here, and nowhere else.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, TypeVar

import structlog

from contract.errors import ContractError, Reason
from ledger import (
    Disk,
    FormatUnsupported,
    Ledger,
    LedgerClosed,
    LedgerDamaged,
    LedgerError,
    LedgerFull,
    LedgerSettings,
    LedgerUnavailable,
    NotDue,
    NotSealed,
    PartitionClosed,
    PartitionInfo,
    Position,
    QueueFull,
    Recovered,
)
from ledger.checking.verify import Damage, Progress, Verified
from ledger.routing import due_at
from ledger.seal import Seal
from ledger.times import bounded_moment_of
from omen_server.appends import Append
from omen_server.metrics import LedgerMetrics, TimedDisk

T = TypeVar("T")

log = structlog.get_logger(__name__)

DEFAULT_SETTINGS = LedgerSettings()

# Each error of the ledger: its reason, after how many seconds a repeat makes sense (None: never), and what callers may
# know of it. The ledger's own texts name paths and system errors.
ANSWERS: dict[type[LedgerError], tuple[Reason, float | None, str]] = {
    QueueFull: (Reason.QUEUE_FULL, 0.1, "too many records wait for the disk"),  # for tens of milliseconds
    PartitionClosed: (Reason.PARTITION_CLOSED, None, "the partition of emitted_at takes no more records"),
    NotDue: (Reason.NOT_DUE, None, "the partition still takes records"),
    NotSealed: (Reason.NOT_SEALED, None, "the partition is not sealed"),
    LedgerDamaged: (Reason.LEDGER_DAMAGED, None, "the partition is damaged"),
    FormatUnsupported: (Reason.LEDGER_UNAVAILABLE, None, "the partition holds what a newer program wrote"),
    LedgerClosed: (Reason.SHUTTING_DOWN, None, "the server is shutting down"),
    LedgerFull: (Reason.LEDGER_FULL, 30.0, "the disk of the ledger is full"),  # somebody has to free space
}
UNAVAILABLE = (Reason.LEDGER_UNAVAILABLE, 1.0, "the ledger has stopped; whether it holds the record is not known")
UNREADABLE = (Reason.LEDGER_UNAVAILABLE, 1.0, "the ledger cannot be read now")

RANGES_TOLD_MAX = 5  # of what can be thousands


def contract_error(error: LedgerError) -> ContractError:
    reason, retry_delay_s, message = ANSWERS.get(type(error), UNAVAILABLE)
    metadata = {"due_at": bounded_moment_of(error.due_at).isoformat()} if isinstance(error, NotDue) else {}
    return ContractError(reason, message, metadata=metadata, retry_delay_s=retry_delay_s)


def unreadable(error: Exception) -> ContractError:
    """A read was refused: nothing is lost by that, and the ledger goes on."""
    path = error.filename if isinstance(error, OSError) else None
    log.warning("ledger_unreadable", path=path, error=str(error))
    reason, retry_delay_s, message = UNREADABLE
    return ContractError(reason, message, retry_delay_s=retry_delay_s)


def partition_pruned(partition: str) -> ContractError:
    message = f"the records of {partition} were removed; its seal remains"
    return ContractError(Reason.PARTITION_PRUNED, message, metadata={"partition": partition})


@contextmanager
def reads_answered() -> Iterator[None]:
    """What goes wrong within, while files are read, becomes an error of the contract."""
    try:
        yield
    except OSError as error:
        raise unreadable(error) from error
    except LedgerError as error:
        raise contract_error(error) from error


class Durable(NamedTuple):
    """What became durable together; `written_at`, in microseconds, is that of each of these records."""

    appends: Sequence[tuple[Append, Position]]
    written_at: int


class Journal:
    """Made by `open_journal`. Every method belongs to the event loop that opened it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, settings: LedgerSettings, metrics: LedgerMetrics) -> None:
        self._loop = loop
        self._settings = settings
        self._metrics = metrics
        self._ledger: Ledger
        self._followers: list[Callable[[Durable], None]] = []
        self._failed: asyncio.Future[LedgerError] = loop.create_future()

    @property
    def ledger_id(self) -> str:
        """The ledger's UUID."""
        return self._ledger.ledger_id

    def due_at(self, partition: str) -> int:
        """When a partition stops taking records, in microseconds since the epoch."""
        return due_at(partition, self._settings)

    @property
    def free_bytes_min(self) -> int:
        """Below so many free bytes nothing is appended."""
        return self._settings.free_bytes_min

    def follow(self, on_durable: Callable[[Durable], None]) -> None:
        """From now on call `on_durable` with every batch that became durable, in order, before its requests go on.

        Several may follow; none may raise, nor take long.
        """
        self._followers.append(on_durable)

    def append(self, appends: Sequence[Append]) -> None:
        """Hand events in. Each is told once it is fsynced, or that it was refused: QUEUE_FULL (all of them then),
        PARTITION_CLOSED, LEDGER_FULL, SHUTTING_DOWN (nothing was stored) or LEDGER_UNAVAILABLE (outcome unknown).
        """
        try:
            self._ledger.append_all((append.payload, append.emitted_at, append) for append in appends)
        except LedgerError as error:
            refusal = contract_error(error)
            for append in appends:
                self._refuse(append, refusal)

    async def chain(self) -> Iterator[Damage]:
        """Re-reads the SEALs of the whole ledger against each other, when it is stepped through."""
        return await self.read(lambda ledger: ledger.reader().verify_chain())

    async def partitions(self) -> list[PartitionInfo]:
        return await self.read(lambda ledger: ledger.partitions())

    def due_partitions(self, now: datetime) -> list[str]:
        """Those that take no more records and are not sealed yet, by name."""
        return self._ledger.due_partitions(now)

    async def seal(self, partition: str) -> Seal:
        """Seal a partition that is due, or give back the seal it has. KeyError when there is none of that name.

        Raises ContractError: NOT_DUE, LEDGER_DAMAGED, LEDGER_FULL, SHUTTING_DOWN, LEDGER_UNAVAILABLE.
        """
        with self.answered():
            return await self.read(lambda ledger: ledger.seal(partition))

    @contextmanager
    def answered(self) -> Iterator[None]:
        """What a partition is refused within becomes an error of the contract."""
        with reads_answered():
            try:
                yield
            except LedgerUnavailable as error:
                if self._ledger.failure is None:  # it goes on: the disk refused this partition alone
                    raise unreadable(error) from error
                raise

    async def verification(self, partition: str) -> Iterator[Progress | Damage | Verified]:
        """Re-reads every byte of a partition, a step at a time. KeyError when there is none of that name."""
        return await self.read(lambda ledger: ledger.reader().verify(partition))

    async def read(self, query: Callable[[Ledger], T]) -> T:
        """Run a reading of the ledger on a thread: files are not read on the event loop."""
        return await asyncio.to_thread(query, self._ledger)

    async def failure(self) -> LedgerError:
        """Wait until the ledger has failed for good; the process must end then and start again."""
        return await asyncio.shield(self._failed)

    def _on_commit(self, results: Sequence[tuple[object, Position | LedgerError]], written_at: int) -> None:
        self._loop.call_soon_threadsafe(self._resolve, results, written_at)

    def _resolve(self, results: Sequence[tuple[object, Position | LedgerError]], written_at: int) -> None:
        durable: list[tuple[Append, Position]] = []
        for append, result in results:
            assert isinstance(append, Append)
            if isinstance(result, Position):
                durable.append((append, result))
                append.became_durable(result)
            else:
                self._refuse(append, contract_error(result))
        if durable:
            self._metrics.committed(len(durable))
            for follower in self._followers:
                follower(Durable(durable, written_at))
        failure = self._ledger.failure
        if failure is not None and not self._failed.done():
            self._failed.set_result(failure)

    def _refuse(self, append: Append, error: ContractError) -> None:
        self._metrics.refused(error.reason)
        append.answer(error)


def announce(recovered: Recovered) -> None:
    """What an operator has to hear of the ledger that was opened."""
    for segment in recovered.damaged:
        log.error(
            "ledger_segment_damaged",
            partition=segment.partition,
            ordinal=segment.ordinal,
            record_count=segment.record_count,
            damaged_ranges=len(segment.damaged),
            first_damaged=segment.damaged[:RANGES_TOLD_MAX],
        )
    for partition in recovered.damaged_seals:
        log.error("ledger_seal_damaged", partition=partition)
    for path in recovered.torn_files:
        log.warning("ledger_tail_torn", partition=path.parent.name, kept_as=path.name)


@asynccontextmanager
async def open_journal(
    directory: Path,
    settings: LedgerSettings = DEFAULT_SETTINGS,
    disk: Disk | None = None,
    metrics: LedgerMetrics | None = None,
) -> AsyncIterator[Journal]:
    """Open the ledger in `directory`, recovering it; closing drains what was handed in. Raises LedgerError.

    By default on the system's disk, whose syncs are timed.
    """
    counted = metrics or LedgerMetrics()
    journal = Journal(asyncio.get_running_loop(), settings, counted)
    journal._ledger = await asyncio.to_thread(
        Ledger.open, directory, on_commit=journal._on_commit, settings=settings, disk=disk or TimedDisk(counted)
    )
    announce(journal._ledger.recovered)
    try:
        yield journal
    finally:
        await asyncio.to_thread(journal._ledger.close)
