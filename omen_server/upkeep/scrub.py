"""Re-reads the whole ledger, slowly and for ever, so that rot is known before anybody needs what it hit.

Finished segments are trusted by their FOOTER when the ledger is opened: this is who checks that trust.
"""

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from ledger import LedgerError
from ledger.checking.verify import Damage, Progress
from omen_server.journal import Journal
from omen_server.metrics import ScrubMetrics
from serving.tasks import each_on_a_thread

log = structlog.get_logger(__name__)

BYTES_PER_S = 4 * 1024 * 1024  # about one part in a hundred of a core; 10 GB take 40 minutes
PAUSE_S = 3600.0  # between two rounds

Segment = tuple[str, int]  # partition, ordinal


async def scrub(
    journal: Journal,
    chance: random.Random,
    metrics: ScrubMetrics | None = None,
    bytes_per_s: float = BYTES_PER_S,
    pause_s: float = PAUSE_S,
) -> None:
    """Runs until cancelled. Tells of each damaged segment once; GetPartition names all that is damaged in it.

    The first round begins anywhere: a process that is restarted before a round ends still reaches all days in time.
    """
    told: set[Segment] = set()
    counted = metrics or ScrubMetrics()
    names = [info.name for info in await journal.partitions()]
    start = chance.randrange(len(names)) if names else 0
    names = names[start:] + names[:start]
    while True:
        for name in names:
            with interruptions_logged(name, counted):
                await _scrub_partition(journal, name, bytes_per_s, told, counted)
        with interruptions_logged("SEALs", counted):
            async for damage in each_on_a_thread(await journal.chain()):
                _tell(damage, told)
        counted.round_done()
        await asyncio.sleep(pause_s)
        names = [info.name for info in await journal.partitions()]


@contextmanager
def interruptions_logged(what: str, metrics: ScrubMetrics) -> Iterator[None]:
    """What cannot be read now may be later, or by another program; nothing is lost by that, and the rest is read."""
    try:
        yield
    except (OSError, LedgerError) as error:
        metrics.interrupted()
        path = error.filename if isinstance(error, OSError) else None
        log.warning("scrub_interrupted", partition=what, path=path, error=str(error))


async def _scrub_partition(
    journal: Journal, partition: str, bytes_per_s: float, told: set[Segment], metrics: ScrubMetrics
) -> None:
    read = 0
    async for found in each_on_a_thread(await journal.verification(partition)):
        if isinstance(found, Damage):
            _tell(found, told)
        elif isinstance(found, Progress):
            await asyncio.sleep((found.bytes_read - read) / bytes_per_s)
            metrics.read_bytes(found.bytes_read - read)
            read = found.bytes_read


def _tell(damage: Damage, told: set[Segment]) -> None:
    if (damage.partition, damage.ordinal) in told:
        return
    told.add((damage.partition, damage.ordinal))
    log.error(
        "ledger_damage_found",
        partition=damage.partition,
        ordinal=damage.ordinal,
        first_sequence=damage.sequence,
        description=damage.description,
    )
