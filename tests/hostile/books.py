"""What was answered OK, and that it is what the servers hold: no more, no less."""

import time

import grpc

from omen.v1 import delivery_service_pb2 as delivery
from omen.v1 import ledger_service_pb2 as ledger
from omen.v1.signal_event_pb2 import SignalEvent
from riskcast.v1 import ingest_service_pb2 as ingest
from tests.hostile.requests import EMIT, INGEST, INGEST_STREAM, PROCESS
from tests.hostile.servers import Answer, Both
from tests.hostile.verdicts import flaw_of, flaws_of
from tests.system.processes import MOMENT_S

Place = tuple[str, int]  # partition and sequence


class Books:
    """`places` are those that OMEN named, `stored` the ids that RiskCast took by itself."""

    def __init__(self, servers: Both) -> None:
        self._servers = servers
        self.places = set(self.ledger())
        self.stored = {signal_id for signal_id, _ in servers.rows()}
        self.calls = 0

    def enter(self, path: str, requests: list[bytes]) -> Answer:
        """Makes a call and judges its answer."""
        answer = self._servers.call(path, *requests)
        flaw = flaw_of(path, max(map(len, requests), default=0), answer)
        assert not flaw, f"{path}: {flaw}: {answer} to {[request[:2000] for request in requests]}"
        self.calls += 1
        if path in (EMIT, PROCESS) and answer.code is grpc.StatusCode.OK:
            self._emitted(answer)
        elif path == INGEST and answer.code is grpc.StatusCode.OK:
            self.stored.add(ingest.IngestRequest.FromString(requests[0]).event.signal_id)
        elif path == INGEST_STREAM:
            self._streamed(answer, requests)
        return answer

    def _emitted(self, answer: Answer) -> None:
        [response] = answer.responses
        if response.HasField("emission"):
            position = response.emission.position
            self.places.add((position.partition, position.sequence))

    def _streamed(self, answer: Answer, requests: list[bytes]) -> None:
        batches = [response.batch for response in answer.responses if response.HasField("batch")]
        for batch, request in zip(batches, requests[1:], strict=False):
            records = ingest.IngestStreamRequest.FromString(request).batch.records
            for result, record in zip(batch.results, records, strict=True):
                if result.outcome == ingest.RECORD_OUTCOME_STORED:
                    self.stored.add(SignalEvent.FromString(record.event).signal_id)

    def balance(self) -> None:
        """After the backlog has drained."""
        self._until_drained()
        held = self.ledger()
        assert held.keys() == self.places
        delivered = {SignalEvent.FromString(event).signal_id for event in held.values()}
        rows = self._servers.rows()
        assert {signal_id for signal_id, _ in rows} == self.stored | delivered
        assert [flaws for _, event in rows if (flaws := flaws_of(event))] == []

    def ledger(self) -> dict[Place, bytes]:
        """All that OMEN's ledger gives back, by place."""
        ask = self._servers.ask
        listed = ask("/omen.v1.LedgerService/ListPartitions", ledger.ListPartitionsRequest())
        found: dict[Place, bytes] = {}
        for summary in listed.partitions:
            request = ledger.ReplayRequest(partition=summary.partition)
            answer = self._servers.call("/omen.v1.LedgerService/Replay", request.SerializeToString())
            assert answer.code is grpc.StatusCode.OK, answer
            for response in answer.responses:
                for record in response.records:
                    found[record.position.partition, record.position.sequence] = record.event
        return found

    def _until_drained(self) -> None:
        """pytest's timeout ends a backlog that does not drain."""
        ask, request = self._servers.ask, delivery.GetDeliveryStateRequest()
        ask("/omen.v1.DeliveryService/ResumeDelivery", delivery.ResumeDeliveryRequest())
        state = "/omen.v1.DeliveryService/GetDeliveryState"
        while not (told := ask(state, request)).HasField("backlog_record_count") or told.backlog_record_count:
            time.sleep(MOMENT_S)
