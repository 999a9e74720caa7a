"""An OMEN as RiskCast's Reconcile reaches it: the public surface of riskcast_server.ledger_client.LedgerClient, over
OMEN's own LedgerService."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any, cast

from contract.errors import ContractError
from contract.limits import PAGE_SIZE_MAX
from omen.v1.ledger_record_pb2 import LedgerRecord, SegmentRanges
from omen.v1.ledger_service_pb2 import (
    GetPartitionRequest,
    GetPartitionResponse,
    ListPartitionsRequest,
    ReplayRequest,
)
from riskcast_server.ledger_client import LedgerBroke, LedgerClient, Survey
from tests.simulation.omen import Omen
from tests.simulation.world import Fault, World

NOBODY: Any = None  # who calls: the handlers used here ask nothing of it


class SimulatedLedgerClient:
    """`told` holds, by partition, what was told last of its segments: by that a comparison is to be judged."""

    def __init__(self, world: World, omen: Omen) -> None:
        self._world = world
        self.omen = omen
        self.target = "simulated"
        self.ledger_id = ""  # as it was told last
        self.told: dict[str, GetPartitionResponse] = {}

    async def survey(self) -> Survey:
        await self._world.travel()
        client = cast("LedgerClient", self)
        if not self.omen.is_up or self._world.happens(Fault.LEDGER_UNREACHABLE):
            return Survey(client, self.ledger_id, failure="UNAVAILABLE: it cannot be read")
        try:
            request = ListPartitionsRequest(page_size=PAGE_SIZE_MAX)
            answer = await self.omen.ledger_service.ListPartitions(request, NOBODY)
        except ContractError as error:
            return Survey(client, self.ledger_id, failure=f"{error.reason}: {error.message}")
        self.ledger_id = answer.ledger_id
        listed = {each.partition for each in answer.partitions}
        self.told = {name: told for name, told in self.told.items() if name in listed}  # one set back may lack days
        return Survey(client, self.ledger_id, answer.partitions)

    async def partition(self, name: str) -> GetPartitionResponse:
        await self._world.travel()
        self._break_maybe(Fault.LEDGER_SILENT)
        try:
            answer = await self.omen.ledger_service.GetPartition(GetPartitionRequest(partition=name), NOBODY)
        except ContractError as error:
            raise LedgerBroke(error.reason, error.message) from error
        self.told[name] = answer
        await self._world.travel()
        return answer

    async def replay(self, name: str, ranges: Sequence[SegmentRanges]) -> AsyncGenerator[Sequence[LedgerRecord], None]:
        await self._world.travel()
        self._break_maybe(Fault.REPLAY_BROKEN)
        service = self.omen.ledger_service
        try:
            async for answer in service.Replay(ReplayRequest(partition=name, ranges=ranges), NOBODY):
                await self._world.travel()
                self._break_maybe(Fault.REPLAY_BROKEN)
                if self.omen.ledger_service is not service:
                    raise LedgerBroke("UNAVAILABLE", "the connection was reset")
                yield answer.records
        except ContractError as error:
            raise LedgerBroke(error.reason, error.message) from error

    def _break_maybe(self, fault: Fault) -> None:
        if not self.omen.is_up or self._world.happens(fault):
            raise LedgerBroke("UNAVAILABLE", "the connection was reset")
