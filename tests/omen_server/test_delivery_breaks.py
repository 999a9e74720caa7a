"""A RiskCast that misbehaves: the stream is dropped, tried again with patience, and nothing is lost or invented."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

import serving
from contract.errors import ContractError, Reason
from contract.identity import ack_id
from contract.limits import HELLO_REJECTED_MAX
from omen.v1.delivery_service_pb2 import (
    BREAKER_STATE_OPEN,
    DELIVERY_PHASE_FOLLOWING,
    DELIVERY_PHASE_HELD,
    PauseDeliveryRequest,
    ResumeDeliveryRequest,
)
from omen.v1.ledger_record_pb2 import IndexRange
from omen_server.delivery.contact import HELD_RETRY_S
from riskcast.v1 import ingest_service_pb2 as ingest_pb
from tests.omen_server.running import DEADLINE_S, DELIVERED, DUPLICATE, LEDGER_ONLY, Omen, event, omen, seconds
from tests.omen_server.scripted_riskcast import (
    SERVICE,
    Peer,
    Requests,
    Script,
    answering,
    ending,
    hello,
    outcomes,
    peer_of,
    stored,
)


def busy(retry_delay_s: float | None) -> ContractError:
    return ContractError(Reason.STORE_UNAVAILABLE, "locked", retry_delay_s=retry_delay_s)


async def answers_with_a_second_hello(peer: Peer, requests: Requests) -> AsyncIterator[ingest_pb.IngestStreamResponse]:
    await peer.next_hello(requests)
    yield hello()
    await peer.next_batch(requests)
    yield hello()


async def answers_before_it_is_asked(peer: Peer, requests: Requests) -> AsyncIterator[ingest_pb.IngestStreamResponse]:
    await peer.next_hello(requests)
    yield hello()
    yield outcomes([])
    await peer.next_batch(requests)


async def answers_the_hello_with_a_batch(
    peer: Peer, requests: Requests
) -> AsyncIterator[ingest_pb.IngestStreamResponse]:
    await peer.next_hello(requests)
    yield outcomes([])


async def gives_one_outcome_too_many(peer: Peer, requests: Requests) -> AsyncIterator[ingest_pb.IngestStreamResponse]:
    await peer.next_hello(requests)
    yield hello()
    batch = await peer.next_batch(requests)
    yield outcomes([stored(record) for record in [*batch, batch[0]]])


async def tells_of_too_many_rejected(peer: Peer, requests: Requests) -> AsyncIterator[ingest_pb.IngestStreamResponse]:
    await peer.next_hello(requests)
    told = hello()
    told.hello.rejected.add(segment_id=b"s" * 16, ranges=[IndexRange(first=1, last=1)] * (HELLO_REJECTED_MAX + 1))
    yield told
    await peer.next_batch(requests)


BREAKS: dict[str, Script] = {
    "ends at the hello": ending(None, after=0),
    "ends after the hello": ending(None, after=1),
    "fails at the hello": ending(busy(None), after=0),
    "fails at a batch": ending(busy(None), after=1),
    "answers a batch with a hello": answers_with_a_second_hello,
    "answers what was not asked": answers_before_it_is_asked,
    "answers the hello with a batch": answers_the_hello_with_a_batch,
    "gives one outcome too many": gives_one_outcome_too_many,
    "gives no outcome": answering(lambda record: ingest_pb.RecordResult()),
    "gives an ack_id of a thousand characters": answering(
        lambda record: ingest_pb.RecordResult(outcome=ingest_pb.RECORD_OUTCOME_STORED, ack_id="a" * 1000)
    ),
    "tells of more rejected records than it may": tells_of_too_many_rejected,
}


@pytest.mark.parametrize("how", BREAKS)
async def test_a_stream_that_breaks_is_opened_again_and_whoever_waits_gets_the_true_answer(
    tmp_path: Path, how: str
) -> None:
    async with peer_of(BREAKS[how], answering()) as peer, omen(tmp_path, peer.port) as server:
        await peer.until(lambda peer: len(peer.hellos) >= 1)
        emission = await server.emit(event(1), delivery_timeout=seconds(10))
        expected = DELIVERED
        if emission.status == LEDGER_ONLY:  # it broke before there was anything to wait for
            assert "RiskCast cannot be reached" in emission.ledger_only_reason
            await server.until_drained()
            emission, expected = await server.emit(event(1), delivery_timeout=seconds(10)), DUPLICATE
        await server.until_drained()
        state = await server.state()
    assert emission.status == expected
    assert emission.ack_id == ack_id(emission.signal_id, event(1).input_event_hash)
    assert len(peer.hellos) == 2
    assert state.phase == DELIVERY_PHASE_FOLLOWING


async def test_an_answer_lost_after_the_commit_is_asked_for_again_so_that_emit_tells_the_ack_id(tmp_path: Path) -> None:
    """The second hello says that the record is settled; only sending it once more brings its ack_id."""

    async def settled_after_all(peer: Peer, requests: Requests) -> AsyncIterator[ingest_pb.IngestStreamResponse]:
        segment_id = peer.records[0].position.segment_id
        async for response in answering(settled={segment_id: [(1, 1)]})(peer, requests):
            yield response

    async with peer_of(ending(None, after=1), settled_after_all) as peer, omen(tmp_path, peer.port) as server:
        async with asyncio.timeout(DEADLINE_S):
            emission = await server.emit(event(1), delivery_timeout=seconds(60))
        assert [record.position.sequence & 0xFFFFFFFF for record in peer.records] == [1, 1]
    assert emission.status == DELIVERED
    assert emission.ack_id == ack_id(emission.signal_id, event(1).input_event_hash)


async def test_what_is_settled_and_awaited_by_nobody_is_not_sent_again_after_a_break(tmp_path: Path) -> None:
    async def nothing_left(peer: Peer, requests: Requests) -> AsyncIterator[ingest_pb.IngestStreamResponse]:
        segment_id = peer.records[0].position.segment_id
        async for response in answering(settled={segment_id: [(1, 1)]})(peer, requests):
            yield response

    async with peer_of(ending(None, after=1), nothing_left) as peer, omen(tmp_path, peer.port) as server:
        await server.to_ledger(1)
        await peer.until(lambda peer: len(peer.hellos) == 2)
        await server.until_drained()
        await server.to_ledger(2)
        await peer.until(lambda peer: len(peer.records) == 2)
    assert [record.position.sequence & 0xFFFFFFFF for record in peer.records] == [1, 2]


async def test_a_peer_that_always_breaks_is_tried_with_growing_patience(tmp_path: Path) -> None:
    """Three of them side by side, for patience takes its time."""
    async with asyncio.TaskGroup() as breaks:
        for how in ("ends at the hello", "ends after the hello", "gives one outcome too many"):
            breaks.create_task(tried_with_growing_patience(tmp_path / how, how))


async def tried_with_growing_patience(directory: Path, how: str) -> None:
    async with peer_of(BREAKS[how]) as peer, omen(directory, peer.port) as server:
        await server.to_ledger(1)
        await server.until_state(lambda state: state.breaker == BREAKER_STATE_OPEN)
        streams = peer.streams_opened_at
        assert 5 <= len(streams) <= 11, how  # five in a row, or half of ten: a hello and a message each
        assert streams[-1] - streams[0] > 0.05, how  # waits of at most 0.1, 0.2, 0.4 … 2 s, each drawn at random
        emission = await server.emit(event(2), delivery_timeout=seconds(60))
        assert emission.status == LEDGER_ONLY, how
        assert len(peer.streams_opened_at) == len(streams), how  # it is left alone
        assert (await server.state()).last_error, how
        assert (await server.state()).backlog_record_count == (0 if how == "ends at the hello" else 2), how


async def test_a_retry_delay_is_waited_for(tmp_path: Path) -> None:
    async with peer_of(ending(busy(1.0), after=0), answering()) as peer, omen(tmp_path, peer.port) as server:
        await server.until_drained()
        first, second = peer.streams_opened_at
        assert second - first >= 1.0
        state = await server.state()
    assert state.last_error == "STORE_UNAVAILABLE: locked"
    assert state.HasField("last_error_at")


HOLDING = {
    "credentials": ContractError(Reason.BAD_CREDENTIALS, "the key is not valid"),
    "scope": ContractError(Reason.SCOPE_MISSING, "the key lacks a scope"),
    "schema version": ContractError(Reason.SCHEMA_VERSION_UNSUPPORTED, "upgrade the receiver"),
}


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("what", HOLDING)
async def test_what_only_people_can_mend_holds_delivery_and_loses_nothing(
    tmp_path: Path, what: str, after: int
) -> None:
    refused = HOLDING[what]
    script = ending(refused, after=after)
    async with peer_of(script, answering()) as peer, omen(tmp_path, peer.port) as server:
        emissions = [await server.emit(event(1), delivery_timeout=seconds(60))]
        state = await server.until_state(lambda state: state.phase == DELIVERY_PHASE_HELD)
        emissions += [await server.emit(event(2), delivery_timeout=seconds(60))]
        assert {emission.status for emission in emissions} == {LEDGER_ONLY}
        assert f"{refused.reason}: {refused.message}" in emissions[1].ledger_only_reason
        assert state.reason == state.last_error == f"{refused.reason}: {refused.message}"
        assert len(peer.streams_opened_at) == 1
        assert HELD_RETRY_S >= 30
        await mended(server)
        await server.until_drained()
        ids = {emission.signal_id for emission in emissions}
        assert {record.event for record in peer.records} == {record.event for record in await server.records()}
        assert set(peer.ids) == ids
        assert (await server.state()).reason == ""


async def mended(server: Omen) -> None:
    """What an operator does who does not want to wait."""
    await server.delivery.PauseDelivery(PauseDeliveryRequest(reason="a new key"))
    await server.delivery.ResumeDelivery(ResumeDeliveryRequest())


class Garbage:
    """Answers the hello with bytes that are no message, the second time as it should."""

    def __init__(self) -> None:
        self.peer = Peer(answering())
        self.stream_count = 0

    def add(self, server: grpc.aio.Server) -> None:
        handler: Any = grpc.stream_stream_rpc_method_handler(
            self.stream,
            request_deserializer=ingest_pb.IngestStreamRequest.FromString,
            response_serializer=lambda answer: answer if isinstance(answer, bytes) else answer.SerializeToString(),
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE.full_name, {"IngestStream": handler}),)
        )

    async def stream(self, requests: Requests, context: Any) -> AsyncIterator[Any]:
        self.stream_count += 1
        if self.stream_count == 1:
            await anext(requests)
            yield b"\xff\xff"
            await anext(requests, None)
        async for response in self.peer.IngestStream(requests, context):
            yield response


async def test_bytes_that_are_no_message_drop_the_stream(tmp_path: Path) -> None:
    garbage = Garbage()
    mounts = [serving.Mount(SERVICE, partial(Garbage.add, garbage))]
    async with (
        serving.serve("127.0.0.1:0", mounts, domain="riskcast.v1", grace_s=1) as running,
        omen(tmp_path, running.port) as server,
        asyncio.timeout(DEADLINE_S),
    ):
        await server.until_drained()
        assert (await server.emit(event(1))).status == DELIVERED
        assert "no message" in (await server.state()).last_error
