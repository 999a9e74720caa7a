"""One seed, from its number to a report.

world          chance, the clock, what happened, what may go wrong; clockwork makes time pass
ledger, omen   ledgers in memory, and the OMENs that emit into them and deliver from them
riskcast       the real one but for its sockets; disk lies under its database, network before its door
clients        who ingests and who reconciles
misfortune     what goes wrong by itself or is done by people
witness        compares each answer with truth, which is the database's file, in the moment it is given
story, verdict what happens in which order, and what must hold in the end
"""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import structlog

from riskcast_server import committer
from riskcast_server.store import rows
from riskcast_server.store.sqlite import store
from tests.riskcast_server.simulation import clockwork
from tests.riskcast_server.simulation.disk import Disk
from tests.riskcast_server.simulation.ledger import SimulatedLedger
from tests.riskcast_server.simulation.ledger_reader import LedgerReader
from tests.riskcast_server.simulation.riskcast import Riskcast
from tests.riskcast_server.simulation.story import Story
from tests.riskcast_server.simulation.truth import Truth
from tests.riskcast_server.simulation.world import Fault, Sight, World

LEDGERS = 2
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
    world = World(Random(seed))
    with ExitStack() as stack:
        stack.enter_context(_small_limits())
        stack.enter_context(_heard(world))
        directory = stack.enter_context(tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None))
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
    readers = [LedgerReader(world, SimulatedLedger(world)) for _ in range(LEDGERS)]
    disk = Disk(world, directory / "riskcast.db")
    riskcast = Riskcast(world, disk, readers)
    with disk.mounted():
        supervisor = asyncio.create_task(riskcast.supervise())
        await riskcast.up()
        truth = Truth(disk.path)
        try:
            await Story(world, riskcast, truth, readers).tell()
        finally:
            supervisor.cancel()
            await riskcast.crash()
            truth.close()


def _unhandled(world: World) -> Any:
    """What asyncio only logs, since nobody waits for it, is a flaw here."""
    return lambda loop, context: world.flaw(f"{context['message']}: {context.get('exception')!r}")


@contextmanager
def _small_limits() -> Iterator[None]:
    """So that a few hundred records reach them."""
    with (
        patch.multiple(committer, QUEUE_RECORDS_MAX=16, BATCH_RECORDS_MAX=16),
        patch.multiple(store, ROWS_PER_STATEMENT=8, BLOCK_RECORDS=2),
        patch.object(rows, "SEGMENTS_PER_STATEMENT", 5),
    ):
        yield


@contextmanager
def _heard(world: World) -> Iterator[None]:
    """RiskCast's log is part of the trace."""
    before = structlog.get_config()["processors"]
    structlog.configure(processors=[world.hear])
    try:
        yield
    finally:
        structlog.configure(processors=before)
