"""What one stream makes of what comes down it, with a call that says what the test says."""

from types import SimpleNamespace
from typing import Any

from ledger import Position, Record
from ledger.positions import sequence_of
from omen_server.delivery.stream import RiskCastStream
from riskcast.v1 import ingest_service_pb2 as pb
from tests.riskcast_server.events import DAY, LEDGER, SEGMENT


class Call:
    """Answers each message, one after the other, with one record that was stored."""

    async def write(self, request: pb.IngestStreamRequest) -> None: ...

    async def read(self) -> pb.IngestStreamResponse:
        result = pb.RecordResult(outcome=pb.RECORD_OUTCOME_STORED, ack_id="ack")
        return pb.IngestStreamResponse(batch=pb.IngestBatchResult(results=[result]))


def stream_of(call: Call) -> RiskCastStream:
    line: Any = SimpleNamespace(stream=lambda: call)
    journal: Any = SimpleNamespace(ledger_id=LEDGER)
    return RiskCastStream(line, journal)


def record(index: int) -> Record:
    return Record(Position(DAY, SEGMENT, sequence_of(1, index)), 1, 1, b"an event")


async def test_an_answer_is_that_of_the_oldest_message_without_one() -> None:
    stream = stream_of(Call())
    for index in (1, 2, 3):
        await stream.window()
        await stream.send([record(index)])
    answered = [(await stream.receive())[0][0].position.record_index for _ in range(3)]
    assert answered == [1, 2, 3]
