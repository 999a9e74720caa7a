"""Seals what is due, beside everything else. A day that nobody seals would still end by the clock; sealed, it is proved
by one digest, and no record can be added to it unseen."""

import asyncio
from collections.abc import Callable
from datetime import datetime

import structlog

from contract.errors import ContractError
from omen_server.journal import Journal

log = structlog.get_logger(__name__)

CHECK_INTERVAL_S = 60.0  # days fall due by the hour


async def seal_due(journal: Journal, now: Callable[[], datetime], check_interval_s: float = CHECK_INTERVAL_S) -> None:
    """Runs until cancelled. A partition that refuses is tried again at every check, and told of once per reason."""
    refusals: dict[str, str] = {}
    while True:
        for partition in journal.due_partitions(now()):
            await _seal(journal, partition, refusals)
        await asyncio.sleep(check_interval_s)


async def _seal(journal: Journal, partition: str, refusals: dict[str, str]) -> None:
    try:
        seal = await journal.seal(partition)
    except ContractError as error:
        if refusals.get(partition) != error.reason:
            log.error("partition_not_sealed", partition=partition, reason=error.reason, detail=error.message)
        refusals[partition] = error.reason
    else:
        refusals.pop(partition, None)
        log.info(
            "partition_sealed",
            partition=partition,
            records=seal.total_records,
            number=seal.seal_number,
            sha256=seal.sha256,
        )
