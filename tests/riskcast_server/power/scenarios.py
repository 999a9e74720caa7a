"""What RiskCast's store was doing when the power went: seeded runs, each written down from its first open."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random

from contract.errors import ContractError
from omen.v1.signal_event_pb2 import SignalEvent
from omen.v1.signal_pb2 import Signal
from riskcast.v1.signal_service_pb2 import ARRIVAL_PATH_INGEST
from riskcast_server.committer import Committer, committing
from riskcast_server.settlement import Candidate, Entry, Position, Refused
from riskcast_server.store import Store, StoreRefused, open_store
from tests.power.operations import Image, Operation, Recording, Written
from tests.power.recorder import Recorder
from tests.riskcast_server.events import DAY, LEDGER, NOON
from tests.riskcast_server.power.recording import Answered, Submitted, opened_recorded, recorded_files
from tests.riskcast_server.running import database, url
from tests.riskcast_server.test_settlement import BAD, good

SEGMENTS = [bytes([number] * 16) for number in (1, 2)]
DESCRIPTION_BYTES = (0, 300, 1500, 5000)  # several rows to a page, and rows over several pages
CHECKPOINT_PAGES = (1, 8, 40)  # after every commit, in the middle, at closing alone
NEVER = 1_000_000
FRAME_HEADER_BYTES = 24  # https://sqlite.org/fileformat2.html#walformat


class Run:
    """One directory under one recorder, opened as often as need be."""

    def __init__(self, root: Path, chance: Random, start: Image | None = None) -> None:
        self.chance = chance
        self.recorder = Recorder(root, start)
        self.submitted: list[Entry] = []  # by the ledger's places: what a ledger holds does not change
        self._directory = root
        self._seconds = 0

    @asynccontextmanager
    async def opened(self, checkpoint_pages: int | None = None) -> AsyncIterator["Caller"]:
        pages = checkpoint_pages or self.chance.choice(CHECKPOINT_PAGES)
        async with opened_recorded(self._directory, pages) as store, committing(store, self._now) as committer:
            yield Caller(self, store, committer)

    def batch(self) -> tuple[Entry, ...]:
        """One to four records, some of them not for the first time."""
        return tuple(self._entry() for _ in range(self.chance.randrange(1, 5)))

    def _entry(self) -> Entry:
        draw = self.chance.random()
        if self.submitted and draw < 0.2:
            return self.chance.choice(self.submitted)
        entry = self._new(draw)
        self.submitted.append(entry)
        return entry

    def _new(self, draw: float) -> Entry:
        candidates = [entry for entry in self.submitted if isinstance(entry, Candidate)]
        if draw < 0.3:
            return Refused(self._place(), "", BAD, b"bad")
        if candidates and draw < 0.45:  # the same signal again, further on in the ledger
            return replace(self.chance.choice(candidates), position=self._place(), path=good("", None).path)
        if candidates and draw < 0.55:
            return self._signal(self.chance.choice(candidates).signal_id, f"other {len(self.submitted)}")
        signal = self._signal(f"signal {len(self.submitted)}", "h")
        return from_a_client(signal) if draw < 0.7 else signal

    def _signal(self, name: str, digest: str) -> Candidate:
        """Its size is left to chance; its bytes are not, so they make no state new."""
        signal = Signal(description="x" * self.chance.choice(DESCRIPTION_BYTES))
        event = SignalEvent(signal_id=name, input_event_hash=digest, signal=signal).SerializeToString()
        return replace(good(name, None, digest), event=event, position=self._place())

    def _place(self) -> Position:
        index = len(self.submitted)
        segment, record = divmod(index, 8)
        return Position(LEDGER, DAY, SEGMENTS[segment % 2], (segment % 2 + 1) << 32 | (segment // 2 * 8 + record + 1))

    def _now(self) -> datetime:
        self._seconds += 1
        return NOON + timedelta(seconds=self._seconds)


def from_a_client(signal: Candidate) -> Candidate:
    """As unary Ingest hands it in: no ledger says where it stands."""
    return replace(signal, position=None, path=ARRIVAL_PATH_INGEST)


class Caller:
    """Hands batches to the committer of a store that is open."""

    def __init__(self, run: Run, store: Store, committer: Committer) -> None:
        self._run = run
        self._store = store
        self._committer = committer

    async def submit(self, entries: tuple[Entry, ...]) -> None:
        self._run.recorder.note(Submitted(entries))
        outcomes = await self._committer.submit(entries)
        self._run.recorder.note(Answered(entries, tuple(outcomes)))

    async def submit_batches(self, count: int) -> None:
        for _ in range(count):
            await self.submit(self._run.batch())
            if self._run.chance.randrange(3) == 0:  # as a hello does, which notes what was counted
                await self._store.coverage(LEDGER, SEGMENTS, counted_max=4)


Story = Callable[[Run], Coroutine[None, None, None]]


async def create(run: Run) -> None:
    async with run.opened() as caller:
        await caller.submit_batches(2)


async def settle(run: Run) -> None:
    async with run.opened(NEVER) as caller:
        await caller.submit_batches(6)


async def checkpoint(run: Run) -> None:
    async with run.opened(8) as caller:
        await caller.submit_batches(6)


async def reopen(run: Run) -> None:
    for _ in range(3):
        async with run.opened() as caller:
            await caller.submit_batches(2)


async def create_dying(run: Run) -> None:
    run.recorder.die_once(partial(is_as_long_as, run.chance.randrange(1, 100)))
    with suppress(ContractError, StoreRefused):  # what a caller sees of a death, and whoever opens
        await create(run)
    run.recorder.live_on()
    await create(run)


async def restart(run: Run) -> None:
    """Killed in the middle of anything."""
    for _ in range(2):
        end = len(run.recorder.recording.operations) + run.chance.randrange(1, 60)
        await restart_once(partial(is_as_long_as, end), run)


async def restart_before_a_sync(run: Run) -> None:
    """Killed with a commit that is written and not synced."""
    async with run.opened(NEVER) as caller:
        await caller.submit_batches(1)
    end = len(run.recorder.recording.operations) + run.chance.randrange(40)
    await restart_once(partial(is_before_a_sync, end), run)


async def restart_once(is_death: Callable[[list[Operation]], bool], run: Run) -> None:
    """Opened again with what was not synced still in the page cache, and asked again for what had no answer: by clients
    one by one, or by the ledger."""
    run.recorder.die_once(is_death)
    with suppress(ContractError, StoreRefused):
        async with run.opened() as caller:
            await caller.submit_batches(10)
    run.recorder.live_on()
    async with run.opened() as caller:
        for entry in run.submitted[-4:]:
            if isinstance(entry, Candidate):
                await caller.submit((run.chance.choice([entry, from_a_client(entry)]),))


def is_as_long_as(end: int, done: list[Operation]) -> bool:
    return len(done) >= end


def is_before_a_sync(start: int, done: list[Operation]) -> bool:
    """The last frame of a commit stands in the log: its header says how many pages the database has from then on."""
    match done[start:][-2:]:
        case [Written(data=header), Written()]:
            return len(header) == FRAME_HEADER_BYTES and any(header[4:8])
    return False


async def recover(run: Run) -> None:
    """Opens what there is and closes it, or dies on the way."""
    run.recorder.die_once(partial(is_as_long_as, run.chance.randrange(1, 60)))
    with suppress(ContractError, StoreRefused):
        async with run.opened():
            pass
    run.recorder.live_on()


def recorded(story: Story, root: Path, seed: int, start: Image | None = None) -> Recording:
    """From nothing where the story is how a store comes to be; else from an empty store, closed and synced."""
    if start is None:
        start = Image() if story in (create, create_dying) else empty_store(root)
    start.laid_out(root)
    run = Run(root, Random(seed), start)
    with recorded_files(run.recorder):
        asyncio.run(story(run))
    shutil.rmtree(root)
    return run.recorder.recording


def empty_store(root: Path) -> Image:
    root.mkdir()
    asyncio.run(_open_and_close(root))
    image = Image({database(root).name: database(root).read_bytes()})
    shutil.rmtree(root)
    return image


async def _open_and_close(root: Path) -> None:
    async with open_store(url(root)):
        pass
