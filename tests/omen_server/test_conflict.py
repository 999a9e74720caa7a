"""Two events share the first 48 bits of their digests: both are stored, the second under 32 digits."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from contract.identity import ack_id, identity_of_event
from omen.v1 import signal_service_pb2 as pb
from omen.v1.ledger_record_pb2 import LedgerRecord
from omen.v1.signal_event_pb2 import SignalEvent
from riskcast.v1 import ingest_service_pb2 as ingest_pb
from tests.ledger.faults import FaultyDisk
from tests.omen_server.days import DAY, write_days
from tests.omen_server.letters import NO, redrive
from tests.omen_server.running import DELIVERED, DUPLICATE, LEDGER_ONLY, REJECTED, event, omen, riskcast, seconds
from tests.omen_server.scripted_riskcast import Peer, Requests, answering, ending, hello, outcomes, peer_of, stored
from tests.omen_server.test_dead_letter_service import until_listed
from tests.omen_server.test_ledger_failures import OpenedWith
from tests.omen_server.test_ledger_failures import opened_with as opened_with

# Found by a search over 2^24 hashes: under these, and the ids of `colliding`, two digests begin with the same 48 bits.
COLLIDING_HASHES = [f"sha256:{'0' * 52}{end}" for end in ("7b94b6bfffcd", "f98d6039a818")]

CONFLICT = ingest_pb.RecordResult(
    outcome=ingest_pb.RECORD_OUTCOME_CONFLICT, error=pb.ItemError(code=6, reason="SIGNAL_ID_CONFLICT", message="taken")
)


def judge(record: LedgerRecord) -> ingest_pb.RecordResult:
    """Every id of 12 digits is taken."""
    return CONFLICT if len(SignalEvent.FromString(record.event).signal_id) == len("OMEN-") + 12 else stored(record)


async def test_a_conflict_is_emitted_again_under_32_digits_and_emit_answers_delivered_with_that_id(
    tmp_path: Path,
) -> None:
    wide_id = identity_of_event(event(1)).signal_id_of(32)
    async with peer_of(answering(judge)) as peer, omen(tmp_path, peer.port) as server:
        emission = await server.emit(event(1))
        held = [SignalEvent.FromString(record.event) for record in await server.records()]
        await server.until_drained()
    assert (emission.status, emission.signal_id) == (DELIVERED, wide_id)
    assert emission.ack_id == ack_id(wide_id, event(1).input_event_hash)
    assert [each.signal_id for each in held] == [identity_of_event(event(1)).signal_id, wide_id]
    assert emission.position.sequence & 0xFFFFFFFF == 2
    assert held[0].signal == held[1].signal
    assert held[0].input_event_hash == held[1].input_event_hash
    assert peer.ids == [each.signal_id for each in held]


async def test_conflicts_of_a_backlog_that_nobody_waits_for_are_emitted_again_too(tmp_path: Path) -> None:
    async with peer_of(ending(None, after=0)) as peer, omen(tmp_path, peer.port) as server:
        await server.to_ledger(*range(20))
    async with peer_of(answering(judge)) as peer, omen(tmp_path, peer.port) as server:
        await peer.until(lambda peer: len(peer.records) == 40)
        await server.until_drained()
    assert sorted(peer.ids[20:]) == sorted(identity_of_event(event(number)).signal_id_of(32) for number in range(20))


async def test_a_conflict_under_a_wide_id_is_answered_rejected_with_its_reason(tmp_path: Path) -> None:
    async with peer_of(answering(lambda record: CONFLICT)) as peer, omen(tmp_path, peer.port) as server:
        emission = await server.emit(event(1))
        await server.until_drained()
    assert (emission.status, emission.rejection) == (REJECTED, CONFLICT.error)
    assert len(peer.records) == 2


async def test_conflicts_of_a_day_that_takes_no_more_records_are_emitted_again_today(tmp_path: Path) -> None:
    write_days(tmp_path, count=2)
    began = datetime.now(UTC)
    async with peer_of(answering(judge)) as peer, omen(tmp_path, peer.port) as server:
        await peer.until(lambda peer: len(peer.records) == 4)
        await server.until_drained()
        held = await server.records()
    emitted = [SignalEvent.FromString(record.event) for record in held]
    assert [record.position.partition for record in held[:2]] == [DAY, DAY]
    assert [each.signal_id for each in emitted[2:]] == [
        identity_of_event(each).signal_id_of(32) for each in emitted[:2]
    ]
    for record, each in zip(held[2:], emitted[2:], strict=True):
        emitted_at = each.emitted_at.ToDatetime(UTC)
        assert emitted_at >= began
        assert record.position.partition == emitted_at.date().isoformat()


async def test_whoever_waits_for_a_conflict_that_the_ledger_does_not_take_again_yet_is_told_ledger_only(
    tmp_path: Path, opened_with: OpenedWith
) -> None:
    disk, may_answer = FaultyDisk(), asyncio.Event()
    opened_with(disk, free_bytes_min=1 << 20)

    async def answers_then(peer: Peer, requests: Requests) -> AsyncIterator[ingest_pb.IngestStreamResponse]:
        await peer.next_hello(requests)
        yield hello()
        batch = await peer.next_batch(requests)
        await may_answer.wait()
        yield outcomes([judge(record) for record in batch])

    async with peer_of(answers_then, answering(judge)) as peer, omen(tmp_path, peer.port) as server:
        emitting = asyncio.create_task(server.emit(event(1), delivery_timeout=seconds(60)))
        await peer.until(lambda peer: len(peer.records) == 1)
        disk.free = 1000
        may_answer.set()
        emission = await emitting
        disk.free = 1 << 30
        await peer.until(lambda peer: peer.ids[-1] == identity_of_event(event(1)).signal_id_of(32))
        await server.until_drained()
        first, _ = await server.records()
    assert (emission.status, emission.position) == (LEDGER_ONLY, first.position)
    assert emission.signal_id == SignalEvent.FromString(first.event).signal_id
    assert emission.ledger_only_reason == "another signal has its id, and it is to be emitted again: LEDGER_FULL"


async def test_a_dead_letter_that_meets_a_conflict_when_it_is_sent_again_is_none_any_more(tmp_path: Path) -> None:
    verdicts = iter([NO])
    async with (
        peer_of(answering(lambda record: next(verdicts, None) or judge(record))) as peer,
        omen(tmp_path, peer.port) as server,
    ):
        assert (await server.emit(event(1))).status == REJECTED
        assert await redrive(server, reason="INVALID_SIGNAL") == 1
        await until_listed(server)
        await server.until_drained()
        assert len(await server.records()) == 2
    first, again, wide = peer.ids
    assert first == again
    assert wide == identity_of_event(event(1)).signal_id_of(32)


async def test_with_a_real_riskcast_the_second_of_two_colliding_events_is_stored_beside_the_first(
    tmp_path: Path,
) -> None:
    """The row that event 1 would have gets the hash of another event: what a collision looks like in the store."""
    database = tmp_path / "db"
    async with riskcast(database) as store, omen(tmp_path / "other", store.port) as server:
        first = await server.emit(event(1))
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE signals SET input_event_hash = ?", (event(2).input_event_hash,))
    async with riskcast(database) as store, omen(tmp_path / "ledger", store.port) as server:
        emission = await server.emit(event(1))
        assert emission.status == DELIVERED
        assert emission.signal_id == identity_of_event(event(1)).signal_id_of(32)
        repeated = await server.emit(event(1))
        assert (repeated.status, repeated.signal_id) == (DUPLICATE, emission.signal_id)
        assert repeated.ack_id == emission.ack_id == (await store.stored(emission.signal_id)).ack_id
        assert sorted(store.ids()) == sorted([first.signal_id, emission.signal_id])
        await server.until_drained()


def colliding() -> list[SignalEvent]:
    """Two events with one signal_id of 12 digits."""
    made = [event(1), event(2)]
    for each, input_event_hash in zip(made, COLLIDING_HASHES, strict=True):
        each.source_event_id, each.ruleset_version = "market:collision", "1.0.0"
        each.input_event_hash = input_event_hash
    assert len({identity_of_event(each).signal_id_of(12) for each in made}) == 1
    assert len({identity_of_event(each).signal_id_of(32) for each in made}) == 2
    return made


async def test_the_second_of_two_events_that_really_collide_goes_under_32_digits_at_once(tmp_path: Path) -> None:
    one, other = colliding()
    async with riskcast(tmp_path / "db") as store, omen(tmp_path / "ledger", store.port) as server:
        emissions = [await server.emit(each) for each in (one, other, other, one)]
        assert [each.status for each in emissions] == [DELIVERED, DELIVERED, DUPLICATE, DUPLICATE]
        first, second, *repeats = [each.signal_id for each in emissions]
        assert second == identity_of_event(other).signal_id_of(32)
        assert repeats == [second, first]
        assert len(await server.records()) == 2
        assert sorted(store.ids()) == sorted([first, second])


async def test_two_events_that_really_collide_are_told_apart_by_riskcast_too(tmp_path: Path) -> None:
    """Another OMEN knows nothing of the first one: RiskCast says that the id is taken."""
    one, other = colliding()
    async with riskcast(tmp_path / "db") as store:
        async with omen(tmp_path / "ledger", store.port) as server:
            first = await server.emit(one)
        async with omen(tmp_path / "other", store.port) as server:
            second = await server.emit(other)
            assert len(await server.records()) == 2
        assert (first.status, second.status) == (DELIVERED, DELIVERED)
        assert second.signal_id == identity_of_event(other).signal_id_of(32)
        assert (await store.stored(second.signal_id)).event.input_event_hash == COLLIDING_HASHES[1]
        assert sorted(store.ids()) == sorted([first.signal_id, second.signal_id])
