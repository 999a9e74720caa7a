"""What OMEN counts is what happened, as whoever scrapes it over HTTP sees it."""

import asyncio
import errno
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from contract.errors import ContractError, Reason, timestamp
from contract.identity import identity_of_event
from ledger import LedgerReader, PartitionInfo, Seal, SealState, SegmentInfo, SegmentState
from omen.v1.delivery_service_pb2 import PauseDeliveryRequest
from omen.v1.ledger_record_pb2 import LedgerRecord
from omen.v1.ledger_service_pb2 import GetPartitionRequest
from omen.v1.signal_event_pb2 import SignalEvent
from omen.v1.signal_service_pb2 import WAIT_FOR_LEDGER, GetSignalRequest
from omen_server.journal import open_journal
from omen_server.metrics import PARTITION_STATES, ScrubMetrics, state_of
from omen_server.upkeep.scrub import scrub
from riskcast.v1 import ingest_service_pb2 as ingest_pb
from serving.tasks import beside
from tests.ledger.faults import FaultyDisk, flip_byte, seal_path, segment_of
from tests.omen_server.days import AGES_AGO, DAY, NEXT_DAY, write_days
from tests.omen_server.running import (
    DEADLINE_S,
    DELIVERED,
    DUPLICATE,
    LEDGER_ONLY,
    REJECTED,
    closed_port,
    event,
    omen,
    refusal,
    riskcast,
)
from tests.omen_server.scripted_riskcast import Script, answering, ending, hanging, peer_of, stored
from tests.omen_server.test_delivery_breaks import answers_with_a_second_hello
from tests.omen_server.test_ledger_failures import HeldDisk, OpenedWith
from tests.omen_server.test_ledger_failures import opened_with as opened_with
from tests.omen_server.test_upkeep import GuardedDisk
from tests.serving.scraping import scraper

APPENDS = "omen_ledger_appends_total"
RECORDS = "omen_delivery_records_total"
BACKLOG = "omen_delivery_backlog_records"
DISCONNECTS = "omen_delivery_disconnects_total"
PHASE = "omen_delivery_phase"
PARTITIONS = "omen_ledger_partitions"
LAST_ROUND = "omen_scrub_last_round_timestamp_seconds"
INTERRUPTIONS = "omen_scrub_interruptions_total"
DAMAGE = [f"omen_ledger_{what}" for what in ("damaged_records", "damaged_segments", "damaged_seals", "torn_files")]


async def test_emits_are_counted_from_the_ledger_to_riskcasts_answer(tmp_path: Path) -> None:
    metrics = scraper()
    async with (
        riskcast(tmp_path / "db") as store,
        omen(tmp_path / "ledger", store.port, metrics_listen=metrics.listen) as server,
    ):
        fresh = await metrics.scrape()
        emissions = [await server.emit(event(number)) for number in (1, 2, 3, 1)]
        await server.to_ledger(4, 5)
        await server.until_drained()
        now = await metrics.until(lambda now: now.maybe("omen_index_behind_records") == 0)
    assert [each.status for each in emissions] == [DELIVERED] * 3 + [DUPLICATE]
    assert fresh.maybe("omen_delivery_last_success_timestamp_seconds") is None
    assert now.by("outcome", APPENDS) == {"durable": 5}
    assert now.by("outcome", RECORDS) == {"stored": 5}
    assert now.maybe("omen_ledger_records") == now.maybe("omen_ledger_batch_records_sum") == 5
    assert now.maybe("omen_ledger_highwater_sequence") == emissions[0].position.sequence + 4
    names = ("omen_ledger_batch_records_count", "omen_ledger_fsync_seconds_count", "omen_delivery_messages_total")
    assert min(now.maybe(name) or 0 for name in names) >= 4
    assert (now.maybe(BACKLOG), now.maybe("omen_delivery_streams_total")) == (0, 1)
    assert now.by("phase", PHASE) == {"following": 1}
    assert now.by("state", PARTITIONS) == {"open": 1}
    last = now.maybe("omen_delivery_last_success_timestamp_seconds") or 0
    assert abs(last - datetime.now(UTC).timestamp()) < 60
    assert (now.maybe("omen_ledger_free_bytes") or 0) > (now.maybe("omen_ledger_free_bytes_min") or 0) > 0


