"""The promise is made here and only here: a waiter is given its position after fdatasync has returned, never before.

Callers put records into a bounded queue; one flusher thread takes all that is waiting, gives each record its partition
and sequence, writes, syncs, and then answers the whole batch in one call. After the first failed write or fsync nothing
is ever acknowledged again by this process: what the disk holds is unknown until a new process has looked.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from threading import Lock, Thread
from types import TracebackType
from typing import Any, TypeVar

from ledger.checking.verify import Progress, Verified
from ledger.disk import Disk
from ledger.errors import LedgerClosed, LedgerError, LedgerUnavailable
from ledger.format import PAYLOAD_BYTES_MAX
from ledger.opening.house import House, open_house
from ledger.positions import PartitionInfo
from ledger.reader import LedgerReader
from ledger.routing import due_at
from ledger.seal import Seal
from ledger.settings import LedgerSettings
from ledger.times import microseconds_of, utc_now
from ledger.writing.append_queue import AppendQueue, Errand, Pending, Turn
from ledger.writing.catalog import Catalog
from ledger.writing.commit import Committer, Result
from ledger.writing.pruning import Pruned, Pruner
from ledger.writing.sealing import Sealer

T = TypeVar("T")

OnCommit = Callable[[Sequence[Result], int], None]

_DEFAULT_SETTINGS = LedgerSettings()
_DEFAULT_DISK = Disk()


class Ledger:
    """One writer of one directory. Every method may be called from any thread, close() not from within on_commit."""

    def __init__(
        self, house: House, on_commit: OnCommit, settings: LedgerSettings, disk: Disk, now: Callable[[], datetime]
    ) -> None:
        """Use open()."""
        self.ledger_id = house.ledger_id
        self.recovered = house.recovered
        self.failure: LedgerError | None = None
        self._house = house
        self._catalog = Catalog(house.partitions)
        self._on_commit = on_commit
        self._settings = settings
        self._disk = disk
        self._now = now
        self._queue = AppendQueue(settings.queue_records_max, settings.queue_bytes_max)
        self._committer = Committer(disk, house, self._catalog, settings)
        self._sealer = Sealer(disk, house, self._catalog, self._committer, settings)
        self._pruner = Pruner(disk, house, self._catalog)
        self._in_flight: list[Pending] = []
        self._errand: Errand[Any] | None = None
        self._closing = Lock()
        self._flusher = Thread(target=self._run, name="ledger-flusher", daemon=True)
        self._flusher.start()

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        on_commit: OnCommit,
        settings: LedgerSettings = _DEFAULT_SETTINGS,
        disk: Disk = _DEFAULT_DISK,
        now: Callable[[], datetime] = utc_now,
    ) -> "Ledger":
        """Takes the lock, recovers what an earlier process left (`recovered` tells), and starts the flusher thread.

        `on_commit` is called from that thread, once per batch, with every waiter of the batch and its position or its
        LedgerError, and with the time their records carry as written_at. It must not raise, nor wait for the ledger.
        When the ledger fails it is called once more, with all whose outcome will never be known (maybe nobody), after
        `failure` is set.

        LedgerLocked when another writer has it, LedgerDamaged or FormatUnsupported when it is not to be understood,
        LedgerFull or LedgerUnavailable when the disk refuses.
        """
        house = open_house(disk, directory, settings, microseconds_of(now()))
        return cls(house, on_commit, settings, disk, now)

    def append(self, payload: bytes, emitted_at: datetime, waiter: object) -> None:
        """Queues one record. `waiter` comes back through on_commit, exactly once, unless this call raises.

        At once: ValueError (naive datetime, payload over 4 MiB), TypeError (not bytes), QueueFull, LedgerClosed,
        LedgerUnavailable. Through on_commit: PartitionClosed, LedgerFull, LedgerUnavailable.
        """
        self.append_all([(payload, emitted_at, waiter)])

    def append_all(self, entries: Iterable[tuple[bytes, datetime, object]]) -> None:
        """Queues records together, in order, or none of them: they share a commit unless they are of several days or
        do not fit. (payload, emitted_at, waiter) each, with the errors of append().
        """
        self._queue.put([_pending(*entry) for entry in entries])

    def due_partitions(self, now: datetime) -> list[str]:
        """Those that take no more records at `now` and are not sealed yet, by name."""
        moment = microseconds_of(now)
        infos = self._catalog.partitions()
        return [info.name for info in infos if not info.is_sealed and due_at(info.name, self._settings) <= moment]

    def seal(self, partition: str) -> Seal:
        """Makes a partition final; waits until its SEAL is durable. The Seal it has, when it is sealed already.

        Appends go on meanwhile. By the ledger's own clock: NotDue. KeyError when there is none of that name;
        LedgerDamaged (names what; damage is never sealed in), LedgerFull, LedgerClosed, LedgerUnavailable. While
        `failure` is None, each of them leaves the partition unsealed, and asking again does no harm.
        """
        if seal := self._catalog.partition(partition).seal:
            return seal
        gathered = self._sealer.gather(partition, self._stamp())
        seal = self._on_flusher(lambda: self._sealer.seal(partition, gathered, self._stamp()))
        self._sealer.protect(seal)
        return seal

    def prune(self, partition: str) -> Iterator[Progress | Verified | Pruned]:
        """Re-reads every byte of a sealed partition, then removes its records for good; its SEAL stays and says so.

        Verified once all is read: only the next step gives it up, and is Pruned, as the last one is. What is not
        stepped through to its end may have removed nothing, or a part: pruned again it goes on. KeyError when there is
        none of that name; NotSealed, LedgerDamaged, LedgerUnavailable: while `failure` is None, what it said before is
        true still. LedgerFull, LedgerClosed: nothing was changed.
        """
        return self._pruner.prune(partition, self._on_flusher)

    def prunable_bytes(self, partition: str) -> int:
        """How much prune() would remove. Raises as it does, for all that is known without reading the records."""
        return self._pruner.prunable_bytes(partition)

    def listed(self, sealed_after: int) -> list[PartitionInfo]:
        """The partitions without a seal number, and those with a higher one: what may be new since that seal."""
        return self._catalog.listed(sealed_after)

    def partitions(self) -> list[PartitionInfo]:
        """The durable view of every partition, by name."""
        return self._catalog.partitions()

    def partition(self, name: str) -> PartitionInfo:
        """The durable view of one partition. KeyError when there is none of that name."""
        return self._catalog.partition(name)

    def reader(self) -> LedgerReader:
        """A reader that knows the durable mark from memory."""
        house = self._house
        return LedgerReader(house.directory, view=self._catalog, disk=self._disk, ledger_id=house.ledger_id)

    def close(self) -> None:
        """Commits what is queued, writes the FOOTERs, lets go of the lock. Idempotent. A failure is in `failure`."""
        with self._closing:
            self._queue.close(_closed)
            self._flusher.join()
            self._house.lock.release()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        try:
            while (turn := self._queue.take(self._committer.patience_s())) is not None:
                self._take(turn)
            self._committer.freeze_all(self._stamp())
        except BaseException as error:  # noqa: BLE001 - whatever it was, no waiter may be left waiting
            self._fail(error)

    def _take(self, turn: Turn) -> None:
        self._in_flight, self._errand = turn.batch, turn.errand
        if turn.batch:
            written_at = self._stamp()
            self._on_commit(self._committer.commit(turn.batch, written_at), written_at)
            self._in_flight = []
        self._committer.mark_idle(self._stamp())
        if turn.errand:
            turn.errand.run()
            self._errand = None

    def _on_flusher(self, work: Callable[[], T]) -> T:
        """Between two batches; waits for it."""
        errand = Errand(work)
        self._queue.put_errand(errand)
        return errand.outcome.result()

    def _stamp(self) -> int:
        return microseconds_of(self._now())

    def _fail(self, error: BaseException) -> None:
        failure = LedgerUnavailable(f"the ledger has stopped, outcome unknown: {error!r}")
        failure.__cause__ = error
        self.failure = failure
        waiting = self._in_flight + self._queue.fail(lambda: LedgerUnavailable(str(failure)))
        if self._errand:
            self._errand.fail(LedgerUnavailable(str(failure)))
        self._committer.abandon()
        with suppress(Exception):  # on_commit may be what failed: `failure` is set, there is nobody left to tell
            self._on_commit([(pending.waiter, failure) for pending in waiting], 0)


def _pending(payload: bytes, emitted_at: datetime, waiter: object) -> Pending:
    """Found later, in the flusher, a bad one would stop the ledger for everybody."""
    if type(payload) is not bytes:
        raise TypeError(f"a payload is bytes, not {type(payload).__name__}")
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise ValueError(f"a payload has at most {PAYLOAD_BYTES_MAX} bytes, not {len(payload)}")
    return Pending(payload, microseconds_of(emitted_at), waiter)


def _closed() -> LedgerError:
    return LedgerClosed("the ledger has been closed")
