"""OMEN, one process after another on the same disk: all of it is real but its sockets and its threads."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, TypeVar, cast

from contract.errors import ContractError
from ledger import Ledger, LedgerError, LedgerSettings, Position
from ledger.files.layout import segment_path
from omen.v1.delivery_service_pb2 import DeliveryPhase
from omen_server.appends import Append, Request
from omen_server.dead_letters import DeadLetters
from omen_server.delivery import Delivery
from omen_server.delivery.breaker import Breaker
from omen_server.delivery.contact import Contact
from omen_server.delivery.line import Line
from omen_server.delivery.retry import RetryPolicy
from omen_server.delivery.settling import Settling
from omen_server.delivery_file import DeliveryFileUnreadable, open_delivery_file
from omen_server.emission import Emitter
from omen_server.journal import Journal, announce
from omen_server.metrics import DeliveryMetrics, LedgerMetrics
from omen_server.pause import PauseSwitch
from omen_server.recent import RecentSignals
from omen_server.services.ledger import LedgerService
from omen_server.upkeep.retention import Retention
from omen_server.waiting import WaitingRoom
from serving.tasks import first_of
from tests.ledger.faults import crash_image
from tests.riskcast_server.events import NOON
from tests.simulation.book import Book, Place
from tests.simulation.catalogue import said
from tests.simulation.disk import Disk
from tests.simulation.flusher import Flusher
from tests.simulation.ledger_disk import LedgerDisk
from tests.simulation.line import SimulatedLine
from tests.simulation.network import Network, Stream
from tests.simulation.world import World

T = TypeVar("T")

SETTINGS = LedgerSettings(
    segment_records_max=12, queue_records_max=12, segments_live_max=2, free_bytes_min=1024, idle_mark_s=0.05
)
RECENT_MAX = 20
BREAKER_OPEN_S = 1.0  # or its probe would be a sixth call within a second
Deliver = Callable[[Stream[Any, Any]], AsyncIterator[Any]]


class Omen:
    """`line`, `journal`, `emitter`, `delivery`, `pause`, `letters` and `ledger_service` are those of the process that
    runs: only while `is_up`."""

    def __init__(self, world: World, directory: Path, network: Network, deliver: Deliver) -> None:
        self.world = world
        self.book = Book(world)
        self.remembered: set[bytes] = set()
        self.database = Disk(world, directory / "delivery.db")
        self._directory = directory
        self._disk = LedgerDisk(world, directory / "ledger-1")
        self._disks_count = 1
        self._maybe_copy: tuple[Path, set[Place]] | None = None  # with what was damaged already
        self._dial = partial(SimulatedLine, world, network, deliver)
        self._metrics = DeliveryMetrics(), LedgerMetrics()
        self._calls: dict[asyncio.Task[Any], None] = {}  # in order: a set's differs from run to run
        self._maybe_process: asyncio.Task[None] | None = None
        self._maybe_ledger: Ledger | None = None
        self._up = asyncio.Event()
        self._stop = asyncio.Event()
        self._may_start = asyncio.Event()
        self._may_start.set()
        self.line: SimulatedLine
        self.emitter: Emitter
        self.delivery: Delivery
        self.pause: PauseSwitch
        self.letters: DeadLetters
        self.ledger_service: LedgerService
        self.journal: Journal

    @property
    def is_up(self) -> bool:
        return self._up.is_set()

    @property
    def is_drained(self) -> bool:
        is_following = self.is_up and self.delivery.phase == DeliveryPhase.DELIVERY_PHASE_FOLLOWING
        return is_following and self.delivery.backlog_record_count == 0

    @property
    def name(self) -> str:
        return self.book.ledger_id[:4]

    async def up(self) -> None:
        await self._up.wait()

    def remember(self, payloads: Sequence[bytes]) -> None:
        """What it emitted the day before, when all was well."""
        self.remembered |= {*payloads}
        ledger = self._opened(self._book_in, NOON - timedelta(days=1))
        self.book.compare(ledger)
        for payload in payloads:
            ledger.append(payload, NOON - timedelta(days=1), payload)
        ledger.close()

    async def supervise(self) -> None:
        """Starts it again whenever it has ended; runs until cancelled."""
        while True:
            self._maybe_process = asyncio.create_task(self._serve())
            await asyncio.wait([self._maybe_process])
            if not self._maybe_process.cancelled():
                self._maybe_process.result()  # raises what must not end it
            await self._may_start.wait()
            await self._let_die()
            self.world.tell("OMEN is down")
            await self.world.pause(0.01, 0.2)

    def handle(self, call: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A call that this process answers, and that dies with it."""
        task = asyncio.create_task(call)
        self._calls[task] = None
        task.add_done_callback(lambda _: self._calls.pop(task, None))
        return task

    async def stop(self) -> None:
        """As by SIGTERM."""
        self._stop.set()
        await asyncio.wait([self._maybe_process] if self._maybe_process else [])

    async def die(self, *, loses_power: bool) -> None:
        """As by kill -9: what was written may be durable or not, and nothing else is left."""
        async with self._dead():
            if loses_power:
                self._disk = self._disk.lose_power(self._next_root())

    def copy(self) -> None:
        """Of the files as they lie there."""
        if self._maybe_copy is None:
            path = crash_image(self._disk.root, self._directory / "copy")
            self._maybe_copy = path, set(self.book.unreadable)

    async def set_back(self) -> bool:
        """Puts the copy in the place of the ledger; False when there is none."""
        if self._maybe_copy is None:
            return False
        (copy, damaged_then), self._maybe_copy = self._maybe_copy, None
        async with self._dead():
            self._disk = LedgerDisk.holding(self.world, copy.rename(self._next_root()))
            self.book.set_back(damaged_then)
        return True

    def damage(self, partition: str) -> bool:
        """A bit of a record whose segment has a successor, so that it is known to have been durable."""
        last = {held.partition: held.segment_id for held in self.book.records}
        old = [
            each for each in self.book.readable if each.partition == partition and each.segment_id != last[partition]
        ]
        if not old:
            return False
        lasts = [each for each in old if self.book.maybe_held(each.segment_id, each.place[2] + 1) is None]
        victim = self.world.chance.choice(self.world.chance.choice([old, lasts]))
        path = segment_path(self._disk.root, partition, victim.sequence >> 32)
        data = path.read_bytes()
        if data.count(victim.payload) != 1:
            return False
        self._disk.rot(path, data.index(victim.payload) + self.world.chance.randrange(len(victim.payload)))
        self.book.unreadable.add(victim.place)
        return True

    def verify(self) -> None:
        """Finds the rot that nobody has come upon."""
        for name in self.book.partitions:
            for _ in self.journal._ledger.reader().verify(name):
                pass

    def put(self, payload: bytes, days_ago: int) -> Request:
        """Into the ledger past the checks, as an OMEN with others would have done."""
        request = Request(1, waits_for_riskcast=False)
        emitted_at = NOON - timedelta(days=days_ago)
        self.journal.append([Append(payload, emitted_at, said(payload).signal_id or "-", "", request)])
        return request

    async def _serve(self) -> None:
        self._stop.clear()
        try:
            async with self._opened_journal() as journal, open_delivery_file(self.database.path) as file:
                self._compose(journal, await PauseSwitch.of(file), await DeadLetters.of(file))
                await self.delivery.survey()
                self.world.tell("OMEN is up")
                self._up.set()
                await first_of(self.delivery.run(), self._until_failed(journal), self._stop.wait())
                self._up.clear()
                self.delivery.stop_waiting("OMEN stops")
                if self._calls:
                    await asyncio.wait(list(self._calls))
        except (LedgerError, DeliveryFileUnreadable, ContractError, sqlite3.Error) as refused:
            self.world.tell(f"OMEN does not start: {refused}")

    async def _until_failed(self, journal: Journal) -> None:
        self.world.tell(f"the ledger has failed: {await journal.failure()}")

    def _compose(self, journal: Journal, pause: PauseSwitch, letters: DeadLetters) -> None:
        """As app.py does it."""
        now, metrics = self.world.now, self._metrics[0]
        waiting, recent = WaitingRoom(), RecentSignals(RECENT_MAX)
        jitter = Random(self.world.chance.randrange(1 << 32))
        line = self.line = self._dial()
        contact = Contact(cast("Line", line), Breaker(BREAKER_OPEN_S), RetryPolicy(), jitter, metrics)
        settling = Settling(journal, waiting, recent, pause, letters, in_doubt, now)
        self.delivery = Delivery(
            journal,
            cast("Line", line),
            contact,
            settling,
            waiting,
            recent,
            pause,
            letters,
            now=now,
            metrics=metrics,
        )
        self.journal, self.pause, self.letters = journal, pause, letters
        self.emitter = Emitter(journal, recent, self.delivery, now=now)
        self.ledger_service = LedgerService(journal, letters, cast("Retention", None))

    @asynccontextmanager
    async def _opened_journal(self) -> AsyncIterator[Journal]:
        """As open_journal, on the world's disk and clock."""
        journal = Journal(asyncio.get_running_loop(), SETTINGS, self._metrics[1])

        def on_commit(results: Sequence[tuple[object, Position | LedgerError]], written_at: int) -> None:
            self._book_in([(cast("Append", append).payload, result) for append, result in results], written_at)
            journal._on_commit(results, written_at)

        journal._ledger = self._opened(on_commit)
        announce(journal._ledger.recovered)
        self.book.compare(journal._ledger)
        self._disk.is_serving = True
        try:
            yield journal
        finally:
            self._disk.is_serving = False
            if not self._disk.is_dead:
                journal._ledger.close()

    def _opened(self, on_commit: Any, now: Any = None) -> Ledger:
        clock = (lambda: now) if now else self.world.now
        ledger = Ledger.open(self._disk.root, on_commit=on_commit, settings=SETTINGS, disk=self._disk, now=clock)
        cast("Flusher", ledger._flusher).on_death = self._died
        self._maybe_ledger = ledger
        return ledger

    def _died(self) -> None:
        """In the middle of a commit."""
        self.world.tell("OMEN died in a commit")
        if self._maybe_process:
            self._maybe_process.cancel()

    def _book_in(self, results: Sequence[tuple[object, Position | LedgerError]], written_at: int) -> None:
        """The ledger says that these are durable: are they?"""
        for payload, position in results:
            if not isinstance(position, Position):
                continue
            assert isinstance(payload, bytes)
            self.book.enter(position, payload)
            self._check_durable(position.partition, position.sequence)

    def _check_durable(self, partition: str, sequence: int) -> None:
        """A power cut would leave it."""
        assert self._maybe_ledger
        ordinal = sequence >> 32
        maybe_live = self._maybe_ledger._committer._live.get(partition)
        byte_length = maybe_live.byte_length if maybe_live and maybe_live.info.ordinal == ordinal else 0
        if not self._disk.is_durable(segment_path(self._disk.root, partition, ordinal), byte_length):
            self.world.flaw(f"H1 {partition} {sequence:#x}: acknowledged, and not durable")

    @asynccontextmanager
    async def _dead(self) -> AsyncIterator[None]:
        """Nothing of it runs within, nor is started again."""
        self._may_start.clear()
        self._disk.die()
        await self._let_die()
        yield
        self._may_start.set()

    async def _let_die(self) -> None:
        """Until nothing of it runs any more."""
        self._up.clear()
        if self._maybe_ledger:
            cast("Flusher", self._maybe_ledger._flusher).kill()
        dying = [*self._calls, *([self._maybe_process] if self._maybe_process else [])]
        with self.database.cut_off():
            while left := [task for task in dying if not task.done()]:
                for task in left:
                    task.cancel()
                await asyncio.wait(left, timeout=0.01)
        if self._maybe_ledger:
            self._maybe_ledger._house.lock.release()
            self._maybe_ledger = None
        self._disk.outlive_process()

    def _next_root(self) -> Path:
        self._disks_count += 1
        return self._directory / f"ledger-{self._disks_count}"


async def in_doubt(signal_id: str) -> bool:
    """There is no index here: whether a signal is in the ledger is not known."""
    return False