async def test_the_calls_of_a_server_are_in_its_metrics_too(tmp_path: Path) -> None:
    metrics = scraper()
    async with omen(tmp_path, closed_port(), metrics_listen=metrics.listen) as server:
        await server.to_ledger(1, 2)
        method = {"grpc_type": "unary", "grpc_service": "omen.v1.SignalService", "grpc_method": "Emit"}
        await metrics.until(lambda now: now.maybe("grpc_server_handled_total", **method, grpc_code="OK") == 2)


def judge(record: LedgerRecord) -> ingest_pb.RecordResult:
    """The second event is in conflict under 12 digits, the third is refused."""
    made = SignalEvent.FromString(record.event)
    if made.signal_id == identity_of_event(event(2)).signal_id:
        return ingest_pb.RecordResult(outcome=ingest_pb.RECORD_OUTCOME_CONFLICT)
    if made.source_event_id == event(3).source_event_id:
        return ingest_pb.RecordResult(outcome=ingest_pb.RECORD_OUTCOME_REJECTED)
    return stored(record)


async def test_a_conflict_counts_as_one_and_again_as_what_becomes_of_it_under_32_digits(tmp_path: Path) -> None:
    metrics = scraper()
    async with (
        peer_of(answering(judge)) as peer,
        omen(tmp_path, peer.port, metrics_listen=metrics.listen) as server,
    ):
        emissions = [await server.emit(event(number)) for number in (1, 2, 3)]
        now = await metrics.scrape()
    assert [each.status for each in emissions] == [DELIVERED, DELIVERED, REJECTED]
    assert now.by("outcome", RECORDS) == {"stored": 2, "conflict": 1, "rejected": 1}
    assert now.by("outcome", APPENDS) == {"durable": 4}


async def test_a_backlog_that_is_not_known_is_absent_and_one_that_is_known_shrinks_to_0(tmp_path: Path) -> None:
    metrics, port = scraper(), closed_port()
    async with omen(tmp_path / "ledger", port, metrics_listen=metrics.listen) as server:
        emission = await server.emit(event(1))
        await server.to_ledger(2, 3)
        away = await metrics.until(lambda now: bool(now.maybe(DISCONNECTS, cause="Unavailable")))
        async with riskcast(tmp_path / "db", port):
            back = await metrics.until(lambda now: now.maybe(BACKLOG) == 0)
        assert emission.status == LEDGER_ONLY
        assert (away.maybe(BACKLOG), away.by("phase", PHASE)) == (None, {"connecting": 1})
        assert back.by("outcome", RECORDS) == {"stored": 3}
        await server.to_ledger(4)
        await metrics.until(lambda now: now.maybe(BACKLOG) == 1)


async def test_records_without_an_answer_are_the_backlog_and_a_pause_shows(tmp_path: Path) -> None:
    metrics = scraper()
    async with (
        peer_of(hanging) as peer,
        omen(tmp_path, peer.port, metrics_listen=metrics.listen) as server,
    ):
        await peer.until(lambda peer: len(peer.hellos) == 1)
        await server.to_ledger(1, 2, 3)
        known = await metrics.until(lambda now: now.maybe(BACKLOG) == 3)
        await server.delivery.PauseDelivery(PauseDeliveryRequest(reason="a new disk"))
        paused = await metrics.until(lambda now: now.by("phase", PHASE) == {"paused": 1})
    assert (known.maybe("omen_delivery_paused"), paused.maybe("omen_delivery_paused")) == (0, 1)
    assert known.by("outcome", RECORDS) == {}
    assert "a new disk" not in paused.text


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        (ending(None, after=1), "OK"),
        (ending(ContractError(Reason.STORE_UNAVAILABLE, "key 7 of /a/path"), after=1), "Unavailable"),
        (ending(ContractError(Reason.INTERNAL, "id 0c3f9a52"), after=0), "Internal"),
        (answers_with_a_second_hello, "protocol"),
    ],
)
async def test_a_stream_that_ends_is_counted_by_a_cause_of_few(tmp_path: Path, script: Script, cause: str) -> None:
    metrics = scraper()
    async with (
        peer_of(script, answering()) as peer,
        omen(tmp_path, peer.port, metrics_listen=metrics.listen) as server,
    ):
        await peer.until(lambda peer: len(peer.hellos) == 1)
        await server.emit(event(1))
        await server.until_drained()
        now = await metrics.until(lambda now: now.by("phase", PHASE) == {"following": 1})
    assert now.by("cause", DISCONNECTS) == {cause: 1}
    assert now.maybe("omen_delivery_streams_total") == (1 if cause == "Internal" else 2)


