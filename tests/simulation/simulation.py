"""One seed, from its number to a report.

world          chance, the clock, what happened, what may go wrong; clockwork makes time pass
omen           the real one but for its sockets and threads; ledger_disk and flusher lie under its ledger
riskcast       the real one but for its sockets; disk lies under its database, network before its door
line           how an OMEN reaches RiskCast; ledger_client is the way back, which Reconcile takes
emitting       who emits; clients: who ingests and who reconciles; people: who pauses, redrives and seals
misfortune     what goes wrong by itself or is done by people who mean well
witness        compares each answer with truth, which is the database's file, in the moment it is given
book           what each ledger is known to hold
story, verdict what happens in which order, and what must hold in the end
"""

import asyncio
import gc
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, cast
from unittest.mock import patch

import structlog

from contract.validation import EVENT
from omen_server.delivery import contact, failing, follow, newest, sending, settling, stream
from omen_server.reading import replay
from riskcast_server import committer
from riskcast_server.ledger_client import LedgerClient
from riskcast_server.store import rows
from riskcast_server.store.sqlite import store
from tests.simulation import clockwork
from tests.simulation.catalogue import Catalogue, violations
from tests.simulation.disk import CUT, Disk, mounted
from tests.simulation.flusher import threadless
from tests.simulation.ledger_client import SimulatedLedgerClient
from tests.simulation.network import Network
from tests.simulation.omen import Omen
from tests.simulation.riskcast import Riskcast
from tests.simulation.story import Story
from tests.simulation.truth import Truth
from tests.simulation.witness import Witness
from tests.simulation.world import Fault, Sight, World

OMENS = (1, 1, 2)
OLD_RECORDS_MAX = 12  # of the day before
LAST_STEPS = 30
IN_MEMORY = Path("/dev/shm")  # where there is such a place: a sync costs nothing there


@dataclass(frozen=True)
class Report:
    seed: int
    digest: str  # of the trace
    flaws: list[str]
    trace: list[str]
    faults: Counter[Fault]
    seen: Counter[Sight]
    operation_count: int

    def __str__(self) -> str:
        return f"seed {self.seed}: {'; '.join(self.flaws) or 'no flaws'}\n{ending(self.trace)}"


def simulated(seed: int) -> Report:
    """Lives through one seed. The same seed gives the same report, in every process."""
    with ExitStack() as stack:
        stack.enter_context(_one_collection())
        stack.enter_context(patch.object(EVENT, "violations", violations))
        directory = stack.enter_context(tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None))
        world = World(Random(seed), directory)
        stack.enter_context(_small_limits())
        stack.enter_context(_heard(world))
        try:
            clockwork.run(lambda: _live(world, Path(directory)), world.chance)
        except BaseException as error:
            error.add_note(f"seed {seed}\n{ending(world.trace)}")
            raise
    return Report(seed, world.digest(), world.flaws, world.trace, world.faults, world.seen, world.operation_count)


def ending(trace: list[str]) -> str:
    return "\n".join(trace[-LAST_STEPS:])


async def _live(world: World, directory: Path) -> None:
    asyncio.get_running_loop().set_exception_handler(_unhandled(world))
    disk = Disk(world, directory / "riskcast.db")
    clients: list[SimulatedLedgerClient] = []
    riskcast = Riskcast(world, disk, cast("list[LedgerClient]", clients))
    network = Network(world, riskcast)
    truth = Truth(disk.path)
    witness = Witness(world, riskcast, truth, clients)
    omens = [
        Omen(world, directory / f"omen-{number}", network, witness.deliver)
        for number in range(world.chance.choice(OMENS))
    ]
    machines: list[Riskcast | Omen] = [riskcast, *omens]
    clients += [SimulatedLedgerClient(world, omen) for omen in omens]
    with mounted(disk, *(omen.database for omen in omens)), threadless(world):
        catalogue = Catalogue(world.chance)
        for omen in omens:
            omen.remember([catalogue.fresh() for _ in range(world.chance.randint(1, OLD_RECORDS_MAX))])
        processes = [asyncio.create_task(each.supervise()) for each in machines]
        await asyncio.gather(*(each.up() for each in machines))
        world.has_begun = True
        try:
            await Story(world, riskcast, truth, network, witness, omens, catalogue).tell()
            gc.collect()  # so that what nobody waited for is told while somebody listens
        finally:
            for process in processes:
                process.cancel()
            await riskcast.crash()
            for omen in omens:
                await omen.die(loses_power=False)
            truth.close()


def _unhandled(world: World) -> Any:
    """What asyncio only logs, since nobody waits for it, is a flaw here; not so what a dead process was about to do."""

    def note(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if loop.is_running() and str(context.get("exception")) != CUT:
            world.flaw(f"{context['message']}: {context.get('exception')!r}")

    return note


@contextmanager
def _one_collection() -> Iterator[None]:
    """Garbage of this seed alone is looked for, once and at a moment that repeats."""
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.enable()


@contextmanager
def _small_limits() -> Iterator[None]:
    """So that a few hundred records reach them."""
    with (
        patch.multiple(committer, QUEUE_RECORDS_MAX=16, BATCH_RECORDS_MAX=16),
        patch.multiple(store, ROWS_PER_STATEMENT=8, BLOCK_RECORDS=2),
        patch.object(rows, "SEGMENTS_PER_STATEMENT", 5),
        patch.object(follow, "BATCH_ITEMS_MAX", 8),
        patch.object(sending, "BATCH_ITEMS_MAX", 8),
        patch.multiple(failing, BATCH_ITEMS_MAX=8, RETRY_MAX_S=8.0),
        patch.object(replay, "BATCH_ITEMS_MAX", 6),
        patch.object(newest, "BYTES_MAX", 4000),
        patch.object(settling, "REJECTIONS_IN_A_ROW_MAX", 3),
        patch.multiple(stream, ANSWER_TIMEOUT_S=1.0, READ_RETRY_S=0.1),
        patch.multiple(contact, HELLO_TIMEOUT_S=0.5, HELLO_TIMEOUT_MAX_S=4.0, HELD_RETRY_S=0.5),
    ):
        yield


@contextmanager
def _heard(world: World) -> Iterator[None]:
    """What is logged is part of the trace."""
    before = structlog.get_config()["processors"]
    structlog.configure(processors=[world.hear])
    try:
        yield
    finally:
        structlog.configure(processors=before)
