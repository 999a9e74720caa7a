"""Pruning: a partition's records are given up once RiskCast says that all of them are settled, or for a stated reason.

Never by itself: only PrunePartition leads here. What is sealed, whole and settled is decided anew for each partition.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING

import grpc
import structlog

from contract.errors import ContractError, ErrorDetails, Reason
from ledger import PartitionInfo, Pruned, Seal
from ledger.times import moment_of
from omen_server.delivery import Delivery
from omen_server.journal import Journal
from omen_server.signal_index import SignalIndex
from riskcast.v1 import reconcile_service_pb2 as pb
from serving.tasks import each_on_a_thread

if TYPE_CHECKING:  # at run time there is one stub class for both kinds of channels
    from riskcast.v1.reconcile_service_pb2_grpc import ReconcileServiceAsyncStub

ASK_TIMEOUT_S = 5.0
INDEX_WAIT_S = 2.0  # a healthy one forgets a day within milliseconds; a sick one forgets it when it can

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Given:
    """What was given up, or would be. `run_id` is empty when RiskCast was not asked."""

    byte_count: int
    run_id: str


class Retention:
    def __init__(
        self, journal: Journal, index: SignalIndex, delivery: Delivery, stub: "ReconcileServiceAsyncStub"
    ) -> None:
        self._journal = journal
        self._index = index
        self._delivery = delivery
        self._stub = stub
        self._turn = asyncio.Lock()  # one at a time: each re-reads a whole partition

    async def preview(self, info: PartitionInfo, unsettled_reason: str) -> Given:
        """What prune() would give up, by all that is known without reading the records.

        Raises ContractError: NOT_SEALED, NOT_SETTLED, LEDGER_DAMAGED, LEDGER_UNAVAILABLE.
        """
        with self._journal.answered():
            byte_count = await self._journal.read(lambda ledger: ledger.prunable_bytes(info.name))
        needs_asking = not (info.is_pruned or unsettled_reason)
        return Given(byte_count, await self._settled_by(info) if needs_asking else "")

    async def prune(self, info: PartitionInfo, unsettled_reason: str) -> Given:
        """Gives the records up, for good. Raises as preview() does, and LEDGER_FULL, SHUTTING_DOWN."""
        async with self._turn:
            given = await self.preview(info, unsettled_reason)
            if given.byte_count or not info.is_pruned:
                await self._prune(info, given, unsettled_reason)
        return given

    async def _prune(self, info: PartitionInfo, given: Given, unsettled_reason: str) -> None:
        named = log.bind(partition=info.name, records=info.record_count, run_id=given.run_id)
        if unsettled_reason:  # said before: whoever asked may leave, and the rest goes on
            named.warning("partition_given_up_unsettled", reason=unsettled_reason)
        with self._journal.answered():
            steps = await self._journal.read(lambda ledger: ledger.prune(info.name))
            async for step in each_on_a_thread(steps):
                if isinstance(step, Pruned):
                    named.info("partition_pruned", bytes=step.bytes_removed)
        self._delivery.forget(info.name)
        await self._index.caught_up(INDEX_WAIT_S)  # whoever is answered finds none of its signals any more

    async def _settled_by(self, info: PartitionInfo) -> str:
        """The run of Reconcile that says so. Raises NOT_SETTLED."""
        assert info.seal is not None, "it was found to be sealed"
        state = await self._last_state(info.name)
        if state is None:
            raise not_settled(info.name, "RiskCast has never reconciled it")
        if flaw := flaw_of(state, info.seal):
            raise not_settled(info.name, flaw)
        return state.run_id

    async def _last_state(self, partition: str) -> pb.ReconcileState | None:
        request = pb.ListReconcileStatesRequest(ledger_id=self._journal.ledger_id, partition=partition, page_size=1)
        try:
            answer = await self._stub.ListReconcileStates(request, timeout=ASK_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            rich = ErrorDetails.from_trailing_metadata(error.trailing_metadata())
            raise not_settled(
                partition, f"RiskCast does not tell: {rich.reason if rich else error.code().name}"
            ) from error
        return next(iter(answer.states), None)


def flaw_of(state: pb.ReconcileState, seal: Seal) -> str:
    """Why this state does not show that RiskCast has settled what was sealed; "" when it does."""
    if state.status != pb.RECONCILE_STATUS_COMPLETED:
        name = pb.ReconcileStatus.Name(state.status).removeprefix("RECONCILE_STATUS_")
        return f"its last Reconcile ended {name}: {state.reason}"
    if state.finished_at.ToDatetime(UTC) <= moment_of(seal.sealed_at):
        return "it was reconciled last before it was sealed"
    counted = state.ledger_record_count, state.highwater_sequence, state.failed_record_count
    if counted != (seal.total_records, seal.highwater_sequence, 0):
        return f"RiskCast counted {counted[0]} records up to {counted[1]}, {counted[2]} of them failed"
    return ""


def not_settled(partition: str, because: str) -> ContractError:
    message = f"{partition} may hold what RiskCast has not settled: {because}"
    return ContractError(Reason.NOT_SETTLED, message, metadata={"partition": partition})
