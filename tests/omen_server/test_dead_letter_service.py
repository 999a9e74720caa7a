"""The life of a dead letter between both servers: rejected, listed, redriven, dropped, and found again when lost."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from contract.errors import ContractError, Reason
from contract.limits import PAGE_BYTES_MAX
from omen.v1 import delivery_service_pb2 as pb
from omen.v1 import ledger_service_pb2 as ledger_pb
from omen.v1 import signal_service_pb2 as signal_pb
from omen.v1.ledger_record_pb2 import IndexRange, LedgerPosition, SegmentRanges
from omen_server.dead_letters import DeadLetters
from riskcast.v1 import ingest_service_pb2 as ingest_pb
from riskcast.v1 import reconcile_service_pb2 as reconcile_pb
from tests.ledger.faults import flip_byte, segment_of
from tests.omen_server.letters import Door, attempts, both, drop, ids, listed, page, redrive, short
from tests.omen_server.running import (
    DEADLINE_S,
    DELIVERED,
    REJECTED,
    Omen,
    Riskcast,
    closed_port,
    event,
    omen,
    refusal,
    riskcast,
)
from tests.omen_server.scripted_riskcast import Peer, Requests, answering, hello, outcomes, peer_of, stored
from tests.riskcast_server.running import Client

BAD = "Will it be refused?"
ERROR = signal_pb.ItemError(code=3, reason="INVALID_SIGNAL", message="no")
NO = ingest_pb.RecordResult(outcome=ingest_pb.RECORD_OUTCOME_REJECTED, error=ERROR)


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


async def rejected(server: Omen, *numbers: int) -> list[LedgerPosition]:
    return [(await server.emit(event(number))).position for number in numbers]


async def test_pages_go_on_where_the_one_before_ended_and_a_token_is_good_for_its_filter_alone(tmp_path: Path) -> None:
    async with peer_of(answering(lambda record: NO)) as peer, omen(tmp_path, peer.port) as server:
        positions = await rejected(server, *range(1, 8))
        first = await page(server, page_size=3)
        second = await page(server, page_size=3, page_token=first.next_page_token)
        third = await page(server, page_size=3, page_token=second.next_page_token)
        pages = [*first.dead_letters, *second.dead_letters, *third.dead_letters]
        assert [letter.record.position for letter in pages] == positions
        assert (len(first.dead_letters), len(third.dead_letters), third.next_page_token) == (3, 1, "")
        whole = await page(server, page_size=7)
        assert (len(whole.dead_letters), whole.next_page_token) == (7, "")
        other = {"filter": pb.DeadLetterFilter(reason="INVALID_SIGNAL"), "page_token": first.next_page_token}
        for asked in (other, {"page_token": "mistyped"}, {"page_token": first.next_page_token[:-4]}):
            error = await refusal(page(server, **asked))
            assert error.reason == Reason.INVALID_PAGE_TOKEN


async def test_a_page_ends_at_1_mib_and_nothing_is_left_out(tmp_path: Path) -> None:
    async with peer_of(answering(lambda record: NO)) as peer, omen(tmp_path, peer.port) as server:
        for number in range(20):
            large = event(number)
            large.canonical_observation = b"c" * 60_000
            large.ClearField("input_event_hash")
            large.signal.description = "ä" * 5000
            await server.emit(large)
        first = await page(server)
        rest = await page(server, page_token=first.next_page_token)
    assert 10 < len(first.dead_letters) < 20
    assert len(first.dead_letters) + len(rest.dead_letters) == 20
    assert first.ByteSize() <= PAGE_BYTES_MAX + 1024
    assert len(set(ids([*first.dead_letters, *rest.dead_letters]))) == 20


def flip_payload(segment: Path, part: bytes) -> None:
    flip_byte(segment, segment.read_bytes().index(part))


async def test_a_record_that_cannot_be_read_any_more_is_listed_without_its_event(tmp_path: Path) -> None:
    async with peer_of(answering(lambda record: NO)) as peer, omen(tmp_path, peer.port) as server:
        position, intact = await rejected(server, 1, 2)
    flip_payload(segment_of(tmp_path, partition=position.partition), b"market:1")
    async with omen(tmp_path, closed_port()) as server:
        damaged, other = await listed(server)
        assert await drop(server, "its bytes are gone", positions=[position]) == 1
    assert (damaged.record.position, damaged.record.event) == (position, b"")
    assert not damaged.record.HasField("written_at")
    assert damaged.rejection == ERROR
    assert (other.record.position, bool(other.record.event)) == (intact, True)


def of_another_file(ledger: Path) -> None:
    with closing(sqlite3.connect(ledger / "delivery.db")) as connection, connection:
        connection.execute("UPDATE dead_letters SET segment_id = zeroblob(16)")


async def test_a_dead_letter_of_a_file_that_the_ledger_has_no_longer_is_not_shown_with_what_has_its_name_now(
    tmp_path: Path,
) -> None:
    async with peer_of(answering(lambda record: NO)) as peer, omen(tmp_path, peer.port) as server:
        [position] = await rejected(server, 1)
    of_another_file(tmp_path)
    async with omen(tmp_path, closed_port()) as server:
        [letter] = await listed(server)
        assert (letter.record.position.sequence, letter.record.event) == (position.sequence, b"")
        assert await redrive(server, partition=position.partition) == 1


@pytest.mark.parametrize(
    ("picked", "field"),
    [
        ({}, "filter"),
        ({"positions": [LedgerPosition(partition="2026-01-29")]}, "filter.positions[0].sequence"),
        ({"positions": [LedgerPosition(sequence=1 << 32 | 1)]}, "filter.positions[0].partition"),
        (
            {"positions": [LedgerPosition(partition="2026-01-29", sequence=1 << 32 | 1, segment_id=b"short")]},
            "filter.positions[0].segment_id",
        ),
        ({"positions": [LedgerPosition(partition="2026-01-29", sequence=1 << 32 | 1)] * 257}, "filter.positions"),
        ({"reason": "R" * 65}, "filter.reason"),
        ({"reason": "é"}, "filter.reason"),
        ({"partition": "yesterday"}, "filter.partition"),
    ],
)
async def test_a_filter_that_is_empty_or_bad_picks_nothing_and_is_refused_by_name(
    tmp_path: Path, picked: dict[str, Any], field: str
) -> None:
    async with peer_of(answering(lambda record: NO)) as peer, omen(tmp_path, peer.port) as server:
        await rejected(server, 1)
        calls = [redrive(server, **picked), drop(server, "given up", **picked)]
        for call in [*calls, listed(server, filter=pb.DeadLetterFilter(**picked))] if picked else calls:
            error = await refusal(call)
            assert error.reason == Reason.INVALID_SIGNAL
            assert [violation.field for violation in error.violations] == [field]
        [letter] = await listed(server)
        assert (letter.attempt_count, letter.drop_reason) == (1, "")


@pytest.mark.parametrize("reason", ["", "  ", "x" * 501, "a\0b"])
async def test_dropping_needs_a_reason_of_at_most_500_characters(tmp_path: Path, reason: str) -> None:
    async with peer_of(answering(lambda record: NO)) as peer, omen(tmp_path, peer.port) as server:
        [position] = await rejected(server, 1)
        error = await refusal(drop(server, reason, positions=[position]))
        assert [violation.field for violation in error.violations] == ["reason"]
        assert (await listed(server))[0].drop_reason == ""


async def test_a_position_of_another_ledger_or_file_picks_no_dead_letter_of_this_one(tmp_path: Path) -> None:
    async with peer_of(answering(lambda record: NO)) as peer, omen(tmp_path, peer.port) as server:
        [position] = await rejected(server, 1)
        for changed in ({"ledger_id": "0c3f9a52-5d57-4f43-9a5d-6a1f4be0c7d3"}, {"segment_id": bytes(16)}):
            other = LedgerPosition()
            other.CopyFrom(position)
            for name, value in changed.items():
                setattr(other, name, value)
            assert await redrive(server, positions=[other]) == 0
            assert await drop(server, "given up", positions=[other]) == 0
            assert await listed(server, filter=pb.DeadLetterFilter(positions=[other])) == []
        assert await drop(server, "given up", positions=[position]) == 1
