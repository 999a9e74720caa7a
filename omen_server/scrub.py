"""Re-reads the whole ledger, slowly and for ever, so that rot is known before anybody needs what it hit.

Finished segments are trusted by their FOOTER when the ledger is opened: this is who checks that trust.
"""

import asyncio

import structlog

from ledger.checking.verify import Damage, Progress
from omen_server.journal import Journal
from omen_server.tasks import each_on_a_thread

log = structlog.get_logger()

BYTES_PER_S = 4 * 1024 * 1024  # about one part in a hundred of a core; 10 GB take 40 minutes
PAUSE_S = 3600.0  # between two rounds

Segment = tuple[str, int]  # partition, ordinal


async def scrub(journal: Journal, bytes_per_s: float = BYTES_PER_S, pause_s: float = PAUSE_S) -> None:
    """Runs until cancelled. Tells of each damaged segment once; GetPartition names all that is damaged in it."""
    told: set[Segment] = set()
    while True:
        for info in await journal.partitions():
            try:
                await _scrub_partition(journal, info.name, bytes_per_s, told)
            except OSError as error:  # a disk that cannot be read now may be later; what it holds is not lost by that
                log.warning("scrub_interrupted", partition=info.name, error=error.strerror)
        await asyncio.sleep(pause_s)


async def _scrub_partition(journal: Journal, partition: str, bytes_per_s: float, told: set[Segment]) -> None:
    read = 0
    async for found in each_on_a_thread(await journal.verification(partition)):
        if isinstance(found, Damage) and (found.partition, found.ordinal) not in told:
            told.add((found.partition, found.ordinal))
            log.error(
                "ledger_damage_found",
                partition=found.partition,
                ordinal=found.ordinal,
                first_sequence=found.sequence,
                description=found.description,
            )
        elif isinstance(found, Progress):
            await asyncio.sleep((found.bytes_read - read) / bytes_per_s)
            read = found.bytes_read
