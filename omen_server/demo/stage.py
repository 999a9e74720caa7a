"""What the acts ask of the two servers, each question by the server's own RPC."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import grpc

from contract.errors import ErrorDetails
from omen.v1 import delivery_service_pb2 as delivery_pb
from omen.v1 import ledger_service_pb2 as ledger_pb
from omen.v1 import pipeline_service_pb2 as pipeline_pb
from omen.v1 import signal_service_pb2 as omen_signal_pb
from omen.v1.delivery_service_pb2_grpc import DeliveryServiceStub
from omen.v1.ledger_record_pb2 import LedgerPosition
from omen.v1.ledger_service_pb2_grpc import LedgerServiceStub
from omen.v1.observation_pb2 import Observation
from omen.v1.pipeline_service_pb2_grpc import PipelineServiceStub
from omen.v1.signal_event_pb2 import SignalEvent
from omen_server.demo.expectation import ExpectationFailed, until
from omen_server.demo.expected import expected_ids
from omen_server.demo.servers import Server
from riskcast.v1 import ingest_service_pb2 as ingest_pb
from riskcast.v1 import reconcile_service_pb2 as reconcile_pb
from riskcast.v1 import signal_service_pb2 as signal_pb
from riskcast.v1.ingest_service_pb2_grpc import IngestServiceStub
from riskcast.v1.reconcile_service_pb2_grpc import ReconcileServiceStub
from riskcast.v1.signal_service_pb2_grpc import SignalServiceStub

CALL_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Stage:
    """The servers, and the observations that the demo ships with. Every call raises grpc.aio.AioRpcError."""

    omen: Server
    riskcast: Server
    directory: Path
    database: Path  # RiskCast's
    observations: list[Observation]

    @property
    def signalling(self) -> list[Observation]:
        """The observations that become signals."""
        return [each for each in self.observations if each.source_event_id in expected_ids()]

    async def process(self, observation: Observation) -> pipeline_pb.ProcessResponse:
        """Through the rules, into the ledger, and on to RiskCast if it can be reached."""
        return await self._process(pipeline_pb.ProcessRequest(observation=observation))

    async def process_to_ledger(self, observation: Observation) -> pipeline_pb.ProcessResponse:
        """Through the rules and into the ledger; answered as soon as that is fsynced."""
        wait_for = omen_signal_pb.WAIT_FOR_LEDGER
        return await self._process(pipeline_pb.ProcessRequest(observation=observation, wait_for=wait_for))

    async def ledger_id(self) -> str:
        return (await self._partitions()).ledger_id

    async def ledger(self) -> dict[str, bytes]:
        """What OMEN's ledger holds: the stored bytes of each signal by its id, in the order of the ledger."""
        stub, events = LedgerServiceStub(self.omen.channel), dict[str, bytes]()
        for summary in (await self._partitions()).partitions:
            request = ledger_pb.ReplayRequest(partition=summary.partition)
            async for portion in stub.Replay(request, timeout=CALL_TIMEOUT_S):
                events |= {SignalEvent.FromString(each.event).signal_id: each.event for each in portion.records}
        return events

    async def ledger_events(self) -> list[SignalEvent]:
        return [SignalEvent.FromString(event) for event in (await self.ledger()).values()]

    async def stored_count(self) -> int:
        """How many signals of this ledger RiskCast counts in its own store."""
        return await self._count(signal_pb.CountSignalsRequest(ledger_id=await self.ledger_id()))

    async def stored_count_of_all(self) -> int:
        """How many signals RiskCast counts, wherever they came from."""
        return await self._count(signal_pb.CountSignalsRequest())

    async def stored(self, signal_ids: Iterable[str]) -> dict[str, signal_pb.StoredSignal]:
        """What RiskCast has stored under each of these ids."""
        stub = SignalServiceStub(self.riskcast.channel)
        ids = list(signal_ids)
        requests = [signal_pb.GetSignalRequest(signal_id=signal_id) for signal_id in ids]
        answers = await asyncio.gather(*(stub.GetSignal(each, timeout=CALL_TIMEOUT_S) for each in requests))
        return {signal_id: answer.signal for signal_id, answer in zip(ids, answers, strict=True)}

    async def ack_ids(self) -> dict[str, str]:
        """RiskCast's acknowledgement of every signal of the ledger."""
        return {signal_id: stored.ack_id for signal_id, stored in (await self.stored(await self.ledger())).items()}

    async def ingest(self, event: SignalEvent, position: LedgerPosition) -> tuple[str, str]:
        """Straight into RiskCast: the name of the status it answers, and the ack_id that comes with either answer."""
        request = ingest_pb.IngestRequest(event=event, position=position)
        try:
            answer = await IngestServiceStub(self.riskcast.channel).Ingest(request, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            details = ErrorDetails.from_trailing_metadata(error.trailing_metadata())
            if details is None or details.duplicate is None:
                raise
            return error.code().name, details.duplicate.ack_id
        return "OK", answer.ack_id

    async def reconcile(self) -> tuple[dict[str, str], reconcile_pb.RunFinished]:
        """RiskCast's own check of every partition, open ones too: the ack_ids of what it replayed, and how it ended."""
        request = reconcile_pb.ReconcileRequest(include_open=True)
        stream = ReconcileServiceStub(self.riskcast.channel).Reconcile(request, timeout=CALL_TIMEOUT_S)
        replayed: dict[str, str] = {}
        async for message in stream:
            if message.HasField("replayed"):
                replayed[message.replayed.signal_id] = message.replayed.ack_id
            if message.HasField("run_finished"):
                return replayed, message.run_finished
        raise ExpectationFailed("Reconcile's stream: expected run_finished at its end, saw none")

    async def pause_delivery(self, reason: str) -> None:
        request = delivery_pb.PauseDeliveryRequest(reason=reason)
        await DeliveryServiceStub(self.omen.channel).PauseDelivery(request, timeout=CALL_TIMEOUT_S)

    async def resume_delivery(self) -> None:
        """Returns once OMEN follows its ledger again and has nothing left to deliver."""
        request = delivery_pb.ResumeDeliveryRequest()
        await DeliveryServiceStub(self.omen.channel).ResumeDelivery(request, timeout=CALL_TIMEOUT_S)
        await until("OMEN's delivery", self.delivery, ("FOLLOWING", 0))

    async def delivery(self) -> tuple[str, int]:
        """What OMEN's delivery is doing, and how many records RiskCast has not settled as far as OMEN knows."""
        request = delivery_pb.GetDeliveryStateRequest()
        state = await DeliveryServiceStub(self.omen.channel).GetDeliveryState(request, timeout=CALL_TIMEOUT_S)
        phase = delivery_pb.DeliveryPhase.Name(state.phase).removeprefix("DELIVERY_PHASE_")
        return phase, state.backlog_record_count

    async def _process(self, request: pipeline_pb.ProcessRequest) -> pipeline_pb.ProcessResponse:
        return await PipelineServiceStub(self.omen.channel).Process(request, timeout=CALL_TIMEOUT_S)

    async def _partitions(self) -> ledger_pb.ListPartitionsResponse:
        request = ledger_pb.ListPartitionsRequest()
        return await LedgerServiceStub(self.omen.channel).ListPartitions(request, timeout=CALL_TIMEOUT_S)

    async def _count(self, request: signal_pb.CountSignalsRequest) -> int:
        answer = await SignalServiceStub(self.riskcast.channel).CountSignals(request, timeout=CALL_TIMEOUT_S)
        return answer.signal_count


def status_of(answer: pipeline_pb.ProcessResponse) -> str:
    """The name of an emission's status, such as DELIVERED."""
    return omen_signal_pb.EmissionStatus.Name(answer.emission.status).removeprefix("EMISSION_STATUS_")
