"""Reconcile tells the truth: what it says of a partition is what ledger and store hold."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from contract.errors import ContractError, Reason
from omen.v1.ledger_record_pb2 import LedgerRecord
from riskcast.v1 import reconcile_service_pb2 as pb
from riskcast.v1.reconcile_service_pb2_grpc import ReconcileServiceStub
from riskcast.v1.signal_service_pb2 import ARRIVAL_PATH_DELIVERY, ARRIVAL_PATH_REPLAY, GetSignalRequest
from riskcast_server.store import SegmentCoverage
from riskcast_server.store.sqlite import SqliteStore
from tests.ledger.faults import NOON
from tests.riskcast_server.events import DAY, OTHER_LEDGER, event
from tests.riskcast_server.omen import Omen, omen
from tests.riskcast_server.running import Client, refused, riskcast, sql

COMPLETED, SKIPPED = pb.RECONCILE_STATUS_COMPLETED, pb.RECONCILE_STATUS_SKIPPED
PARTIAL, FAILED = pb.RECONCILE_STATUS_PARTIAL, pb.RECONCILE_STATUS_FAILED


@asynccontextmanager
async def both(directory: Path, *, due: bool = True) -> AsyncIterator[tuple[Omen, Client]]:
    """Segments of four records, so that a few records span several files."""
    async with (
        omen(directory / "ledger", segment_records_max=4, due=due) as (served, target),
        riskcast(directory, omen_targets=(target,)) as client,
    ):
        yield served, client


def finished(messages: Sequence[pb.ReconcileResponse]) -> pb.PartitionFinished:
    [only] = [each.partition_finished for each in messages if each.HasField("partition_finished")]
    return only


def problems(partition: pb.PartitionFinished) -> list[tuple[int, int, int, str]]:
    """(ordinal, first index, last index, reason)"""
    runs = [(each.sequences, each.reason) for each in partition.problems]
    return [(run.first >> 32, run.first & 0xFFFFFFFF, run.last & 0xFFFFFFFF, reason) for run, reason in runs]


def test_a_run_fetches_exactly_what_is_missing_and_tells_each_step(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            records = served.append([event(number) for number in range(10)])
            await served.deliver(client, [records[0], records[5], records[9]])
            messages = await client.reconcile()
            assert [each.WhichOneof("event") for each in messages] == [
                "run_started",
                "partition_started",
                *["replayed"] * 3,
                "progress",
                *["replayed"] * 3,
                "progress",
                "replayed",
                "progress",
                "partition_finished",
                "run_finished",
            ]
            assert served.sent_count == 7
            replayed = [each.replayed.position.sequence for each in messages if each.HasField("replayed")]
            assert replayed == [each.position.sequence for each in records if records.index(each) not in (0, 5, 9)]
            partition = finished(messages)
            assert partition.state.status == COMPLETED
            assert partition.state.reason == ""
            assert partition.settled_before_record_count == 3
            assert (partition.missing_record_count, partition.replayed_record_count) == (7, 7)
            assert messages[-1].run_finished.status == COMPLETED
            assert messages[-1].run_finished.run_id == messages[0].run_started.run_id
            assert all(each.cursor for each in messages)
            assert await client.count(ledger_id=served.ledger.ledger_id, partition=DAY) == 10

    asyncio.run(scenario())


def test_a_second_run_finds_nothing_and_fetches_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            served.append([event(number) for number in range(5)])
            await client.reconcile()
            messages = await client.reconcile()
            assert finished(messages).state.status == COMPLETED
            assert finished(messages).missing_record_count == 0
            assert served.sent_count == 5

    asyncio.run(scenario())


def test_an_arrival_is_the_first_one_also_after_a_replay(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            records = served.append([event(1), event(2)])
            await served.deliver(client, records[:1])
            messages = await client.reconcile()
            run_id = messages[0].run_started.run_id
            for number, path, run in ((1, ARRIVAL_PATH_DELIVERY, ""), (2, ARRIVAL_PATH_REPLAY, run_id)):
                request = GetSignalRequest(signal_id=event(number).signal_id)
                stored = (await client.signals.GetSignal(request, timeout=5)).signal
                assert (stored.first_arrival.path, stored.first_arrival.run_id) == (path, run)
                assert stored.position == records[number - 1].position
                assert stored.stored_event == records[number - 1].event

    asyncio.run(scenario())


@pytest.mark.parametrize("coverage", ["kept", "deleted"])
def test_deleted_rows_come_back_with_the_same_ack_ids(tmp_path: Path, coverage: str) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            records = served.append([event(number) for number in range(10)])
            await served.deliver(client, records)
            before = dict(sql(tmp_path, "SELECT signal_id, ack_id FROM signals"))
            sql(tmp_path, "DELETE FROM signals WHERE record_index IN (2, 3)")
            if coverage == "deleted":
                sql(tmp_path, "DELETE FROM coverage")
            partition = finished(await client.reconcile())
            assert partition.state.status == COMPLETED
            assert (partition.missing_record_count, served.sent_count) == (5, 5)
            assert dict(sql(tmp_path, "SELECT signal_id, ack_id FROM signals")) == before

    asyncio.run(scenario())


def test_a_duplicate_counts_as_settled_only_while_its_signal_has_a_row(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            records = served.append([event(1), event(2), event(1)])
            await served.deliver(client, records)
            sql(tmp_path, "DELETE FROM signals WHERE record_index = 1")
            partition = finished(await client.reconcile())
            assert partition.state.status == COMPLETED
            assert partition.missing_record_count == 2
            assert await client.count() == 2
            assert sql(tmp_path, "SELECT outcome, record_index FROM settlements") == [("duplicate", 3)]

    asyncio.run(scenario())


def test_a_dry_run_finds_out_and_leaves_everything_as_it_was(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            served.append([event(number) for number in range(6)])
            messages = await client.reconcile(dry_run=True)
            partition = finished(messages)
            assert partition.state.status == PARTIAL
            assert problems(partition) == [(1, 1, 4, "NOT_FETCHED"), (2, 1, 2, "NOT_FETCHED")]
            assert partition.failed_record_count == partition.missing_record_count == 6
            assert (served.sent_count, await client.count()) == (0, 0)
            assert sql(tmp_path, "SELECT * FROM reconcile_history") == []

    asyncio.run(scenario())


def test_every_page_of_partitions_is_compared(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            served.append([event(1)])
            served.append([event(2)], NOON + timedelta(days=1))
            messages = await client.reconcile()
            done = [each.partition_finished.state for each in messages if each.HasField("partition_finished")]
            assert [(each.partition, each.status) for each in done] == [(DAY, COMPLETED), ("2026-01-30", COMPLETED)]

    asyncio.run(scenario())


def test_a_store_that_fails_ends_the_run_with_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unavailable(*_: object) -> list[SegmentCoverage]:
        raise ContractError(Reason.STORE_UNAVAILABLE, "locked", retry_delay_s=1)

    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            served.append([event(1)])
            monkeypatch.setattr(SqliteStore, "partition_coverage", unavailable)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.reconcile()
            assert refused(caught.value).reason == "STORE_UNAVAILABLE"

    asyncio.run(scenario())


def test_rejected_and_conflicting_records_are_partial_and_named_by_every_later_run(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            other = event(3)
            other.signal.title = ""
            records = served.append([event(1), b"no event", other, event(2)])
            await served.deliver(client, records[:1])
            # Another event under the id of record 4: as if two digests shared their first digits.
            sql(tmp_path, "INSERT INTO signals SELECT ?, 'sha256:x', 'ack-x', ingested_at, emitted_at, category,"
                " source_event_id, NULL, NULL, NULL, NULL, NULL, arrival_path, arrival_run_id, event FROM signals",
                event(2).signal_id)  # fmt: skip
            for _ in range(2):
                messages = await client.reconcile()
                partition = finished(messages)
                assert partition.state.status == messages[-1].run_finished.status == PARTIAL
                assert problems(partition) == [(1, 2, 3, "INVALID_SIGNAL"), (1, 4, 4, "SIGNAL_ID_CONFLICT")]
                assert partition.failed_record_count == 3
                assert partition.state.reason.startswith("INVALID_SIGNAL")
            assert served.sent_count == 2 + 2 * 1  # the conflict is still open, so each run asks for it

    asyncio.run(scenario())


@pytest.mark.parametrize("delivered", ["before", "never"])
def test_a_damaged_record_is_never_completed_whether_it_is_stored_here_or_not(tmp_path: Path, delivered: str) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            records = served.append([event(1), event(2), event(3)])
            if delivered == "before":
                await served.deliver(client, records)
            served.damage(records[1].event)
            partition = finished(await client.reconcile())
            assert partition.state.status == PARTIAL
            assert problems(partition) == [(1, 2, 2, "LEDGER_DAMAGED")]
            assert partition.failed_record_count == (0 if delivered == "before" else 1)
            assert await client.count() == (3 if delivered == "before" else 2)

    asyncio.run(scenario())


def test_a_ledger_that_lost_records_which_are_stored_here_never_looks_healthy(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            records = served.append([event(1), event(2)])
            gone = LedgerRecord()
            gone.CopyFrom(records[1])
            gone.position.sequence += 1
            gone.event = event(3).SerializeToString()
            await served.deliver(client, [*records, gone])
            partition = finished(await client.reconcile())
            assert (partition.state.status, partition.extra_record_count) == (PARTIAL, 1)
            assert partition.state.reason.startswith("LEDGER_REGRESSED")

    asyncio.run(scenario())


def test_a_ledger_that_breaks_off_is_failed_and_the_next_run_fetches_only_the_rest(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            served.append([event(number) for number in range(10)])
            served.breaks_after = 4
            messages = await client.reconcile()
            assert finished(messages).state.status == messages[-1].run_finished.status == FAILED
            assert finished(messages).state.reason == "LEDGER_UNAVAILABLE: the disk is gone"
            assert await client.count() == 4
            served.breaks_after = None
            assert finished(await client.reconcile()).state.status == COMPLETED
            assert served.sent_count == 10

    asyncio.run(scenario())


def test_a_ledger_that_cannot_be_reached_is_failed_and_the_server_goes_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with riskcast(tmp_path, omen_targets=("127.0.0.1:1",)) as client:
            messages = await client.reconcile()
            partition = finished(messages)
            assert messages[-1].run_finished.status == partition.state.status == FAILED
            assert (partition.state.ledger_id, partition.state.partition) == ("", "")
            assert partition.state.reason == "UNAVAILABLE: the ledger at 127.0.0.1:1 cannot be read"
            await client.ingest(event(1))

    asyncio.run(scenario())


def test_open_partitions_are_skipped_unless_asked_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path, due=False) as (served, client):
            served.append([event(1)])
            messages = await client.reconcile()
            assert finished(messages).state.status == messages[-1].run_finished.status == SKIPPED
            assert finished(messages).state.reason.startswith("PARTITION_OPEN")
            assert served.sent_count == 0
            assert finished(await client.reconcile(include_open=True)).state.status == COMPLETED
            assert finished(await client.reconcile(partitions=[DAY])).state.status == COMPLETED

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("request_fields", "reason"),
    [
        ({"cursor": "x"}, "INVALID_PAGE_TOKEN"),
        ({"since_days": -1}, "INVALID_SIGNAL"),
        ({"ledger_ids": ["x"]}, "INVALID_SIGNAL"),
        ({"ledger_ids": [OTHER_LEDGER]}, "INVALID_SIGNAL"),
        ({"partitions": ["yesterday"]}, "INVALID_SIGNAL"),
        ({"partitions": ["2026-01-30"]}, "PARTITION_NOT_FOUND"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(
    tmp_path: Path, request_fields: dict[str, object], reason: str
) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            served.append([event(1)])
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.reconcile(**request_fields)
            assert refused(caught.value).reason == reason

    asyncio.run(scenario())


def test_only_one_run_of_a_ledger_is_on_and_a_cancelled_one_ends(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            served.append([event(number) for number in range(5)])
            served.gate.clear()
            stub: Any = ReconcileServiceStub(client.channel)
            first = stub.Reconcile(pb.ReconcileRequest(), timeout=20)
            started = await first.read()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.reconcile()
            assert caught.value.code() is grpc.StatusCode.ABORTED
            error = refused(caught.value)
            assert (error.reason, error.metadata) == (
                "RECONCILE_RUNNING",
                {"run_id": started.run_started.run_id},
            )
            first.cancel()
            served.gate.set()
            async with asyncio.timeout(10):
                while await is_refused(client):
                    pass
            assert await client.count() == 5

    async def is_refused(client: Client) -> bool:
        try:
            return finished(await client.reconcile()).state.status != COMPLETED
        except grpc.aio.AioRpcError as error:
            return refused(error).reason == "RECONCILE_RUNNING"

    asyncio.run(scenario())


def test_the_last_state_of_a_partition_is_kept(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            records = served.append([event(number) for number in range(5)])
            messages = await client.reconcile()
            kept = sql(tmp_path, "SELECT ledger_id, partition, status, ledger_record_count, highwater_sequence, run_id"
                       " FROM reconcile_history")  # fmt: skip
            run_id = messages[0].run_started.run_id
            highwater = records[-1].position.sequence
            assert kept == [(served.ledger.ledger_id, DAY, COMPLETED, 5, highwater, run_id)]

    asyncio.run(scenario())
