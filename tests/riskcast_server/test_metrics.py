"""What RiskCast counts is what happened, as whoever scrapes it over HTTP sees it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from contract.errors import Reason
from riskcast.v1 import reconcile_service_pb2 as pb
from riskcast.v1.reconcile_service_pb2_grpc import ReconcileServiceStub
from riskcast_server import leases, metrics
from riskcast_server.committer import Committer
from riskcast_server.ingest import utc_now
from riskcast_server.metrics import DoorState, States
from riskcast_server.store import open_store
from tests.riskcast_server.events import OTHER_LEDGER, event, record, records
from tests.riskcast_server.omen import Omen, omen
from tests.riskcast_server.running import TIMEOUT_S, Client, database, refused, riskcast, sql, url
from tests.riskcast_server.test_settlement import good
from tests.serving.scraping import Scraped, Scraper, scraper

RECORDS = "riskcast_ingest_records_total"
REFUSED = "riskcast_ingest_refused_total"
RUNS = "riskcast_reconcile_runs_total"
PARTITIONS = "riskcast_reconcile_partitions"
OLDEST, NEWEST = "riskcast_reconcile_oldest_timestamp_seconds", "riskcast_reconcile_newest_timestamp_seconds"


@asynccontextmanager
async def served(directory: Path) -> AsyncIterator[tuple[Client, Scraper]]:
    scraping = scraper()
    async with riskcast(directory, metrics_listen=scraping.listen) as client:
        yield client, scraping


@asynccontextmanager
async def both(directory: Path) -> AsyncIterator[tuple[Omen, Client, Scraper]]:
    scraping = scraper()
    async with (
        omen(directory / "ledger") as (ledger, target),
        riskcast(directory, omen_targets=(target,), metrics_listen=scraping.listen) as client,
    ):
        yield ledger, client, scraping


async def refusal(client: Client, number: int, **changes: str) -> str:
    """The reason why an event, so changed, is not taken."""
    made = event(number)
    for name, value in changes.items():
        setattr(made, name, value)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.ingest(made)
    return refused(caught.value).reason


async def read_to_the_end(run: Any) -> None:
    while await run.read() is not grpc.aio.EOF:
        pass


def of_path(scraped: Scraped, path: str) -> dict[str, float]:
    return dict(scraped.by("outcome", RECORDS, path=path))


def test_records_are_counted_by_how_they_came_and_what_became_of_them(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, scraping):
            fresh = (await scraping.scrape()).samples
            assert [each.value for each in fresh if each.name in (RECORDS, RUNS)] == [0] * (3 * 4 + 6)
            await client.ingest(event(100))
            assert await refusal(client, 100) == Reason.DUPLICATE_SIGNAL
            for _ in range(2):
                await client.deliver(records(range(1, 5)))
            await client.deliver([record(5, event(100)), record(6, b"no event")])
            sql(tmp_path, "UPDATE signals SET input_event_hash = 'another' WHERE signal_id = ?", event(2).signal_id)
            await client.deliver([record(7, event(2))])
            assert await refusal(client, 2) == Reason.SIGNAL_ID_CONFLICT
            now = await scraping.scrape()
            assert of_path(now, "ingest") == {"stored": 1, "duplicate": 1, "conflict": 1}
            assert of_path(now, "delivery") == {"stored": 4, "duplicate": 5, "conflict": 1, "rejected": 1}
            assert of_path(now, "replay") == {}
            assert sum(each.value for each in now.samples if each.labels.get("outcome") == "stored") == 5
            assert await client.count() == 5
            assert now.maybe("riskcast_commit_records_sum") == 3 + 11
            assert now.maybe("riskcast_commit_records_count") == now.maybe("riskcast_commit_seconds_count") == 7
            assert (now.maybe("riskcast_commit_seconds_sum") or 0) > 0
            assert (now.maybe("riskcast_store_file_bytes", file="database") or 0) > 0
            assert (now.maybe("riskcast_store_file_bytes", file="log") or 0) > 0

    asyncio.run(scenario())


def test_what_the_door_does_not_take_is_counted_by_reason_and_is_no_record(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, scraping):
            assert await refusal(client, 1, source_event_id="") == Reason.INVALID_SIGNAL
            assert await refusal(client, 1, signal_id="OMEN-000000000000") == Reason.SIGNAL_ID_MISMATCH
            assert await refusal(client, 1, schema_version="2.0.0") == Reason.SCHEMA_VERSION_UNSUPPORTED
            of_another = record(1)
            of_another.position.ledger_id = OTHER_LEDGER
            with suppress(grpc.aio.AioRpcError):
                await client.deliver([record(2), of_another])
            now = await scraping.scrape()
            assert now.by("reason", REFUSED) == {
                "INVALID_SIGNAL": 2,
                "SIGNAL_ID_MISMATCH": 1,
                "SCHEMA_VERSION_UNSUPPORTED": 1,
            }
            assert now.by("outcome", RECORDS) == {}

    asyncio.run(scenario())


def test_a_repeat_that_says_something_else_is_counted(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, scraping):
            await client.ingest(event(1))
            for title in ("Will the strait be closed?", "Something else"):
                with pytest.raises(grpc.aio.AioRpcError):
                    await client.ingest(event(1, title=title))
            assert (await scraping.scrape()).maybe("riskcast_ingest_other_content_total") == 1

    asyncio.run(scenario())


def test_a_store_that_goes_away_shows_until_it_is_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "STATES_S", 0.01)
    away = tmp_path / "away.db"
    names = ("riskcast_store_readable", "riskcast_store_writable", "riskcast_commit_failures_total")

    async def scenario() -> None:
        async with served(tmp_path) as (client, scraping):
            before = await scraping.scrape()
            database(tmp_path).rename(away)
            assert await refusal(client, 1) == Reason.STORE_UNAVAILABLE
            gone = await scraping.until(lambda now: now.maybe("riskcast_store_readable") == 0)
            away.rename(database(tmp_path))
            await client.ingest(event(1))
            back = await scraping.until(lambda now: [now.maybe(name) for name in names] == [1, 1, 1])
        shown = [[each.maybe(name) for name in names] for each in (before, gone, back)]
        assert shown == [[1, 1, 0], [0, 0, 1], [1, 1, 1]]
        assert gone.maybe("riskcast_store_file_bytes", file="database") is None

    asyncio.run(scenario())


def test_what_waits_for_its_commit_shows(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_store(url(tmp_path)) as store:
            committer = Committer(store, utc_now)
            state = DoorState(committer, lambda: 0, None)
            entries = [good("a", 1), good("b", 2)]
            outcomes = committer.submit(entries)
            waiting = {family.name: [sample.value for sample in family.samples] for family in state.collect()}
            outcomes.cancel()
        assert waiting["riskcast_queue_records"] == [2]
        assert waiting["riskcast_queue_bytes"] == [sum(len(entry.event) for entry in entries)]
        assert waiting["riskcast_store_file_bytes"] == []

    asyncio.run(scenario())


def test_a_run_is_counted_with_what_it_fetched_and_how_the_partition_stands(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (ledger, client, scraping):
            fresh = await scraping.scrape()
            assert [fresh.maybe(name) for name in (OLDEST, NEWEST)] == [None, None]
            appended = ledger.append([event(number) for number in range(10)])
            await ledger.deliver(client, appended[:3])
            await client.reconcile(dry_run=True)
            dry = await scraping.scrape()
            await client.reconcile()
            now = await scraping.until(lambda now: now.by("status", PARTITIONS) != {})
            assert dry.by("status", RUNS) == {"DRY_RUN": 1}
            assert dry.by("outcome", "riskcast_reconcile_replayed_records_total") == {}
            assert now.by("status", RUNS) == {"DRY_RUN": 1, "COMPLETED": 1}
            assert now.by("outcome", "riskcast_reconcile_replayed_records_total") == {"stored": 7}
            assert (of_path(now, "delivery"), of_path(now, "replay")) == ({"stored": 3}, {"stored": 7})
            assert now.by("status", PARTITIONS) == {"COMPLETED": 1}
            assert now.maybe("riskcast_reconcile_run_seconds_count") == 2
            [state] = await client.states()
            assert now.maybe(OLDEST) == now.maybe(NEWEST) == state.finished_at.ToMicroseconds() / 1e6
            assert abs((now.maybe(NEWEST) or 0) - time.time()) < 60

    asyncio.run(scenario())


def test_what_no_run_can_heal_shows_and_is_there_after_a_restart(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (ledger, client, scraping):
            ledger.append([event(1), b"no event", event(2, title="")])
            await client.reconcile()
            now = await scraping.until(lambda now: now.by("status", PARTITIONS) != {})
        async with served(tmp_path) as (_, scraping):
            again = await scraping.until(lambda now: now.by("status", PARTITIONS) != {})
        assert now.by("status", RUNS) == {"PARTIAL": 1}
        assert of_path(now, "replay") == {"stored": 1, "rejected": 2}
        assert now.by("outcome", "riskcast_reconcile_replayed_records_total") == {"stored": 1, "rejected": 2}
        for scraped in (now, again):
            assert scraped.by("status", PARTITIONS) == {"PARTIAL": 1}
            assert scraped.maybe("riskcast_reconcile_failed_records") == 2
            assert scraped.maybe("riskcast_reconcile_extra_records") == 0
        assert again.maybe(NEWEST) == now.maybe(NEWEST)
        assert again.by("status", RUNS) == {}

    asyncio.run(scenario())


def test_ledgers_that_cannot_be_reached_and_runs_that_are_cut_show(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (ledger, client, scraping):
            ledger.append([event(number) for number in range(3)])
            ledger.gate.clear()
            await client.reconcile_until(2)
            ledger.gate.set()
            cut = await scraping.until(lambda now: now.by("status", RUNS) != {})
            ledger.breaks_after = 0
            await client.reconcile()
            failed = await scraping.until(lambda now: now.by("status", PARTITIONS) != {})
        assert cut.by("status", RUNS) == {"CUT": 1}
        assert cut.maybe("riskcast_reconcile_run_seconds_count") == 0
        assert failed.by("status", RUNS) == {"CUT": 1, "FAILED": 1}
        assert failed.by("status", PARTITIONS) == {"FAILED": 1}

    asyncio.run(scenario())


def test_a_lease_that_was_lost_shows_and_its_run_was_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEW_S", 0.01)

    async def scenario() -> None:
        async with both(tmp_path) as (ledger, client, scraping):
            ledger.append([event(1)])
            ledger.gate.clear()
            stub: Any = ReconcileServiceStub(client.channel)
            run = stub.Reconcile(pb.ReconcileRequest(), timeout=TIMEOUT_S)
            assert (await run.read()).HasField("run_started")
            assert (await run.read()).HasField("partition_started")
            await asyncio.to_thread(sql, tmp_path, "UPDATE leases SET fence = fence + 1")
            lost = await scraping.until(lambda now: bool(now.maybe("riskcast_reconcile_leases_lost_total")))
            ledger.gate.set()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await read_to_the_end(run)
            assert refused(caught.value).reason == Reason.RECONCILE_RUNNING
            assert lost.by("status", RUNS) == {}
            assert (await scraping.scrape()).by("status", RUNS) == {"CUT": 1}

    asyncio.run(scenario())


def test_the_ledger_that_waits_longest_and_any_ledger_have_a_time_each() -> None:
    def state(ledger: str, seconds: int) -> pb.ReconcileState:
        made = pb.ReconcileState(ledger_id=ledger, status=pb.RECONCILE_STATUS_COMPLETED)
        made.finished_at.seconds = seconds
        return made

    states = States.of([state("one", 300), state("one", 100), state("two", 200), state("three", 250)])
    assert (states.oldest_s, states.newest_s) == (200, 300)


def test_whatever_clients_send_makes_no_series(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (client, scraping):
            for number in range(2):
                await client.ingest(event(number))
                await refusal(client, number, source_event_id="")
                await client.deliver([record(number + 1, b"no event")])
            before = (await scraping.scrape()).series
            for number in range(2, 20):
                await client.ingest(event(number, title=f"title {number}"))
                await refusal(client, number, source_event_id=f"a|b{number}")
                await client.deliver([record(number + 1, f"no event {number}".encode())])
            assert (await scraping.scrape()).series == before

    asyncio.run(scenario())
