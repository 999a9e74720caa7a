"""EmitStream: what Emit answers, for up to 256 events a message, on one stream."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from contract.errors import ErrorDetails, Reason
from contract.identity import ack_id, identity_of_event
from contract.limits import BATCH_ITEMS_MAX
from omen.v1 import signal_service_pb2 as pb
from omen.v1.signal_event_pb2 import SignalEvent
from omen_server.delivery import stream as stream_module
from omen_server.services.signals import EMITTED_AT_ONCE
from tests.ledger.faults import FaultyDisk
from tests.omen_server.running import (
    DEADLINE_S,
    DELIVERED,
    DUPLICATE,
    LEDGER_ONLY,
    Omen,
    closed_port,
    event,
    omen,
    records_of,
    refusal,
    riskcast,
    seconds,
)
from tests.omen_server.scripted_riskcast import answering, hanging, peer_of
from tests.omen_server.test_ledger_failures import OpenedWith, opened_with

__all__ = ["opened_with"]


class Stream:
    def __init__(self, call: Any) -> None:
        self._call = call

    async def send(self, events: Iterable[SignalEvent], **request: Any) -> None:
        await self._call.write(pb.EmitStreamRequest(events=events, **request))

    async def results(self) -> list[pb.EmitResult]:
        answer = await self._call.read()
        assert answer is not grpc.aio.EOF, await self.ended()
        return list(answer.results)

    async def emissions(self, events: Iterable[SignalEvent], **request: Any) -> list[pb.Emission]:
        await self.send(events, **request)
        results = await self.results()
        assert all(each.HasField("emission") for each in results), results
        return [each.emission for each in results]

    async def ended(self) -> ErrorDetails | None:
        return ErrorDetails.from_trailing_metadata(await self._call.trailing_metadata())

    async def close(self) -> grpc.StatusCode:
        await self._call.done_writing()
        assert await self._call.read() is grpc.aio.EOF
        code: grpc.StatusCode = await self._call.code()
        return code


@asynccontextmanager
async def emitting(server: Omen) -> AsyncIterator[Stream]:
    call = server.signals.EmitStream(timeout=DEADLINE_S)
    try:
        yield Stream(call)
    finally:
        call.cancel()


async def test_each_event_is_answered_as_emit_answers_it_in_the_order_of_the_requests(tmp_path: Path) -> None:
    async with (
        riskcast(tmp_path / "db") as store,
        omen(tmp_path / "ledger", store.port) as server,
        emitting(server) as stream,
    ):
        for first in (0, 256, 512):
            await stream.send(map(event, range(first, first + 256)))
        emissions = [each.emission for _ in range(3) for each in await stream.results()]
        assert await stream.close() is grpc.StatusCode.OK
        assert await store.count() == 768
    assert [each.signal_id for each in emissions] == [
        identity_of_event(event(number)).signal_id_of(12) for number in range(768)
    ]
    for number, emission in enumerate(emissions):
        assert emission.status == DELIVERED
        assert emission.ack_id == ack_id(emission.signal_id, event(number).input_event_hash)
    held = {record.position.sequence: record.payload for record in records_of(tmp_path / "ledger")}
    for emission in emissions:
        assert SignalEvent.FromString(held[emission.position.sequence]).signal_id == emission.signal_id


async def test_a_bad_event_fails_itself_and_not_its_neighbours(tmp_path: Path) -> None:
    bad, mismatched = event(2), event(3)
    bad.signal.title = ""
    mismatched.signal_id = "OMEN-000000000000"
    async with peer_of(answering()) as peer, omen(tmp_path, peer.port) as server, emitting(server) as stream:
        await stream.send([event(1), bad, mismatched, event(4)])
        first, second, third, fourth = await stream.results()
        assert [first.emission.status, fourth.emission.status] == [DELIVERED, DELIVERED]
        assert (second.error.code, second.error.reason) == (3, Reason.INVALID_SIGNAL)
        assert [each.field for each in second.error.violations] == ["signal.title"]
        assert third.error.reason == Reason.SIGNAL_ID_MISMATCH
        assert not second.error.HasField("retry_delay")
        assert len(await server.records()) == 2


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([], "must have 1 to 256 items, has 0"),
        ([event(1)] * (BATCH_ITEMS_MAX + 1), "must have 1 to 256 items, has 257"),
    ],
)
async def test_a_message_out_of_bounds_ends_the_stream_after_what_came_before_it(
    tmp_path: Path, events: list[SignalEvent], said: str
) -> None:
    async with peer_of(answering()) as peer, omen(tmp_path, peer.port) as server, emitting(server) as stream:
        await stream.send([event(1)])
        assert (await stream.results())[0].emission.status == DELIVERED
        await stream.send(events)
        error = await stream.ended()
        assert error is not None
        assert (error.reason, error.violations) == (Reason.INVALID_SIGNAL, (("events", said),))
        assert len(await server.records()) == 1


async def test_a_message_is_at_most_1_mib_unless_it_is_a_single_event(tmp_path: Path) -> None:
    large = [event(number) for number in range(8)]
    for each in large:
        each.signal.explanation = "x" * 20_000
        each.canonical_observation = b"c" * 65_000
        each.signal.description = "ä" * 5000
        each.signal.title = "x"
        each.ClearField("input_event_hash")
        each.source_event_id = f"large:{id(each)}"
    size = large[0].ByteSize()
    fitting = (1 << 20) // size
    events = [large[0]] * fitting
    async with peer_of(answering()) as peer, omen(tmp_path, peer.port) as server, emitting(server) as stream:
        assert len(await stream.emissions(events, wait_for=pb.WAIT_FOR_LEDGER)) == fitting
        await stream.send([*events, large[0]])
        error = await stream.ended()
        assert error is not None
        assert error.violations == (("events", "must be at most 1048576 bytes together"),)


async def test_with_riskcast_away_each_is_ledger_only_and_delivered_afterwards(tmp_path: Path) -> None:
    port = closed_port()
    async with omen(tmp_path / "ledger", port) as server, emitting(server) as stream:
        emissions = await stream.emissions(map(event, range(300, 500)))
        emissions += await stream.emissions(map(event, range(56)), wait_for=pb.WAIT_FOR_LEDGER)
        assert {each.status for each in emissions} == {LEDGER_ONLY}
        async with riskcast(tmp_path / "db", port) as store:
            await server.until_drained()
            assert sorted(store.ids()) == sorted(each.signal_id for each in emissions)


async def test_an_answer_that_does_not_come_in_time_is_ledger_only_for_each_event(tmp_path: Path) -> None:
    async with peer_of(hanging) as peer, omen(tmp_path, peer.port) as server, emitting(server) as stream:
        emissions = await stream.emissions(map(event, range(3)), delivery_timeout=seconds(0.2))
        assert {each.ledger_only_reason for each in emissions} == {"RiskCast did not answer within 0.2 s"}
        assert len(await server.records()) == 3


async def test_what_the_ledger_refuses_is_an_error_of_its_event_and_nothing_is_pushed(
    tmp_path: Path, opened_with: OpenedWith
) -> None:
    disk = FaultyDisk()
    opened_with(disk, queue_records_max=100)
    async with peer_of(answering()) as peer, omen(tmp_path, peer.port) as server, emitting(server) as stream:
        await stream.emissions([event(0)])
        disk.fail("fdatasync", at=disk._counts["fdatasync"] + 1)
        await stream.send([event(1), event(2)])
        results = await stream.results()
        assert [each.error.reason for each in results] == [Reason.LEDGER_UNAVAILABLE] * 2
        assert all(each.error.HasField("retry_delay") for each in results)
        await asyncio.wait([server.task], timeout=DEADLINE_S)
        assert server.task.exception() is not None
        assert len(peer.records) == 1


async def test_repeats_within_a_stream_are_stored_once_and_told_the_same_ack_id(tmp_path: Path) -> None:
    async with riskcast(tmp_path / "db") as store, omen(tmp_path / "ledger", store.port) as server:
        async with emitting(server) as stream:
            once = await stream.emissions([event(1), event(1)])
            again = await stream.emissions([event(1)])
        assert await store.count() == 1
    assert sorted(each.status for each in (*once, *again)) == [DELIVERED, DUPLICATE, DUPLICATE]
    assert len({each.ack_id for each in (*once, *again)}) == 1


async def test_a_client_that_never_reads_has_a_bounded_number_of_messages_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "ANSWER_TIMEOUT_S", 60.0)
    async with peer_of(hanging) as peer, omen(tmp_path, peer.port) as server, emitting(server) as stream:
        for number in range(3 * EMITTED_AT_ONCE):
            await stream.send([event(number)], delivery_timeout=seconds(60))
        async with asyncio.timeout(DEADLINE_S):
            while len(await server.records()) < EMITTED_AT_ONCE:
                pass
        for _ in range(50):  # time enough for a message too many
            await server.state()
        assert len(await server.records()) == EMITTED_AT_ONCE


async def test_a_client_that_leaves_changes_nothing_its_events_are_delivered(tmp_path: Path) -> None:
    async with peer_of(answering()) as peer, omen(tmp_path, peer.port) as server:
        async with emitting(server) as stream:
            await stream.send(map(event, range(100)))
            await peer.until(lambda peer: len(peer.records) >= 1)
        await peer.until(lambda peer: len(peer.records) == 100)
        assert len(await server.records()) == 100


async def test_nothing_is_taken_of_what_comes_after_a_message_that_ends_the_stream(tmp_path: Path) -> None:
    async with peer_of(answering()) as peer, omen(tmp_path, peer.port) as server, emitting(server) as stream:
        await stream.send([event(1)])
        for events in ([], [event(2)], [event(3)]):
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # it may have ended already
                await stream.send(events)
        assert (await stream.results())[0].emission.status == DELIVERED
        error = await stream.ended()
        assert error is not None
        assert error.reason == Reason.INVALID_SIGNAL
        assert len(await server.records()) == 1


@pytest.mark.parametrize(
    ("field", "request_"),
    [("wait_for", {"wait_for": 7}), ("delivery_timeout", {"delivery_timeout": seconds(61), "wait_for": 2})],
)
async def test_what_cannot_be_waited_for_is_refused_and_nothing_is_taken(
    tmp_path: Path, field: str, request_: dict[str, Any]
) -> None:
    async with peer_of(answering()) as peer, omen(tmp_path, peer.port) as server, emitting(server) as stream:
        await stream.send([event(1)], **request_)
        for error in (await stream.ended(), await refusal(server.emit(event(1), **request_))):
            assert error is not None
            assert [each.field for each in error.violations] == [field]
        assert not await server.records()
