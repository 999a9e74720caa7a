"""Runs are kept apart, remembered, paced, and started by RiskCast itself."""

import asyncio
import sqlite3
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest

from contract.errors import ContractError, Reason
from contract.pages import page_token
from ledger import PartitionInfo
from omen.v1.ledger_service_pb2 import PartitionSummary
from riskcast_server import leases, reconcile
from riskcast_server.committer import committing
from riskcast_server.ingest import Door, utc_now
from riskcast_server.pace import Pace
from riskcast_server.reconcile import Reconciler
from riskcast_server.schedule import SCHEDULE, keep_schedule
from riskcast_server.store import Lease, StatesQuery, open_store
from tests.ledger.faults import NOON
from tests.riskcast_server.events import DAY, LEDGER, event
from tests.riskcast_server.omen import omen
from tests.riskcast_server.running import database, refused, riskcast, sql, url
from tests.riskcast_server.test_reconcile import COMPLETED, FAILED, PARTIAL, both, finished
from tests.riskcast_server.test_resume import until_free

DEADLINE_S = 10


def test_every_state_of_a_partition_is_kept_the_last_one_is_shown_and_the_history_on_demand(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            served.append([event(number) for number in range(6)])
            served.breaks_after = 4
            runs = [(await client.reconcile())[0].run_started.run_id]
            served.breaks_after = None
            runs.append((await client.reconcile())[0].run_started.run_id)
            [last] = await client.states()
            assert (last.partition, last.status, last.run_id) == (DAY, COMPLETED, runs[1])
            counts = last.missing_record_count, last.replayed_record_count, last.failed_record_count
            assert counts == (2, 2, 0)
            history = await client.states(include_history=True, page_size=1)
            assert [(each.status, each.run_id) for each in history] == [(COMPLETED, runs[1]), (FAILED, runs[0])]
            assert await client.states(ledger_id=last.ledger_id, partition=DAY) == [last]
            assert await client.states(partition="2026-01-30") == []

    asyncio.run(scenario())


@pytest.mark.parametrize("key", ["x", "||", f"{LEDGER}||x", f"{LEDGER}|{DAY}|{10**16}", f"{LEDGER}|today|1", "7"])
def test_a_token_that_somebody_made_up_is_refused(tmp_path: Path, key: str) -> None:
    async def scenario() -> None:
        async with riskcast(tmp_path) as client:
            token = page_token(f"ListReconcileStates {StatesQuery()}", key)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.states(page_token=token)
            assert refused(caught.value).reason == "INVALID_PAGE_TOKEN"

    asyncio.run(scenario())


@pytest.mark.parametrize("before", ["never", "higher", "partial", "failed", "rows deleted", "completed"])
def test_a_partition_is_compared_whatever_its_last_state_says(tmp_path: Path, before: str) -> None:
    """needs_reconcile of the earlier system: never run, more records, not COMPLETED; here also when nothing says so."""

    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            served.append([event(number) for number in range(5)])
            if before == "failed":
                served.breaks_after = 0
            if before != "never":
                await client.reconcile(dry_run=before == "partial")
            served.breaks_after = None
            if before == "higher":
                served.append([event(9)])
            if before == "rows deleted":
                sql(tmp_path, "DELETE FROM signals WHERE record_index = 2")
            partition = finished(await client.reconcile())
            expected = {"higher": 1, "rows deleted": 1, "completed": 0}.get(before, 5)
            assert (partition.state.status, partition.missing_record_count) == (COMPLETED, expected)

    asyncio.run(scenario())


def test_the_manifest_revision_is_kept_and_decides_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            served.append([event(1)])
            await client.reconcile()
            sql(tmp_path, "UPDATE reconcile_history SET manifest_revision = 7")
            assert [each.manifest_revision for each in await client.states()] == [7]
            assert finished(await client.reconcile()).state.status == COMPLETED
            assert served.sent_count == 1

    asyncio.run(scenario())


def test_a_run_whose_lease_another_took_over_is_fenced_out(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            served.append([event(number) for number in range(5)])
            ledger_id = served.ledger.ledger_id
            served.gate.clear()
            running = asyncio.ensure_future(client.reconcile())
            async with asyncio.timeout(DEADLINE_S):
                while not sql(tmp_path, "SELECT * FROM reconcile_missing"):
                    await client.count()
            sql(tmp_path, "UPDATE leases SET holder = 'another', fence = fence + 1 WHERE name = ?", ledger_id)
            served.gate.set()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await running
            assert caught.value.code() is grpc.StatusCode.ABORTED
            assert sql(tmp_path, "SELECT * FROM reconcile_history") == []
            assert sql(tmp_path, "SELECT holder FROM leases") == [("another",)]

    asyncio.run(scenario())


def test_a_lease_is_renewed_while_a_run_is_on_and_free_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "RENEW_S", 0.001)

    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            served.append([event(1)])
            served.gate.clear()
            running = asyncio.ensure_future(client.reconcile())
            expiries: set[Any] = set()
            async with asyncio.timeout(DEADLINE_S):
                while len(expiries) < 3:
                    expiries |= {*sql(tmp_path, "SELECT expires_at FROM leases")}
                    await client.count()
            served.gate.set()
            await running
            assert sql(tmp_path, "SELECT holder, expires_at FROM leases") == [("", 0)]

    asyncio.run(scenario())


def test_a_lease_that_was_held_when_riskcast_was_killed_is_free_at_its_next_start(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            served.append([event(1)])
            await client.reconcile()
            ledger_id = served.ledger.ledger_id
        sql(tmp_path, "UPDATE leases SET holder = 'killed', expires_at = 9e15 WHERE name = ?", ledger_id)
        async with both(tmp_path) as (_, client):
            assert finished(await client.reconcile()).state.status == COMPLETED

    asyncio.run(scenario())


def test_riskcast_reconciles_by_itself(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            omen(tmp_path / "ledger") as (served, target),
            riskcast(tmp_path, omen_targets=(target,), reconcile_interval=0.01) as client,
        ):
            served.append([event(number) for number in range(5)])
            async with asyncio.timeout(DEADLINE_S):
                while [each.status for each in await client.states()] != [COMPLETED]:
                    pass
            assert await client.count() == 5
            served.append([b"no event"])
            async with asyncio.timeout(DEADLINE_S):
                while [each.status for each in await client.states()] != [PARTIAL]:
                    pass

    asyncio.run(scenario())


def test_of_those_that_share_a_store_one_keeps_the_schedule(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_store(url(tmp_path)) as store, committing(store, utc_now) as committer:
            door, started, enough = Door(committer, utc_now), [], asyncio.Event()

            class Noting(Reconciler):
                def run(self, request: Any) -> Any:
                    started.append(id(self))
                    if len(started) == 20:
                        enough.set()
                    return super().run(request)

            both_of_them = [Noting(store, door, [], utc_now) for _ in range(2)]
            replicas = [asyncio.create_task(keep_schedule(each, store.runs, 0.001, Random(1))) for each in both_of_them]
            await asyncio.wait_for(enough.wait(), DEADLINE_S)
            assert len(set(started)) == 1
            for replica in replicas:
                replica.cancel()
            await asyncio.gather(*replicas, return_exceptions=True)
            assert (await store.runs.lease(SCHEDULE, "a third", 1)).holder == "a third"

    asyncio.run(scenario())


def test_whoever_stops_leaves_the_schedule_to_the_next(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with riskcast(tmp_path, reconcile_interval=0.001) as client:
            async with asyncio.timeout(DEADLINE_S):
                while not sql(tmp_path, "SELECT * FROM leases WHERE holder <> ''"):
                    await client.count()
        assert sql(tmp_path, "SELECT name, holder, expires_at FROM leases") == [(SCHEDULE, "", 0)]

    asyncio.run(scenario())


def test_a_client_that_does_not_read_keeps_no_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEW_S", 0.001)
    monkeypatch.setattr(leases, "STALLED_S", 0)

    async def scenario() -> None:
        async with open_store(url(tmp_path)) as store, leases.held(store.runs, ["name"], "holder") as holding:
            is_renewed, was_stalled = asyncio.Event(), []

            async def renew(lease: Lease, seconds: float) -> bool:
                was_stalled.append(holding.is_stalled)
                is_renewed.set()
                return True

            monkeypatch.setattr(store.runs, "renew", renew)
            with holding.waiting(), pytest.raises(TimeoutError):
                await asyncio.wait_for(is_renewed.wait(), 0.05)
            await asyncio.wait_for(is_renewed.wait(), DEADLINE_S)
            assert not any(was_stalled)

    asyncio.run(scenario())


def test_a_ledger_that_could_not_be_reached_once_is_forgiven_when_it_was_compared(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            served.append([event(1)])
            await client.reconcile()
            [before] = await client.states()
            with sqlite3.connect(database(tmp_path)) as connection:
                connection.execute(
                    "INSERT INTO reconcile_history SELECT ledger_id, '', fence + 1, ?, 'UNAVAILABLE', 0, 0, 0, run_id,"
                    " finished_at, 0, 0, 0, 0 FROM reconcile_history", (FAILED,),
                )  # fmt: skip
                connection.execute("UPDATE leases SET fence = fence + 1")
            connection.close()
            assert [each.partition for each in await client.states()] == ["", DAY]
            await client.reconcile()
            assert [(each.partition, each.status) for each in await client.states()] == [(DAY, before.status)]
            assert len(await client.states(include_history=True)) == 3

    asyncio.run(scenario())


def test_a_ledger_that_answers_with_nonsense_is_failed_and_ends_nobody(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            served.append([event(1)])
            served.due_at = NOON
            summary = served.summary

            def nonsense(info: PartitionInfo) -> PartitionSummary:
                found = summary(info)
                found.due_at.seconds = 2**62
                return found

            served.summary = nonsense  # type: ignore[method-assign]
            [done] = [
                each.partition_finished for each in await client.reconcile() if each.HasField("partition_finished")
            ]
            assert done.state.reason.startswith("UNEXPECTED_ANSWER")

    asyncio.run(scenario())


def test_without_an_interval_nothing_is_scheduled(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_store(url(tmp_path)) as store, committing(store, utc_now) as committer:
            reconciler = Reconciler(store, Door(committer, utc_now), [], utc_now)
            await keep_schedule(reconciler, store.runs, 0, Random(1))

    asyncio.run(scenario())


def test_replays_come_no_faster_than_they_may() -> None:
    async def scenario() -> float:
        pace, loop = Pace(1_000), asyncio.get_running_loop()
        began = loop.time()
        for _ in range(4):
            await pace.take(10)
        return loop.time() - began

    assert 0.029 < asyncio.run(scenario()) < 5


def test_a_full_queue_of_live_ingest_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    receive, refusals = Door.receive, iter(range(3))

    def busy(door: Door, *arguments: Any) -> Any:
        if next(refusals, None) is not None:
            raise ContractError(Reason.QUEUE_FULL, "too many records wait", retry_delay_s=0.001)
        return receive(door, *arguments)

    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            served.append([event(1)])
            monkeypatch.setattr(Door, "receive", busy)
            assert finished(await client.reconcile()).state.status == COMPLETED
            assert next(refusals, None) is None

    asyncio.run(scenario())


def test_a_queue_that_stays_full_is_failed_and_the_next_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise ContractError(Reason.QUEUE_FULL, "too many records wait", retry_delay_s=0)

    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            served.append([event(1)])
            with monkeypatch.context() as patch:
                patch.setattr(reconcile, "QUEUE_FULL_TRIES", 3)
                patch.setattr(Door, "receive", full)
                partition = finished(await client.reconcile())
                assert (partition.state.status, partition.state.reason.partition(":")[0]) == (FAILED, "QUEUE_FULL")
            assert finished(await until_free(client)).state.status == COMPLETED

    asyncio.run(scenario())