async def test_what_only_people_can_mend_shows_as_held(tmp_path: Path) -> None:
    metrics = scraper()
    refused = ending(ContractError(Reason.BAD_CREDENTIALS, "the call needs a valid key"), after=0)
    async with peer_of(refused) as peer, omen(tmp_path, peer.port, metrics_listen=metrics.listen):
        now = await metrics.until(lambda now: now.by("phase", PHASE) == {"held": 1})
    assert now.by("cause", DISCONNECTS) == {"Unauthenticated": 1}


async def test_what_the_ledger_does_not_take_is_counted_by_why(tmp_path: Path, opened_with: OpenedWith) -> None:
    metrics, disk = scraper(), HeldDisk()
    opened_with(disk, queue_records_max=2)
    async with omen(tmp_path, closed_port(), metrics_listen=metrics.listen) as server:
        first = asyncio.create_task(server.to_ledger(1))
        await asyncio.to_thread(disk.wait_for, lambda events: any(kind == "fdatasync_began" for kind, _ in events))
        more = [asyncio.create_task(server.to_ledger(number)) for number in range(2, 6)]
        async with asyncio.timeout(DEADLINE_S):
            while sum(task.done() for task in more) < 2:
                await asyncio.wait([task for task in more if not task.done()], return_when=asyncio.FIRST_COMPLETED)
        full = [(await refusal(task)).reason for task in more if task.done()]
        disk.let_go.set()
        await asyncio.gather(first, *(task for task in more if not task.done()))
        long_ago = timestamp(datetime.now(UTC) - timedelta(days=30))
        assert (await refusal(server.emit(event(6, emitted_at=long_ago)))).reason == Reason.PARTITION_CLOSED
        now = await metrics.scrape()
    assert full == [Reason.QUEUE_FULL] * 2
    assert now.by("outcome", APPENDS) == {"durable": 3, "partition_closed": 1, "queue_full": 2}
    assert now.maybe("omen_ledger_batch_records_sum") == 3
    assert now.maybe("omen_ledger_batch_records_count") == 2


async def test_a_full_disk_shows_in_appends(tmp_path: Path, opened_with: OpenedWith) -> None:
    metrics = scraper()
    opened_with(FaultyDisk(), free_bytes_min=1 << 60)
    async with omen(tmp_path, closed_port(), metrics_listen=metrics.listen) as server:
        assert (await refusal(server.emit(event(1)))).reason == Reason.LEDGER_FULL
        now = await metrics.scrape()
    assert now.by("outcome", APPENDS) == {"ledger_full": 1}
    assert (now.maybe("omen_ledger_free_bytes") or 0) < (now.maybe("omen_ledger_free_bytes_min") or 0)


