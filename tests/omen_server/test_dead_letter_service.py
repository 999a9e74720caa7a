"""The life of a dead letter between both servers: rejected, listed, redriven, dropped, and found again when lost."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import riskcast_server.services.ingest
from contract.errors import ContractError, Reason
from omen.v1 import delivery_service_pb2 as pb
from omen.v1 import ledger_service_pb2 as ledger_pb
from omen.v1 import signal_service_pb2 as signal_pb
from omen.v1.ledger_record_pb2 import IndexRange, SegmentRanges
from omen_server.dead_letters import DeadLetters
from omen_server.delivery.settling import REJECTIONS_IN_A_ROW_MAX
from riskcast.v1 import ingest_service_pb2 as ingest_pb
from riskcast.v1 import reconcile_service_pb2 as reconcile_pb
from tests.omen_server.letters import NO, Door, attempts, both, drop, listed, redrive, short
from tests.omen_server.running import (
    DEADLINE_S,
    DELIVERED,
    REJECTED,
    Omen,
    Riskcast,
    closed_port,
    event,
    omen,
    riskcast,
)
from tests.omen_server.scripted_riskcast import Peer, Requests, answering, hello, outcomes, peer_of, stored
from tests.riskcast_server.running import Client

BAD = "Will it be refused?"


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Door:
    door = Door(monkeypatch)
    door.refused.add(BAD)
    return door


async def until_listed(server: Omen, *counts: int) -> None:
    """Until the dead letters have been tried so often, oldest first."""
    async with asyncio.timeout(DEADLINE_S):
        while await attempts(server) != list(counts):
            pass


async def status_of(server: Omen, signal_id: str) -> "signal_pb.DeliveryStatus.ValueType":
    request = signal_pb.GetSignalRequest(signal_id=signal_id)
    answer: signal_pb.GetSignalResponse = await server.signals.GetSignal(request, timeout=DEADLINE_S)
    return answer.delivery_status


async def compared(store: Riskcast) -> reconcile_pb.PartitionFinished:
    """What Reconcile says of the one partition there is."""
    told = await Client(store.channel).reconcile(include_open=True)
    [finished] = [each.partition_finished for each in told if each.HasField("partition_finished")]
    return finished


async def test_rejected_listed_redriven_in_vain_and_once_more_it_is_stored_and_gone(tmp_path: Path, door: Door) -> None:
    async with both(tmp_path) as (server, store):
        emission = await server.emit(event(1, title=BAD))
        assert emission.status == REJECTED
        assert (await server.emit(event(2))).status == DELIVERED
        [letter] = await listed(server)
        [record, _] = await server.records()
        assert letter.record == record
        assert letter.rejection == emission.rejection
        assert letter.first_rejected_at == letter.last_rejected_at
        assert not letter.HasField("redrive_requested_at")
        assert await status_of(server, emission.signal_id) == signal_pb.DELIVERY_STATUS_DEAD_LETTER

        assert await redrive(server, reason="INVALID_SIGNAL") == 1
        await until_listed(server, 2)
        [again] = await listed(server)
        assert again.first_rejected_at == letter.first_rejected_at
        assert again.last_rejected_at.ToMicroseconds() > letter.last_rejected_at.ToMicroseconds()
        assert await store.count() == 1

        door.refused.clear()
        assert await redrive(server, positions=[letter.record.position]) == 1
        await until_listed(server)
        assert (await store.stored(emission.signal_id)).event.signal.title == BAD
        assert await status_of(server, emission.signal_id) == signal_pb.DELIVERY_STATUS_SETTLED
        assert await redrive(server, positions=[letter.record.position]) == 0


async def test_what_is_dropped_stands_in_no_reconciles_way_any_more(tmp_path: Path, door: Door) -> None:
    async with both(tmp_path) as (server, store):
        await server.emit(event(1))
        bad = [await server.emit(event(number, title=BAD)) for number in (2, 3, 5)]
        assert (await compared(store)).state.status == reconcile_pb.RECONCILE_STATUS_PARTIAL
        assert await drop(server, "  a test signal\n", positions=[short(each.position) for each in bad[:2]]) == 2
        assert (await compared(store)).state.status == reconcile_pb.RECONCILE_STATUS_PARTIAL
        assert await drop(server, "the rest", reason="INVALID_SIGNAL") == 1
        finished = await compared(store)
        assert (finished.state.status, finished.failed_record_count) == (reconcile_pb.RECONCILE_STATUS_COMPLETED, 0)
        partition = await server.ledger.GetPartition(
            ledger_pb.GetPartitionRequest(partition=bad[0].position.partition), timeout=DEADLINE_S
        )
        first, last = bad[0].position.sequence, bad[-1].position.sequence
        assert list(partition.dropped_sequences) == [ledger_pb.SequenceRange(first=first, last=last)]
        told = [(letter.drop_reason, letter.HasField("dropped_at")) for letter in await listed(server)]
        assert told == [("a test signal", True), ("a test signal", True), ("the rest", True)]


async def test_a_redrive_asked_for_without_riskcast_survives_a_restart_and_is_sent_with_the_next_hello(
    tmp_path: Path,
) -> None:
    async with peer_of(answering(lambda record: NO)) as peer, omen(tmp_path, peer.port) as server:
        await server.emit(event(1))
        await server.emit(event(2))
    async with omen(tmp_path, closed_port()) as server:
        first, second = await listed(server)
        assert await redrive(server, positions=[first.record.position]) == 1
    settled = {first.record.position.segment_id: [(1, 2)]}
    async with peer_of(answering(settled=settled)) as peer, omen(tmp_path, peer.port) as server:
        await peer.until(lambda peer: len(peer.records) == 1)
        async with asyncio.timeout(DEADLINE_S):
            while await listed(server) != [second]:
                pass
    assert [record.position for record in peer.records] == [first.record.position]


async def test_while_delivery_is_paused_dead_letters_are_redriven_and_dropped_for_when_it_goes_on(
    tmp_path: Path, door: Door
) -> None:
    async with riskcast(tmp_path / "db") as store, omen(tmp_path / "ledger", store.port) as server:
        redriven, dropped = [await server.emit(event(number, title=BAD)) for number in (1, 2)]
        await server.delivery.PauseDelivery(pb.PauseDeliveryRequest(reason="a look at it"))
        assert await redrive(server, positions=[redriven.position, dropped.position]) == 2
        assert await drop(server, "given up", positions=[dropped.position]) == 1
        assert await attempts(server) == [1, 1]
        door.refused.clear()
        await server.delivery.ResumeDelivery(pb.ResumeDeliveryRequest())
        await until_listed(server, 1)
        [letter] = await listed(server)
        assert letter.drop_reason == "given up"
        await server.emit(event(3))
        assert store.ids().count(redriven.signal_id) == 1
        assert store.ids().count(dropped.signal_id) == 0


async def test_redriven_again_while_it_is_on_its_way_it_is_sent_once(tmp_path: Path) -> None:
    answer_now = asyncio.Event()

    async def waits(peer: Peer, requests: Requests) -> AsyncIterator[ingest_pb.IngestStreamResponse]:
        await peer.next_hello(requests)
        yield hello()
        await peer.next_batch(requests)
        yield outcomes([NO])
        while True:
            batch = await peer.next_batch(requests)
            await answer_now.wait()
            yield outcomes([stored(record) for record in batch])

    async with peer_of(waits) as peer, omen(tmp_path, peer.port) as server:
        emission = await server.emit(event(1))
        picked = {"positions": [short(emission.position)]}
        assert await redrive(server, **picked) == 1
        await peer.until(lambda peer: len(peer.records) == 2)
        assert await redrive(server, **picked) == 1
        answer_now.set()
        await until_listed(server)
        await server.emit(event(2))
    assert len(peer.records) == 3


async def test_redriven_in_the_moment_it_becomes_a_dead_letter_it_is_sent_again_without_a_new_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = DeadLetters.record
    servers: list[Omen] = []

    async def redriven_at_once(letters: DeadLetters, rejected: Any) -> None:
        await record(letters, rejected)
        await redrive(servers[0], reason="INVALID_SIGNAL")

    monkeypatch.setattr(DeadLetters, "record", redriven_at_once)
    verdicts = iter([NO])
    async with (
        peer_of(answering(lambda record: next(verdicts, None) or stored(record))) as peer,
        omen(tmp_path, peer.port) as server,
    ):
        servers.append(server)
        assert (await server.emit(event(1))).status == REJECTED
        await until_listed(server)
    assert (len(peer.records), len(peer.hellos)) == (2, 1)


async def test_killed_between_riskcasts_answer_and_its_own_write_omen_finds_the_dead_letter_at_the_next_start(
    tmp_path: Path, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with riskcast(tmp_path / "db") as store:
        answered = asyncio.Event()

        async def dies(letters: DeadLetters, rejected: object) -> None:
            answered.set()
            await asyncio.Event().wait()

        with monkeypatch.context() as killed:
            killed.setattr(DeadLetters, "record", dies)
            async with omen(tmp_path / "ledger", store.port) as server:
                await server.to_ledger(1)
                await server.emit(event(2, title=BAD), wait_for=signal_pb.WAIT_FOR_LEDGER)
                await answered.wait()
                assert await listed(server) == []
        async with omen(tmp_path / "ledger", store.port) as server:
            await until_listed(server, 1)
            [letter] = await listed(server)
        assert letter.rejection.violations[0].field == "signal.title"
        assert await store.count() == 1


async def test_when_delivery_db_takes_nothing_the_record_is_asked_about_again_until_it_does(
    tmp_path: Path, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = DeadLetters.record
    refused: list[int] = []

    async def refuses_once(letters: DeadLetters, rejected: Any) -> None:
        if not refused:
            refused.append(1)
            raise ContractError(Reason.LEDGER_UNAVAILABLE, "delivery.db cannot be used now", retry_delay_s=0.1)
        await record(letters, rejected)

    monkeypatch.setattr(DeadLetters, "record", refuses_once)
    async with riskcast(tmp_path / "db") as store, omen(tmp_path / "ledger", store.port) as server:
        await server.emit(event(1, title=BAD), wait_for=signal_pb.WAIT_FOR_LEDGER)
        await until_listed(server, 1)
    assert refused == [1]


def set_aside(ledger: Path) -> None:
    for path in list(ledger.glob("delivery.db*")):
        path.rename(ledger.parent / path.name)


async def test_without_its_delivery_db_omen_finds_every_dead_letter_again_and_those_that_were_dropped_wait(
    tmp_path: Path, door: Door
) -> None:
    async with riskcast(tmp_path / "db") as store:
        async with omen(tmp_path / "ledger", store.port) as server:
            for number in range(1, 6):
                await server.emit(event(number, title=BAD if number in (2, 3, 5) else "Will it close?"))
            await drop(server, "given up", positions=[short((await listed(server))[0].record.position)])
            before = await listed(server)
        set_aside(tmp_path / "ledger")
        async with omen(tmp_path / "ledger", store.port) as server:
            await until_listed(server, 1, 1, 1)
            after = await listed(server)
            assert await store.count() == 2
    assert [letter.record for letter in after] == [letter.record for letter in before]
    assert [letter.drop_reason for letter in after] == ["", "", ""]


async def test_of_more_rejections_than_fit_into_a_hello_omen_finds_every_dead_letter_again(
    tmp_path: Path, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(riskcast_server.services.ingest, "HELLO_REJECTED_MAX", 2)
    async with riskcast(tmp_path / "db") as store:
        for start in (1, 6):  # each start makes a segment of its own
            async with omen(tmp_path / "ledger", store.port) as server:
                for number in range(start, start + 5):
                    await server.emit(event(number, title=BAD if number != 4 else "Will it close?"))
                before = await listed(server)
        set_aside(tmp_path / "ledger")
        async with omen(tmp_path / "ledger", store.port) as server:
            await until_listed(server, *[1] * 9)
            after = await listed(server)
            assert await store.count() == 1
    assert [letter.record for letter in after] == [letter.record for letter in before]


async def test_a_hundred_that_are_only_asked_about_again_do_not_pause_delivery(tmp_path: Path, door: Door) -> None:
    """They were rejected among others, one by one; asked about again they come in a row."""
    count = REJECTIONS_IN_A_ROW_MAX + 1
    async with riskcast(tmp_path / "db") as store:
        async with omen(tmp_path / "ledger", closed_port()) as server:
            for number in range(count):
                await server.to_ledger(2 * number)
                await server.emit(event(2 * number + 1, title=BAD), wait_for=signal_pb.WAIT_FOR_LEDGER)
        async with omen(tmp_path / "ledger", store.port) as server:
            await server.until_drained()
            assert len(await listed(server, page_size=1000)) == count
        set_aside(tmp_path / "ledger")
        async with omen(tmp_path / "ledger", store.port) as server:
            await server.until_drained()
            assert await redrive(server, reason="INVALID_SIGNAL") == count
            async with asyncio.timeout(DEADLINE_S):
                while {letter.attempt_count for letter in await listed(server, page_size=1000)} != {2}:
                    pass
            assert (await server.state()).phase == pb.DELIVERY_PHASE_FOLLOWING
            assert (await server.emit(event(2 * count))).status == DELIVERED


async def test_what_is_known_is_not_sent_again_at_a_restart_whether_it_waits_or_was_dropped(
    tmp_path: Path, door: Door
) -> None:
    async with riskcast(tmp_path / "db") as store:
        async with omen(tmp_path / "ledger", store.port) as server:
            await server.emit(event(1, title=BAD))
            emission = await server.emit(event(2, title=BAD))
            await drop(server, "given up", positions=[short(emission.position)])
        async with omen(tmp_path / "ledger", store.port) as server:
            await server.emit(event(3))
            assert await attempts(server) == [1, 1]


async def test_of_a_hello_only_records_that_the_ledger_has_are_sent_again(tmp_path: Path) -> None:
    async def says(peer: Peer, requests: Requests) -> AsyncIterator[ingest_pb.IngestStreamResponse]:
        asked = await peer.next_hello(requests)
        segment_id = asked.segments[0].segment_id
        answer = hello({segment_id: [(1, 9)]})
        answer.hello.rejected.append(SegmentRanges(segment_id=segment_id, ranges=[IndexRange(first=2, last=9)]))
        answer.hello.rejected.append(SegmentRanges(segment_id=bytes(16), ranges=[IndexRange(first=1, last=9)]))
        yield answer
        while True:
            yield outcomes([NO for _ in await peer.next_batch(requests)])

    async with omen(tmp_path, closed_port()) as server:
        await server.to_ledger(1, 2)
    async with peer_of(says) as peer, omen(tmp_path, peer.port) as server:
        await until_listed(server, 1)
        await server.until_drained()
    assert [record.position.sequence & 0xFFFFFFFF for record in peer.records] == [2]


async def test_a_riskcast_restored_from_an_older_copy_that_now_takes_a_dead_letter_ends_it(
    tmp_path: Path, door: Door
) -> None:
    async with riskcast(tmp_path / "db") as store, omen(tmp_path / "ledger", store.port) as server:
        await server.emit(event(1, title=BAD))
        assert len(await listed(server)) == 1
    door.refused.clear()
    async with riskcast(tmp_path / "older db") as store, omen(tmp_path / "ledger", store.port) as server:
        await until_listed(server)
        assert await store.count() == 1
