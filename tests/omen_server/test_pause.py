"""An operator pauses delivery: it stops, says why wherever it is asked, outlives a restart, and loses nothing."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from contract.errors import Reason
from omen.v1.delivery_service_pb2 import (
    DELIVERY_PHASE_FOLLOWING,
    DELIVERY_PHASE_PAUSED,
    PauseDeliveryRequest,
    ResumeDeliveryRequest,
)
from riskcast.v1 import ingest_service_pb2 as ingest_pb
from tests.omen_server.running import (
    DEADLINE_S,
    DELIVERED,
    LEDGER_ONLY,
    Omen,
    closed_port,
    event,
    omen,
    refusal,
    riskcast,
    seconds,
)
from tests.omen_server.scripted_riskcast import Peer, Requests, answering, hello, peer_of


async def pause(server: Omen, reason: str) -> datetime:
    response = await server.delivery.PauseDelivery(PauseDeliveryRequest(reason=reason))
    at: datetime = response.paused_at.ToDatetime(UTC)
    return at


async def resume(server: Omen) -> bool:
    return bool((await server.delivery.ResumeDelivery(ResumeDeliveryRequest())).was_paused)


async def test_a_pause_stops_sending_and_emit_answers_ledger_only_at_once_with_the_reason(tmp_path: Path) -> None:
    async with riskcast(tmp_path / "db") as store, omen(tmp_path / "ledger", store.port) as server:
        await server.emit(event(1))
        await pause(server, "moving the database")
        async with asyncio.timeout(DEADLINE_S):
            emission = await server.emit(event(2), delivery_timeout=seconds(60))
        assert emission.status == LEDGER_ONLY
        assert emission.ledger_only_reason == "delivery is paused: moving the database"
        state = await server.state()
        assert (state.phase, state.reason) == (DELIVERY_PHASE_PAUSED, "moving the database")
        assert state.backlog_record_count == 1
        assert await store.count() == 1
        assert await resume(server)
        await server.until_drained()
        assert (await server.state()).phase == DELIVERY_PHASE_FOLLOWING
        assert await store.count() == 2
        assert (await server.emit(event(3))).status == DELIVERED


async def test_whoever_waits_when_a_pause_begins_is_answered(tmp_path: Path) -> None:
    async def says_nothing(peer: Peer, requests: Requests) -> AsyncIterator[ingest_pb.IngestStreamResponse]:
        await peer.next_hello(requests)
        yield hello()
        while True:
            await peer.next_batch(requests)

    async with peer_of(says_nothing, answering()) as peer, omen(tmp_path, peer.port) as server:
        emitting = asyncio.create_task(server.emit(event(1), delivery_timeout=seconds(60)))
        await peer.until(lambda peer: len(peer.records) == 1)
        await pause(server, "a look at it")
        async with asyncio.timeout(DEADLINE_S):
            assert (await emitting).status == LEDGER_ONLY
        await resume(server)
        await server.until_drained()
        assert len(peer.records) == 2


async def test_a_pause_survives_a_restart_with_its_reason_and_its_beginning(tmp_path: Path) -> None:
    async with peer_of(answering()) as peer:
        async with omen(tmp_path, peer.port) as server:
            began = await pause(server, "maintenance")
            await server.to_ledger(1)
        seen = len(peer.hellos)
        async with omen(tmp_path, peer.port) as server:
            state = await server.state()
            assert (state.phase, state.reason) == (DELIVERY_PHASE_PAUSED, "maintenance")
            assert state.paused_at.ToDatetime(UTC) == began
            assert not state.HasField("backlog_record_count")
            assert (await server.emit(event(2), delivery_timeout=seconds(60))).status == LEDGER_ONLY
            assert (len(peer.hellos), peer.records) == (seen, [])
            await resume(server)
            await server.until_drained()
        async with omen(tmp_path, peer.port) as server:
            assert not await resume(server)
            assert (await server.state()).phase != DELIVERY_PHASE_PAUSED


async def test_a_second_pause_gives_another_reason_and_keeps_the_beginning(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()) as server:
        began = await pause(server, "one")
        assert await pause(server, "another") == began
        state = await server.state()
        assert (state.reason, state.paused_at.ToDatetime(UTC)) == ("another", began)


@pytest.mark.parametrize("reason", ["", "   ", "x" * 501, "a\0b", "e\u0301"])
async def test_a_pause_needs_a_reason_of_at_most_500_characters_that_can_be_stored_as_it_is(
    tmp_path: Path, reason: str
) -> None:
    async with omen(tmp_path, closed_port()) as server:
        error = await refusal(server.delivery.PauseDelivery(PauseDeliveryRequest(reason=reason)))
        assert (await server.state()).phase != DELIVERY_PHASE_PAUSED
    assert error.reason == Reason.INVALID_SIGNAL
    assert [violation.field for violation in error.violations] == ["reason"]


async def test_blanks_around_a_reason_are_not_part_of_it(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()) as server:
        await pause(server, f"{' ' * 600}{'x' * 500}\n")
        assert (await server.state()).reason == "x" * 500


async def test_resuming_what_is_not_paused_is_no_error(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()) as server:
        assert not await resume(server)


async def test_a_pause_and_its_end_are_logged_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with omen(tmp_path, closed_port()) as server:
        await server.delivery.PauseDelivery(PauseDeliveryRequest(reason="a new disk"))
        for _ in range(2):
            await server.delivery.ResumeDelivery(ResumeDeliveryRequest())
    logged = capsys.readouterr().out
    assert [
        line.split("reason=")[1].strip() for line in logged.splitlines() if "delivery_paused_by_operator" in line
    ] == ["'a new disk'"]
    assert logged.count("delivery_resumed") == 1