async def test_what_the_ledger_holds_and_what_of_it_is_damaged_shows(tmp_path: Path) -> None:
    """Days are sealed, rot comes over one of them and over the SEAL of the other, and the scrub finds it."""
    metrics, next_day = scraper(), AGES_AGO + timedelta(days=1)
    write_days(tmp_path, AGES_AGO, next_day, datetime.now(UTC))
    async with omen(tmp_path, closed_port(), metrics_listen=metrics.listen) as server:
        [newest] = await server.to_ledger(1000)
        sound = await metrics.until(lambda now: now.by("state", PARTITIONS) == {"open": 1, "sealed": 2})
    record = list(LedgerReader(tmp_path).records(DAY))[2]
    path = segment_of(tmp_path, 1, DAY)
    flip_byte(path, path.read_bytes().index(record.payload) + 10)
    flip_byte(seal_path(tmp_path, NEXT_DAY), 20)
    (path.parent / "segment-00000002.log.torn").touch()
    async with omen(tmp_path, closed_port(), metrics_listen=metrics.listen):
        now = await metrics.until(lambda now: bool(now.maybe("omen_scrub_last_round_timestamp_seconds")))
    assert [sound.maybe(name) for name in DAMAGE] == [0, 0, 0, 0]
    assert [now.maybe(name) for name in DAMAGE] == [1, 1, 1, 1]
    assert now.by("state", PARTITIONS) == {"open": 1, "damaged": 2}
    assert (now.maybe("omen_ledger_records"), now.maybe("omen_ledger_segments")) == (13, 4)
    assert now.maybe("omen_ledger_highwater_sequence") == newest.position.sequence
    assert (now.maybe("omen_scrub_read_bytes_total") or 0) > (now.maybe("omen_ledger_bytes") or 0) / 2 > 0


async def test_a_round_of_the_scrub_that_left_something_out_is_none(tmp_path: Path) -> None:
    write_days(tmp_path, AGES_AGO, AGES_AGO + timedelta(days=1))
    registry, disk = CollectorRegistry(), GuardedDisk()
    rounds = partial(scrub, bytes_per_s=1 << 30, pause_s=0.001, metrics=ScrubMetrics(registry))

    async def until(holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not holds():
                await journal.partitions()

    async with open_journal(tmp_path, disk=disk) as journal, beside(rounds(journal, random.Random(1))):
        await until(lambda: registry.get_sample_value(LAST_ROUND) is not None)
        assert registry.get_sample_value(INTERRUPTIONS) == 0
        disk.refusals[segment_of(tmp_path, 1, DAY)] = OSError(errno.EMFILE, "no descriptors left")
        await until(lambda: (registry.get_sample_value(INTERRUPTIONS) or 0) >= 1)
        last = registry.get_sample_value(LAST_ROUND)
        await until(lambda: (registry.get_sample_value(INTERRUPTIONS) or 0) >= 3)
        assert registry.get_sample_value(LAST_ROUND) == last
        disk.refusals.clear()
        await until(lambda: registry.get_sample_value(LAST_ROUND) != last)


def test_a_partition_is_in_one_state_the_one_that_matters_most() -> None:
    segment = SegmentInfo(DAY, 1, bytes(16), 4, 400, (), SegmentState.FROZEN)
    rotten = replace(segment, state=SegmentState.DAMAGED)
    seal = Seal("", DAY, False, 0, 4, 1 << 32 | 4, 0, 1, None, ())
    due: list[str] = []
    open_day = PartitionInfo(DAY, (segment,), is_late=False)
    states = [state_of(open_day, due.__contains__)]
    due.append(DAY)
    for each in (
        open_day,
        replace(open_day, seal=seal),
        replace(open_day, seal=replace(seal, state=SealState.PRUNED)),
        replace(open_day, segments=(rotten,)),
    ):
        states.append(state_of(each, due.__contains__))
    assert tuple(states) == PARTITION_STATES


async def test_whatever_clients_send_makes_no_series(tmp_path: Path) -> None:
    metrics = scraper()
    async with omen(tmp_path, closed_port(), metrics_listen=metrics.listen) as server:
        await server.to_ledger(0)
        await refusal(server.ledger.GetPartition(GetPartitionRequest(partition="not a partition")))
        await refusal(server.signals.GetSignal(GetSignalRequest(signal_id="no id")))
        before = (await metrics.scrape()).series
        for number in range(1, 30):
            await server.emit(event(number, title=f"title {number}"), wait_for=WAIT_FOR_LEDGER)
            await refusal(server.ledger.GetPartition(GetPartitionRequest(partition=f"{number}")))
            await refusal(server.signals.GetSignal(GetSignalRequest(signal_id=f"OMEN-{number}")))
        new = (await metrics.scrape()).series - before
    assert new == set()
