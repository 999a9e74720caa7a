"""What whoever emits is told when RiskCast is slow, silent, broken, or refuses everything; and what it costs."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contract.limits import BATCH_ITEMS_MAX
from ledger import Record
from ledger.format import frame_bytes
from omen.v1 import signal_service_pb2 as pb
from omen.v1.delivery_service_pb2 import (
    BREAKER_STATE_CLOSED,
    BREAKER_STATE_OPEN,
    DELIVERY_PHASE_FOLLOWING,
    DELIVERY_PHASE_PAUSED,
    PauseDeliveryRequest,
    ResumeDeliveryRequest,
)
from omen_server.delivery import newest, stream
from omen_server.delivery.backlog import Run, Segment
from omen_server.delivery.follow import BEHIND_S
from omen_server.delivery.newest import Newest
from omen_server.delivery.settling import REJECTIONS_IN_A_ROW_MAX
from omen_server.delivery.stream import MESSAGES_IN_FLIGHT
from riskcast.v1 import ingest_service_pb2 as ingest_pb
from tests.omen_server.running import (
    DEADLINE_S,
    DELIVERED,
    LEDGER_ONLY,
    REJECTED,
    closed_port,
    event,
    omen,
    records_of,
    riskcast,
    seconds,
)
from tests.omen_server.scripted_riskcast import (
    Peer,
    Requests,
    answering,
    ending,
    hanging,
    peer_of,
    when_told,
)
from tests.omen_server.test_delivery import ledger_of
from tests.omen_server.test_repeats import at

REFUSED = ingest_pb.RecordResult(
    outcome=ingest_pb.RECORD_OUTCOME_REJECTED, error=pb.ItemError(code=3, reason="INVALID_SIGNAL", message="no")
)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A RiskCast that takes its time is not given up."""
    monkeypatch.setattr(stream, "ANSWER_TIMEOUT_S", 60.0)


async def test_once_riskcast_is_a_second_behind_emit_is_ledger_only_at_once_and_says_so(
    tmp_path: Path, patient: None
) -> None:
    async with peer_of(hanging) as peer, omen(tmp_path, peer.port) as server:
        first = asyncio.create_task(server.emit(event(0), delivery_timeout=seconds(60)))
        await peer.until(lambda peer: len(peer.records) == 1)
        loop = asyncio.get_running_loop()
        sent_by = loop.time()
        await server.until_state(lambda _: loop.time() > sent_by + BEHIND_S)
        at_once = await server.emit(event(1), delivery_timeout=seconds(60))
        assert at_once.status == LEDGER_ONLY
        assert "RiskCast is 2 records behind" in at_once.ledger_only_reason
        assert not first.done()
        first.cancel()


async def test_a_burst_that_riskcast_keeps_up_with_is_waited_for(tmp_path: Path) -> None:
    async with peer_of(answering()) as peer, omen(tmp_path, peer.port) as server:
        await server.emit(event(0))
        emissions = await asyncio.gather(*(server.emit(event(number)) for number in range(1, 200)))
        assert {each.status for each in emissions} == {DELIVERED}


async def test_what_is_no_full_message_gathers_while_another_waits_for_its_answer(
    tmp_path: Path, patient: None
) -> None:
    may_answer = asyncio.Event()
    async with peer_of(when_told(may_answer)) as peer, omen(tmp_path, peer.port) as server:
        await server.to_ledger(0)
        await peer.until(lambda peer: len(peer.batches) == 1)
        await server.to_ledger(*range(1, 11))
        may_answer.set()
        await server.until_drained()
        assert [len(batch) for batch in peer.batches] == [1, 10]


async def test_a_new_record_does_not_wait_for_an_old_backlog(tmp_path: Path, patient: None) -> None:
    await ledger_of(tmp_path, 12 * BATCH_ITEMS_MAX)
    may_answer = asyncio.Event()
    async with peer_of(when_told(may_answer)) as peer, omen(tmp_path, peer.port) as server:
        await peer.until(lambda peer: len(peer.batches) == MESSAGES_IN_FLIGHT)
        await server.to_ledger(10_000)
        may_answer.set()
        await server.until_drained()
        newest = (await server.records())[-1].event
        holding = [number for number, batch in enumerate(peer.batches) if newest in [each.event for each in batch]]
    assert holding[0] <= MESSAGES_IN_FLIGHT + 1
    assert len(peer.batches) == 13


