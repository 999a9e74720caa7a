"""Pruning: a partition's records are given up once RiskCast says that all of them are settled, or for a stated reason.

Never by itself: only PrunePartition leads here. What is sealed, whole and settled is decided anew for each partition,
at first so that nothing is read in vain, and in the end in the moment of giving it up.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import structlog

from contract.errors import ContractError
from ledger import PartitionInfo, Pruned
from ledger.checking.verify import Progress, Verified
from omen_server.dead_letters import DeadLetters
from omen_server.delivery import Delivery
from omen_server.journal import Journal
from omen_server.reading.signal_index import SignalIndex
from omen_server.upkeep.settlement import Settlement
from serving.tasks import each_on_a_thread, to_its_end

INDEX_WAIT_S = 2.0  # a healthy one forgets a day within milliseconds; a sick one forgets it when it can

Steps = Iterator[Progress | Verified | Pruned]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Given:
    """What was given up, or would be. `run_id` is empty when RiskCast was not asked."""

    byte_count: int
    run_id: str


class Retention:
    def __init__(
        self,
        journal: Journal,
        index: SignalIndex,
        delivery: Delivery,
        letters: DeadLetters,
        settlement: Settlement,
        *,
        now: Callable[[], datetime],
    ) -> None:
        self._journal = journal
        self._index = index
        self._delivery = delivery
        self._letters = letters
        self._settlement = settlement
        self._now = now
        self._turn = asyncio.Lock()  # one at a time: each re-reads a whole partition

    async def survey(self) -> None:
        """Dead letters of what was pruned before are given up, should a crash have come between."""
        for info in await self._journal.partitions():
            if info.is_pruned:
                with suppress(ContractError):  # delivery.db takes nothing now, and has said so
                    async with self._letters.pruning(info.name, given_up_with(info, ""), self._now()):
                        pass

    async def preview(self, info: PartitionInfo, unsettled_reason: str) -> Given:
        """What prune() would give up, by all that is known without reading the records.

        Raises ContractError: NOT_SEALED, NOT_SETTLED, LEDGER_DAMAGED, LEDGER_UNAVAILABLE.
        """
        with self._journal.answered():
            byte_count = await self._journal.read(lambda ledger: ledger.prunable_bytes(info.name))
        needs_asking = not (info.is_pruned or unsettled_reason)
        return Given(byte_count, await self._settlement.settled_by(info) if needs_asking else "")

    async def prune(self, info: PartitionInfo, unsettled_reason: str) -> Given:
        """Gives the records up, for good; said once more, what was left undone. Raises as preview() does, and
        LEDGER_FULL, SHUTTING_DOWN."""
        async with self._turn:
            now = await self._journal.read(lambda ledger: ledger.partition(info.name))  # it may have waited
            given = await self.preview(now, unsettled_reason)
            await self._prune(now, given, unsettled_reason)
        return given

    async def _prune(self, info: PartitionInfo, given: Given, unsettled_reason: str) -> None:
        with self._journal.answered():
            steps = await self._journal.read(lambda ledger: ledger.prune(info.name))
            if not info.is_pruned:
                await self._ready(info, steps, unsettled_reason)
            await to_its_end(self._give_up(info, steps, given, unsettled_reason))
        await self._index.caught_up(INDEX_WAIT_S)  # whoever is answered finds none of its signals any more

    async def _ready(self, info: PartitionInfo, steps: Steps, unsettled_reason: str) -> None:
        """To where the next step gives it up. Whoever leaves by then has changed nothing."""
        async for step in each_on_a_thread(steps):
            if isinstance(step, Verified):
                break
        if unsettled_reason:
            named = log.bind(partition=info.name, records=info.record_count)
            named.warning("partition_given_up_unsettled", reason=unsettled_reason)
        else:
            await self._settlement.settled_by(info)  # reading may have taken minutes

    async def _give_up(self, info: PartitionInfo, steps: Steps, given: Given, unsettled_reason: str) -> None:
        """What is given up in the ledger is told to everybody else, though whoever asked has left."""
        bytes_removed = 0
        async with self._letters.pruning(info.name, given_up_with(info, unsettled_reason), self._now()):
            if not (info.is_pruned or unsettled_reason):
                self._settlement.without_letters(info)  # one may have been redriven in the meantime
            await asyncio.to_thread(next, steps)
            self._delivery.forget(info.name)
        async for step in each_on_a_thread(steps):
            if isinstance(step, Pruned):
                bytes_removed = step.bytes_removed
        if bytes_removed or not info.is_pruned:
            named = log.bind(partition=info.name, records=info.record_count, run_id=given.run_id)
            named.info("partition_pruned", bytes=bytes_removed)


def given_up_with(info: PartitionInfo, unsettled_reason: str) -> str:
    """Why its dead letters are."""
    return f"{info.name} was pruned: {unsettled_reason}" if unsettled_reason else f"{info.name} was pruned"
