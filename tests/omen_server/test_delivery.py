"""What delivery sends, in which order, how much at once, and that it finds its way back by itself."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contract.limits import BATCH_BYTES_MAX, BATCH_ITEMS_MAX
from ledger import Record
from omen.v1 import signal_service_pb2 as pb
from omen.v1.delivery_service_pb2 import DELIVERY_PHASE_CONNECTING, DELIVERY_PHASE_FOLLOWING
from omen.v1.signal_pb2 import Evidence
from omen_server.delivery import stream
from omen_server.delivery.stream import MESSAGES_IN_FLIGHT
from riskcast.v1 import ingest_service_pb2 as ingest_pb
from tests.ledger.faults import flip_byte, segment_of
from tests.omen_server.running import DELIVERED, LEDGER_ONLY, closed_port, event, omen, records_of, riskcast
from tests.omen_server.scripted_riskcast import (
    Peer,
    Requests,
    answering,
    ending,
    hello,
    outcomes,
    peer_of,
    stored,
)


async def ledger_of(directory: Path, count: int) -> None:
    """A ledger that holds events 1..count, none of them delivered."""
    async with omen(directory, closed_port()) as server:
        await asyncio.gather(*(server.to_ledger(number) for number in range(1, count + 1)))


async def test_what_was_in_the_ledger_before_the_start_is_delivered_in_order(tmp_path: Path) -> None:
    await ledger_of(tmp_path, 600)
    async with peer_of(answering()) as peer, omen(tmp_path, peer.port) as server:
        await server.until_drained()
    held = records_of(tmp_path)
    assert len(held) == 600
    assert [(sent.position.sequence, sent.event) for sent in peer.records] == [
        (record.position.sequence, record.payload) for record in held
    ]


async def test_the_hello_names_the_ledger_and_every_segment_with_its_count(tmp_path: Path) -> None:
    await ledger_of(tmp_path, 3)
    async with peer_of(answering()) as peer, omen(tmp_path, peer.port) as server:
        await server.until_drained()
        emission = await server.emit(event(4))
    [said] = peer.hellos
    segments = {record.position.segment_id for record in records_of(tmp_path)[:3]}
    assert said.ledger_id == emission.position.ledger_id
    assert [(each.segment_id, each.record_count) for each in said.segments] == [(only, 3) for only in segments]


async def test_more_segments_than_a_hello_takes_are_asked_about_in_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "HELLO_SEGMENTS_MAX", 2)
    async with riskcast(tmp_path / "db") as store:
        for number in range(5):  # each start makes a segment of its own
            async with omen(tmp_path / "ledger", store.port) as server:
                await server.emit(event(number))
    held = records_of(tmp_path / "ledger")
    assert len({record.position.segment_id for record in held}) == 5
    settled = {record.position.segment_id: [(1, 1)] for record in held if record is not held[1]}

    async def answers_for_what_it_is_asked(
        peer: Peer, requests: Requests
    ) -> AsyncIterator[ingest_pb.IngestStreamResponse]:
        asked = {each.segment_id for each in (await peer.next_hello(requests)).segments}
        yield hello({segment_id: runs for segment_id, runs in settled.items() if segment_id in asked})
        while True:
            yield outcomes([stored(record) for record in await peer.next_batch(requests)])

    async with peer_of(answers_for_what_it_is_asked) as peer, omen(tmp_path / "ledger", peer.port) as server:
        await server.until_drained()
    assert [len(said.segments) for said in peer.hellos] == [2, 2, 1]
    assert [record.event for record in peer.records] == [held[1].payload]


async def test_what_the_hello_says_is_settled_is_not_sent_and_holes_are(tmp_path: Path) -> None:
    await ledger_of(tmp_path, 10)
    segment_id = records_of(tmp_path)[0].position.segment_id
    settled = {segment_id: [(1, 3), (5, 5), (8, 9)]}
    async with peer_of(answering(settled=settled)) as peer, omen(tmp_path, peer.port) as server:
        await server.until_drained()
        await server.emit(event(11))
    sent = [record.position.sequence & 0xFFFFFFFF for record in peer.records]
    assert sent == [4, 6, 7, 10, 1]
    assert [len(batch) for batch in peer.batches] == [4, 1]


async def test_a_message_holds_at_most_256_records(tmp_path: Path) -> None:
    await ledger_of(tmp_path, 700)
    async with peer_of(answering()) as peer, omen(tmp_path, peer.port) as server:
        await server.until_drained()
    assert [len(batch) for batch in peer.batches] == [BATCH_ITEMS_MAX, BATCH_ITEMS_MAX, 700 - 2 * BATCH_ITEMS_MAX]


async def test_scattered_records_share_a_message(tmp_path: Path) -> None:
    await ledger_of(tmp_path, 700)
    segment_id = records_of(tmp_path)[0].position.segment_id
    settled = {segment_id: [(index, index) for index in range(2, 701, 2)]}
    async with peer_of(answering(settled=settled)) as peer, omen(tmp_path, peer.port) as server:
        await server.until_drained()
    indexes = [record.position.sequence & 0xFFFF_FFFF for record in peer.records]
    assert indexes == list(range(1, 701, 2))
    assert [len(batch) for batch in peer.batches] == [BATCH_ITEMS_MAX, 350 - BATCH_ITEMS_MAX]


async def test_a_message_holds_at_most_1_mib(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()) as server:
        for number in range(12):
            large = event(number)
            large.signal.evidence.extend(
                Evidence(source="s", source_type=large.signal.source_class, value="v", url="u" * 2048)
                for _ in range(60)
            )
            for evidence in large.signal.evidence:
                evidence.observed_at.CopyFrom(large.observed_at)
            large.signal.description = "ä" * 5000
            large.canonical_observation = b"c" * 65_000
            large.ClearField("input_event_hash")
            await server.emit(large, wait_for=pb.WAIT_FOR_LEDGER)
    assert sum(len(record.payload) for record in records_of(tmp_path)) > 2 * BATCH_BYTES_MAX
    async with peer_of(answering()) as peer, omen(tmp_path, peer.port) as server:
        await server.until_drained()
    assert [record.event for record in peer.records] == [record.payload for record in records_of(tmp_path)]
    sizes = [ingest_pb.IngestBatch(records=batch).ByteSize() for batch in peer.batches]
    assert max(sizes) <= BATCH_BYTES_MAX
    assert len(sizes) <= 4


async def test_no_more_messages_are_unanswered_than_the_window_holds(tmp_path: Path) -> None:
    unanswered: list[int] = []

    async def answers_late(peer: Peer, requests: Requests) -> AsyncIterator[ingest_pb.IngestStreamResponse]:
        """Answers the oldest message only when the window is full, or everything has arrived."""
        await peer.next_hello(requests)
        yield hello()
        waiting = []
        while True:
            waiting.append(await peer.next_batch(requests))
            unanswered.append(len(waiting))
            while waiting and (len(waiting) == MESSAGES_IN_FLIGHT or len(peer.records) == 20 * BATCH_ITEMS_MAX):
                yield outcomes([stored(record) for record in waiting.pop(0)])

    await ledger_of(tmp_path, 20 * BATCH_ITEMS_MAX)
    async with peer_of(answers_late) as peer, omen(tmp_path, peer.port) as server:
        await server.until_drained()
    assert len(peer.batches) == 20
    assert max(unanswered) == MESSAGES_IN_FLIGHT


async def test_a_window_that_is_full_stays_full_until_an_answer_comes(tmp_path: Path) -> None:
    may_answer = asyncio.Event()

    async def answers_when_told(peer: Peer, requests: Requests) -> AsyncIterator[ingest_pb.IngestStreamResponse]:
        await peer.next_hello(requests)
        yield hello()
        first = await peer.next_batch(requests)
        reader = asyncio.create_task(read_all(peer, requests))
        await may_answer.wait()
        yield outcomes([stored(record) for record in first])
        await reader

    async def read_all(peer: Peer, requests: Requests) -> None:
        while True:
            await peer.next_batch(requests)

    await ledger_of(tmp_path, 6 * BATCH_ITEMS_MAX)
    async with peer_of(answers_when_told) as peer, omen(tmp_path, peer.port) as server:
        await peer.until(lambda peer: len(peer.batches) == MESSAGES_IN_FLIGHT)
        for _ in range(50):  # time enough for a message too many
            await server.state()
        assert len(peer.batches) == MESSAGES_IN_FLIGHT
        may_answer.set()
        await peer.until(lambda peer: len(peer.batches) == MESSAGES_IN_FLIGHT + 1)


async def test_riskcast_stopped_and_started_again_is_found_and_everything_converges(tmp_path: Path) -> None:
    database = tmp_path / "db"
    port = closed_port()
    async with omen(tmp_path / "ledger", port) as server:
        async with riskcast(database, port):
            await server.until_state(lambda state: state.phase == DELIVERY_PHASE_FOLLOWING)
            assert (await server.emit(event(1))).status == DELIVERED
        for number in range(2, 50):
            await server.emit(event(number))
        assert (await server.state()).phase == DELIVERY_PHASE_CONNECTING
        async with riskcast(database, port) as store:
            state = await server.until_state(lambda state: state.phase == DELIVERY_PHASE_FOLLOWING)
            await server.until_drained()
            assert len(set(store.ids())) == await store.count() == 49
            assert (await server.emit(event(50))).status == DELIVERED
    assert state.last_error


async def test_a_riskcast_restored_from_an_older_copy_is_refilled_by_the_next_hello(tmp_path: Path) -> None:
    database, older = tmp_path / "db", tmp_path / "older"
    async with riskcast(database) as store, omen(tmp_path / "ledger", store.port) as server:
        port = store.port
        await server.emit(event(1))
    shutil.copy(database, older)
    async with riskcast(database, port) as store, omen(tmp_path / "ledger", port) as server:
        first = [await server.emit(event(number)) for number in range(2, 20)]
    shutil.copy(older, database)
    async with omen(tmp_path / "ledger", port) as server, riskcast(database, port) as store:
        await server.until_drained()
        assert await store.count() == 19
        for emission in first:
            assert (await store.stored(emission.signal_id)).ack_id == emission.ack_id


def damage(directory: Path, record: Record) -> None:
    segment = segment_of(directory, record.position.segment_ordinal, record.position.partition)
    flip_byte(segment, segment.read_bytes().index(record.payload) + 10)


async def test_a_record_found_damaged_is_stepped_over_and_no_other_is_left_out(tmp_path: Path) -> None:
    await ledger_of(tmp_path, 600)
    held = records_of(tmp_path)
    damage(tmp_path, held[99])
    async with peer_of(answering()) as peer, omen(tmp_path, peer.port) as server:
        await server.until_drained()
    assert [record.event for record in peer.records] == [record.payload for record in held if record is not held[99]]


async def test_what_was_under_way_when_a_stream_broke_is_sent_again_though_nobody_waits_for_it(tmp_path: Path) -> None:
    await ledger_of(tmp_path, 3)
    async with peer_of(ending(None, after=1), answering()) as peer, omen(tmp_path, peer.port) as server:
        await peer.until(lambda peer: len(peer.batches) == 2)
        await server.until_drained()
    assert peer.batches[0] == peer.batches[1]
    assert len(peer.batches[1]) == 3


async def test_a_record_that_rots_while_all_around_it_is_settled_holds_nothing_up(tmp_path: Path) -> None:
    await ledger_of(tmp_path, 200)
    held = records_of(tmp_path)
    settled = {held[0].position.segment_id: [(1, 99), (101, 199)]}
    port = closed_port()
    async with omen(tmp_path, port) as server:
        damage(tmp_path, held[99])
        async with peer_of(answering(settled=settled), listen=f"127.0.0.1:{port}") as peer:
            await server.until_drained()
    assert [record.event for record in peer.records] == [held[199].payload]


async def test_an_emit_while_a_backlog_drains_is_delivered_too(tmp_path: Path) -> None:
    await ledger_of(tmp_path / "ledger", 2000)
    async with riskcast(tmp_path / "db") as store, omen(tmp_path / "ledger", store.port) as server:
        emissions = await asyncio.gather(*(server.emit(event(number)) for number in range(2001, 2101)))
        assert {emission.status for emission in emissions} <= {DELIVERED, LEDGER_ONLY}  # by how fast this machine is
        await server.until_drained()
        assert await store.count() == 2100
