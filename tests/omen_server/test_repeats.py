"""A signal that is emitted again is one record as long as OMEN remembers it, and never a second row."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from ledger import Position
from omen.v1 import signal_service_pb2 as pb
from omen_server.appends import Append, Request
from omen_server.recent import RecentSignals
from riskcast.v1 import ingest_service_pb2 as ingest_pb
from tests.omen_server.running import (
    DELIVERED,
    DUPLICATE,
    LEDGER_ONLY,
    REJECTED,
    closed_port,
    event,
    omen,
    riskcast,
    seconds,
)
from tests.omen_server.scripted_riskcast import Peer, Requests, answering, hello, outcomes, peer_of, stored
from tests.omen_server.test_ledger_failures import HeldDisk, OpenedWith, opened_with
from tests.riskcast_server.events import NOON

__all__ = ["opened_with"]


async def test_a_twin_waits_for_the_record_that_is_on_its_way_and_one_of_them_is_delivered(tmp_path: Path) -> None:
    may_answer = asyncio.Event()

    async def answers_when_told(peer: Peer, requests: Requests) -> AsyncIterator[ingest_pb.IngestStreamResponse]:
        await peer.next_hello(requests)
        yield hello()
        while True:
            batch = await peer.next_batch(requests)
            await may_answer.wait()
            yield outcomes([stored(record) for record in batch])

    async with peer_of(answers_when_told) as peer, omen(tmp_path, peer.port) as server:
        first = asyncio.create_task(server.emit(event(1), delivery_timeout=seconds(10)))
        await peer.until(lambda peer: len(peer.records) == 1)
        twins = [asyncio.create_task(server.emit(event(1), delivery_timeout=seconds(10))) for _ in range(10)]
        ledger_only = await server.emit(event(1), wait_for=pb.WAIT_FOR_LEDGER)
        impatient = await server.emit(event(1), delivery_timeout=seconds(0.1))
        may_answer.set()
        emissions = [await first, *[await twin for twin in twins]]
        assert len(await server.records()) == len(peer.records) == 1
    assert [each.status for each in emissions] == [DELIVERED] + [DUPLICATE] * 10
    assert len({each.ack_id for each in emissions}) == 1
    assert {each.position.sequence for each in (*emissions, ledger_only, impatient)} == {1 << 32 | 1}
    assert (ledger_only.status, ledger_only.ledger_only_reason) == (LEDGER_ONLY, "")
    assert (impatient.status, impatient.ledger_only_reason) == (LEDGER_ONLY, "RiskCast did not answer within 0.1 s")


async def test_nobody_is_answered_from_a_record_that_is_not_fsynced_yet(
    tmp_path: Path, opened_with: OpenedWith
) -> None:
    disk = HeldDisk()
    opened_with(disk)
    async with peer_of(answering()) as peer, omen(tmp_path, peer.port) as server:
        await peer.until(lambda peer: len(peer.hellos) == 1)
        emits = [asyncio.create_task(server.emit(event(1))) for _ in range(3)]
        await asyncio.to_thread(disk.wait_for, lambda events: ("fdatasync_began", "segment-00000001.log") in events)
        for _ in range(50):
            await server.state()
        assert not any(emit.done() for emit in emits)
        disk.let_go.set()
        assert {(await emit).status for emit in emits} <= {DELIVERED, DUPLICATE}


async def test_a_repeat_while_riskcast_is_away_is_the_same_record_and_a_duplicate_once_it_was_delivered(
    tmp_path: Path,
) -> None:
    port = closed_port()
    async with omen(tmp_path / "ledger", port) as server:
        first, second = await server.emit(event(1)), await server.emit(event(1))
        assert (first.status, second.status) == (LEDGER_ONLY, LEDGER_ONLY)
        assert second.position == first.position
        assert "cannot be reached" in second.ledger_only_reason
        async with riskcast(tmp_path / "db", port) as store:
            await server.until_drained()
            third = await server.emit(event(1))
            assert (third.status, third.position) == (DUPLICATE, first.position)
            assert third.ack_id == (await store.stored(first.signal_id)).ack_id
        fourth = await server.emit(event(1), wait_for=pb.WAIT_FOR_LEDGER)
        assert (fourth.status, fourth.ack_id) == (DUPLICATE, third.ack_id)


async def test_a_repeat_after_a_restart_is_a_record_of_its_own_and_a_duplicate(tmp_path: Path) -> None:
    async with riskcast(tmp_path / "db") as store:
        async with omen(tmp_path / "ledger", store.port) as server:
            first = await server.emit(event(1))
        async with omen(tmp_path / "ledger", store.port) as server:
            second = await server.emit(event(1))
            assert len(await server.records()) == 2
        assert (second.status, second.ack_id) == (DUPLICATE, first.ack_id)
        assert await store.count() == 1


async def test_what_riskcast_rejected_is_a_record_of_its_own_when_it_is_emitted_again(tmp_path: Path) -> None:
    rejected = ingest_pb.RecordResult(
        outcome=ingest_pb.RECORD_OUTCOME_REJECTED, error=pb.ItemError(code=3, reason="INVALID_SIGNAL", message="no")
    )
    async with peer_of(answering(lambda record: rejected)) as peer, omen(tmp_path, peer.port) as server:
        emissions = [await server.emit(event(1)) for _ in range(2)]
        assert [each.status for each in emissions] == [REJECTED, REJECTED]
        assert len(await server.records()) == 2


async def test_the_record_a_repeat_would_wait_for_being_settled_unheard_it_is_sent_again(tmp_path: Path) -> None:
    """RiskCast took the record, and its answer was lost while nobody waited: only sending it again tells its ack_id."""

    async def forgets_to_answer(peer: Peer, requests: Requests) -> AsyncIterator[ingest_pb.IngestStreamResponse]:
        await peer.next_hello(requests)
        yield hello()
        await peer.next_batch(requests)

    async def has_settled_it(peer: Peer, requests: Requests) -> AsyncIterator[ingest_pb.IngestStreamResponse]:
        segment_id = peer.records[0].position.segment_id
        async for response in answering(settled={segment_id: [(1, 1)]})(peer, requests):
            yield response

    async with peer_of(forgets_to_answer, has_settled_it) as peer, omen(tmp_path, peer.port) as server:
        await server.to_ledger(1)
        await peer.until(lambda peer: len(peer.hellos) == 2)
        await server.until_drained()
        again = await server.emit(event(1))
    assert (again.status, again.position.sequence & 0xFFFF_FFFF) == (DELIVERED, 2)


def append(signal_id: str) -> Append:
    return Append(b"", NOON, signal_id, f"sha256:{signal_id}", Request(1, waits_for_riskcast=False))


def at(index: int) -> Position:
    return Position("2026-01-29", b"s" * 16, 1 << 32 | index)


async def test_the_oldest_are_forgotten_and_of_several_records_of_one_signal_the_first_is_kept() -> None:
    recent = RecentSignals(count_max=3)
    for index, signal_id in enumerate(["A", "B", "A", "C", "D"], 1):
        recent.enter(append(signal_id), at(index))
    assert recent.maybe_recent("A") is None
    known = [recent.maybe_recent(signal_id) for signal_id in ("B", "C", "D")]
    assert [each.position.record_index for each in known if each] == [2, 4, 5]
    recent.acknowledged((b"s" * 16, 2), "ack-b")
    recent.acknowledged((b"s" * 16, 1), "nobody's")
    assert [each.ack_id for each in known if each] == ["ack-b", "", ""]
    recent.refused((b"s" * 16, 4))
    assert recent.maybe_recent("C") is None