async def test_a_flood_of_new_records_does_not_keep_an_old_backlog_waiting(tmp_path: Path, patient: None) -> None:
    await ledger_of(tmp_path, 8 * BATCH_ITEMS_MAX)
    old = {record.payload for record in records_of(tmp_path)}
    may_answer = asyncio.Event()
    async with peer_of(when_told(may_answer)) as peer, omen(tmp_path, peer.port) as server:
        await peer.until(lambda peer: len(peer.batches) == MESSAGES_IN_FLIGHT)
        await asyncio.gather(*map(server.to_ledger, range(10_000, 10_000 + 6 * BATCH_ITEMS_MAX)))
        may_answer.set()
        await server.until_drained()
        last = max(number for number, batch in enumerate(peer.batches) if old & {each.event for each in batch})
    assert last <= MESSAGES_IN_FLIGHT + 2 * 4 + 1  # each other message is of the backlog
    assert len(peer.records) == 14 * BATCH_ITEMS_MAX


async def test_a_riskcast_that_falls_silent_is_given_up_with_its_connection_and_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answers(peer: Peer, requests: Requests) -> AsyncIterator[ingest_pb.IngestStreamResponse]:
        monkeypatch.setattr(stream, "ANSWER_TIMEOUT_S", 60.0)  # from now on nothing but silence is given up
        async for response in answering()(peer, requests):
            yield response

    monkeypatch.setattr(stream, "ANSWER_TIMEOUT_S", 0.3)
    async with peer_of(hanging, answers) as peer, omen(tmp_path, peer.port) as server:
        emission = await server.emit(event(1), delivery_timeout=seconds(10))
        if emission.status == LEDGER_ONLY:
            await server.until_drained()
        state = await server.state()
        assert len(peer.streams_opened_at) == 2
        assert len({*peer.clients}) == 2
    assert state.phase == DELIVERY_PHASE_FOLLOWING


async def test_with_the_breaker_open_emit_is_ledger_only_at_once_and_riskcast_is_left_alone(tmp_path: Path) -> None:
    async with peer_of(ending(None, after=0)) as peer, omen(tmp_path, peer.port) as server:
        await server.until_state(lambda state: state.breaker == BREAKER_STATE_OPEN)
        tried = len(peer.streams_opened_at)
        emissions = await asyncio.gather(*(server.emit(event(n), delivery_timeout=seconds(60)) for n in range(50)))
        assert {each.status for each in emissions} == {LEDGER_ONLY}
        assert len(peer.streams_opened_at) == tried == 5
        assert len(await server.records()) == 50


async def test_the_breaker_lets_one_call_through_after_its_time_and_closes_when_it_is_answered(tmp_path: Path) -> None:
    broken = [ending(None, after=0)] * 6
    async with peer_of(*broken, answering()) as peer, omen(tmp_path, peer.port, breaker_open_s=0.3) as server:
        await server.until_state(lambda state: state.breaker == BREAKER_STATE_OPEN)
        await server.to_ledger(1)
        await server.until_state(lambda state: state.breaker == BREAKER_STATE_CLOSED)
        await server.until_drained()
        fifth, sixth, seventh = peer.streams_opened_at[4:]
        assert min(sixth - fifth, seventh - sixth) >= 0.3


async def test_riskcast_come_back_half_opens_the_breaker_long_before_its_time(tmp_path: Path) -> None:
    port = closed_port()
    async with omen(tmp_path / "ledger", port, breaker_open_s=3600) as server:
        await server.until_state(lambda state: state.breaker == BREAKER_STATE_OPEN)
        assert (await server.emit(event(1), delivery_timeout=seconds(60))).status == LEDGER_ONLY
        async with riskcast(tmp_path / "db", port):
            async with asyncio.timeout(DEADLINE_S):
                await server.until_state(lambda state: state.breaker == BREAKER_STATE_CLOSED)
            await server.until_drained()
            assert (await server.emit(event(2))).status == DELIVERED


async def test_a_hundred_rejections_in_a_row_pause_delivery_durably_with_the_reason(tmp_path: Path) -> None:
    numbers = range(REJECTIONS_IN_A_ROW_MAX + 20)
    await ledger_of(tmp_path, 2 * len(numbers))
    async with peer_of(answering(lambda record: REFUSED)) as peer, omen(tmp_path, peer.port) as server:
        state = await server.until_state(lambda state: state.phase == DELIVERY_PHASE_PAUSED)
        assert state.reason == "100 records in a row were rejected, the last one for INVALID_SIGNAL"
        emission = await server.emit(event(1000), delivery_timeout=seconds(60))
        assert emission.ledger_only_reason == f"delivery is paused: {state.reason}"
    async with peer_of(answering()) as peer, omen(tmp_path, peer.port) as server:
        assert (await server.state()).reason == state.reason
        assert not peer.hellos
        await server.delivery.ResumeDelivery(ResumeDeliveryRequest())
        await server.until_drained()


