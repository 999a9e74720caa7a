"""RiskCast's own word that all of a sealed partition is settled: what its last Reconcile found, and what it counts now.

Neither is enough. A run may be of long ago, and rows are lost since; a count does not know what the SEAL says.
"""

from datetime import UTC
from typing import TYPE_CHECKING

import grpc

from contract.coverage import Coverage
from contract.errors import ContractError, ErrorDetails, Reason
from ledger import PartitionInfo, Seal, SegmentInfo
from ledger.times import moment_of
from omen_server.dead_letters import DeadLetters
from omen_server.delivery.backlog import NOTHING, Segment
from omen_server.delivery.line import Line
from omen_server.delivery.stream import Disconnected, RiskCastStream, Told
from omen_server.journal import Journal
from riskcast.v1 import reconcile_service_pb2 as pb

if TYPE_CHECKING:  # at run time there is one stub class for both kinds of channels
    from riskcast.v1.reconcile_service_pb2_grpc import ReconcileServiceAsyncStub

ASK_TIMEOUT_S = 5.0


class Settlement:
    def __init__(self, journal: Journal, letters: DeadLetters, stub: "ReconcileServiceAsyncStub", line: Line) -> None:
        self._journal = journal
        self._letters = letters
        self._stub = stub
        self._line = line

    async def settled_by(self, info: PartitionInfo) -> str:
        """The run of Reconcile that says so, as RiskCast counts it still. Raises ContractError NOT_SETTLED."""
        assert info.seal is not None, "it was found to be sealed"
        state = await self._last_state(info.name)
        if state is None:
            raise not_settled(info.name, "RiskCast has never reconciled it")
        if flaw := flaw_of(state, info.seal):
            raise not_settled(info.name, flaw)
        for segment in info.segments:
            if flaw := count_flaw_of(segment, await self._told(segment), self._letters.dropped(segment.segment_id)):
                raise not_settled(info.name, flaw)
        self.without_letters(info)
        return state.run_id

    def without_letters(self, info: PartitionInfo) -> None:
        """Raises ContractError NOT_SETTLED while it has dead letters that nobody has given up."""
        if count := self._letters.kept_count(segment.segment_id for segment in info.segments):
            raise not_settled(info.name, f"{count} of its dead letters are not dropped")

    async def _last_state(self, partition: str) -> pb.ReconcileState | None:
        request = pb.ListReconcileStatesRequest(ledger_id=self._journal.ledger_id, partition=partition, page_size=1)
        try:
            answer = await self._stub.ListReconcileStates(request, timeout=ASK_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            rich = ErrorDetails.from_trailing_metadata(error.trailing_metadata())
            raise untold(partition, rich.reason if rich else error.code().name) from error
        return next(iter(answer.states), None)

    async def _told(self, segment: SegmentInfo) -> Told:
        """By a hello of its own: of one with more than a million records RiskCast counts a part."""
        asked = Segment(segment.partition, segment.ordinal, segment.segment_id, segment.record_count)
        try:
            async with RiskCastStream(self._line, self._journal) as stream:
                return await stream.hello([asked])
        except Disconnected as broken:
            raise untold(segment.partition, str(broken)) from broken


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


def count_flaw_of(segment: SegmentInfo, told: Told, dropped: Coverage) -> str:
    """Why this hello does not show that RiskCast has all of a segment but what was given up; "" when it does."""
    settled = told.settled.get(segment.segment_id, NOTHING)
    if missing := (Coverage.up_to(segment.record_count) - settled).count:
        return f"RiskCast has settled {missing} records of segment {segment.ordinal} no longer"
    if rejected := (told.rejected.get(segment.segment_id, NOTHING) - dropped).count:
        return f"RiskCast rejected {rejected} records of segment {segment.ordinal} that are not dropped"
    return ""


def untold(partition: str, because: str) -> ContractError:
    return not_settled(partition, f"RiskCast does not tell: {because}")


def not_settled(partition: str, because: str) -> ContractError:
    message = f"{partition} may hold what RiskCast has not settled: {because}"
    return ContractError(Reason.NOT_SETTLED, message, metadata={"partition": partition})
