"""What one stream makes of what comes down it, with a call that says what the test says."""

import asyncio
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from ledger import Position, Record
from ledger.positions import sequence_of
from omen_server.delivery.stream import ANSWER_TIMEOUT_S, Disconnected, RiskCastStream
from riskcast.v1 import ingest_service_pb2 as pb
from tests.riskcast_server.events import DAY, LEDGER, SEGMENT
from tests.simulation import clockwork

HOURS_S = 3 * 3600.0


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


def test_a_stream_on_which_nothing_is_asked_rests_and_what_is_asked_then_has_its_time() -> None:
    clockwork.run(rest_for_hours_and_then_ask_in_vain, Random(0))


async def rest_for_hours_and_then_ask_in_vain() -> None:
    loop = asyncio.get_running_loop()
    stream = stream_of(Call())
    until_silent = asyncio.create_task(stream.until_silent())
    await asyncio.sleep(HOURS_S)
    await stream.send([record(1)])
    await stream.receive()
    await asyncio.sleep(HOURS_S)
    assert not until_silent.done()
    asked_at_s = loop.time()
    await stream.send([record(2)])
    with pytest.raises(Disconnected, match="no answer within"):
        await until_silent
    assert loop.time() == pytest.approx(asked_at_s + ANSWER_TIMEOUT_S)