async def test_rejections_with_others_in_between_pause_nothing(tmp_path: Path) -> None:
    judged = iter(range(1000))

    def mostly(record: object) -> ingest_pb.RecordResult:
        number = next(judged)
        return REFUSED if number % 100 != 50 else ingest_pb.RecordResult(outcome=ingest_pb.RECORD_OUTCOME_STORED)

    await ledger_of(tmp_path, 300)
    async with peer_of(answering(mostly)) as peer, omen(tmp_path, peer.port) as server:
        await server.until_drained()
        emission = await server.emit(event(5000))
        assert emission.status == REJECTED
        assert (await server.state()).phase == DELIVERY_PHASE_FOLLOWING


async def test_the_state_tells_what_waits_its_bytes_and_since_when(tmp_path: Path) -> None:
    async with peer_of(hanging) as peer, omen(tmp_path, peer.port) as server:
        fresh = await server.until_state(lambda state: state.HasField("backlog_record_count"))
        assert (fresh.backlog_record_count, fresh.backlog_bytes) == (0, 0)
        assert not fresh.HasField("oldest_unsettled_age")
        await server.to_ledger(*range(10))
        state = await server.state()
        later = await server.state()
        held = await server.records()
    assert state.breaker == BREAKER_STATE_CLOSED
    assert state.backlog_record_count == 10
    assert state.backlog_bytes == sum(frame_bytes(len(record.event)) for record in held)
    ages = [each.oldest_unsettled_age.ToTimedelta().total_seconds() for each in (state, later)]
    assert 0 < ages[0] < ages[1] < 20


async def test_the_bytes_of_what_came_while_delivery_was_paused_are_told_to_the_byte(
    tmp_path: Path, patient: None
) -> None:
    """Of a segment that was begun since the start, most of it in a message and the rest still to be sent."""
    count = BATCH_ITEMS_MAX + 50
    async with peer_of(hanging) as peer, omen(tmp_path, peer.port) as server:
        await server.delivery.PauseDelivery(PauseDeliveryRequest(reason="a look at it"))
        await asyncio.gather(*map(server.to_ledger, range(count)))
        await server.delivery.ResumeDelivery(ResumeDeliveryRequest())
        await peer.until(lambda peer: len(peer.records) == BATCH_ITEMS_MAX)
        state = await server.state()
        held = await server.records()
    assert state.backlog_record_count == count
    assert state.backlog_bytes == sum(frame_bytes(len(record.event)) for record in held)


async def test_the_age_is_that_of_the_oldest_while_a_backlog_drains(tmp_path: Path, patient: None) -> None:
    await ledger_of(tmp_path, 2 * BATCH_ITEMS_MAX)
    oldest, last = records_of(tmp_path)[0].written_at, records_of(tmp_path)[-1].written_at
    may_answer = asyncio.Event()
    async with peer_of(when_told(may_answer)) as peer, omen(tmp_path, peer.port) as server:
        await peer.until(lambda peer: len(peer.batches) == 2)
        await server.to_ledger(5000)
        state = await server.state()
        [record] = (await server.records())[-1:]
        waited_us = record.written_at.ToMicroseconds() - oldest
        assert state.oldest_unsettled_age.ToMicroseconds() >= waited_us > record.written_at.ToMicroseconds() - last
        may_answer.set()
        await server.until_drained()
        assert not (await server.state()).HasField("oldest_unsettled_age")


def test_what_is_kept_in_memory_is_bounded_and_given_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newest, "BYTES_MAX", 50)
    kept, segment = Newest(), Segment("2026-01-29", 1, b"s" * 16, 9)
    for index in range(1, 9):
        kept.keep(Record(at(index), 0, 0, b"0123456789"))
    assert [each.position.record_index for each in kept.take(Run(segment, 1, 8), 25)] == [1, 2]
    assert [each.position.record_index for each in kept.take(Run(segment, 3, 8), 1000)] == [3, 4, 5]
    assert kept.take(Run(segment, 6, 8), 1000) == []
    kept.keep(Record(at(9), 0, 0, b"0" * 50))
    kept.drop(Run(segment, 9, 9))
    kept.keep(Record(at(10), 0, 0, b"0" * 50))
    assert len(kept.take(Run(segment, 10, 10), 10)) == 1  # one at least, whatever its size
