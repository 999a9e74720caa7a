"""Who waits, who left, and what ends the committer."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from contract.errors import ContractError
from riskcast.v1.ingest_service_pb2 import (
    RECORD_OUTCOME_STORED,
    IngestBatch,
    IngestHello,
    IngestRequest,
    IngestStreamRequest,
)
from riskcast_server.committer import QUEUE_RECORDS_MAX, Committer, committing
from riskcast_server.ingest import Door, utc_now
from riskcast_server.services.ingest import WINDOW_BATCHES, IngestService
from riskcast_server.settlement import Entry, Outcome
from riskcast_server.store import Store, open_store
from riskcast_server.store.sqlite import SqliteStore
from tests.riskcast_server.databases import Database
from tests.riskcast_server.events import LEDGER, event, record
from tests.riskcast_server.running import refused, riskcast, served
from tests.riskcast_server.test_settlement import good


class Gated:
    """A store whose answers to `settle` are held back: the commit is done, nobody knows."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.committed = asyncio.Event()
        self.open = asyncio.Event()
        self.batches: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def settle(self, entries: Sequence[Entry], ingested_at: int) -> list[Outcome]:
        outcomes = await self._store.settle(entries, ingested_at)
        self.batches.append(len(entries))
        self.committed.set()
        await self.open.wait()
        return outcomes


def test_a_client_that_leaves_after_the_commit_finds_its_signal_stored_when_it_repeats(database: Database) -> None:
    async def scenario() -> None:
        async with open_store(database.url) as store:
            gated = Gated(store)
            async with served(gated) as client:
                for number in range(50):
                    gated.committed.clear()
                    gated.open.clear()
                    call = client.ingest_stub.Ingest(IngestRequest(event=event(number)), timeout=20)
                    waiting = asyncio.ensure_future(call.wait_for_connection())
                    await gated.committed.wait()
                    call.cancel()
                    await asyncio.gather(waiting, return_exceptions=True)
                    gated.open.set()
                    told = set()
                    for _ in range(2):
                        with pytest.raises(grpc.aio.AioRpcError) as caught:
                            await client.ingest(event(number))
                        duplicate = refused(caught.value).duplicate
                        assert duplicate
                        told.add((duplicate.ack_id, duplicate.ingested_at.ToNanoseconds()))
                    assert len(told) == 1
                assert await client.count() == 50

    asyncio.run(scenario())


def test_nobody_is_answered_before_the_store_has_answered(database: Database) -> None:
    async def scenario() -> None:
        async with open_store(database.url) as store:
            gated = Gated(store)
            async with committing(gated, utc_now) as committer:
                waiting = committer.submit([good("a", 1)])
                await gated.committed.wait()
                assert not waiting.done()
                gated.open.set()
                assert len(await waiting) == 1

    asyncio.run(scenario())


def test_what_arrives_while_one_batch_commits_is_the_next_batch(sqlite_database: Database) -> None:
    async def scenario() -> None:
        async with open_store(sqlite_database.url) as store:
            gated = Gated(store)
            async with committing(gated, utc_now) as committer:
                first = committer.submit([good("a", 1)])
                await gated.committed.wait()
                rest = [committer.submit([good(f"b{index}", index)]) for index in range(2, 30)]
                left = committer.submit([good("left", 40)])
                left.cancel()
                gated.open.set()
                await asyncio.gather(first, *rest)
            assert gated.batches == [1, 29]
            assert await store.maybe_signal("left")

    asyncio.run(scenario())


def test_a_full_queue_is_refused_with_a_delay_and_nothing_of_it_is_stored(sqlite_database: Database) -> None:
    async def scenario() -> None:
        async with open_store(sqlite_database.url) as store:
            committer = Committer(store, utc_now)
            many = [good(f"s{index}", None) for index in range(QUEUE_RECORDS_MAX)]
            taken = committer.submit(many)
            with pytest.raises(ContractError) as caught:
                committer.submit([good("late", None)])
            assert caught.value.reason == "QUEUE_FULL"
            assert caught.value.retry_delay_s
            committer.close()
            await committer.run()
            assert len(await taken) == QUEUE_RECORDS_MAX
            assert await store.maybe_signal("late") is None

    asyncio.run(scenario())


def test_a_committer_that_dies_fails_its_callers_at_once_and_ends_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> list[Outcome]:
        raise RuntimeError("a bug")

    async def scenario() -> None:
        async with riskcast(tmp_path) as client:
            monkeypatch.setattr(SqliteStore, "settle", broken)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.ingest(event(1))
            assert refused(caught.value).reason in ("STORE_UNAVAILABLE", "SHUTTING_DOWN")

    with pytest.raises(RuntimeError, match="a bug"):
        asyncio.run(scenario())


def test_a_committer_that_dies_fails_the_batch_in_hand_and_what_is_queued(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with open_store(sqlite_database.url) as store:
            committer = Committer(store, utc_now)
            waiting = [committer.submit([good("a", 1)])]

            async def broken(*_: object) -> list[Outcome]:
                waiting.append(committer.submit([good("b", 2)]))
                raise RuntimeError("a bug")

            monkeypatch.setattr(store, "settle", broken)
            with pytest.raises(RuntimeError, match="a bug"):
                await committer.run()
            for each in waiting:
                assert each.done()
                with pytest.raises(ContractError, match="what became of this is unknown"):
                    await each

    asyncio.run(scenario())


def test_a_stream_reads_no_further_ahead_than_its_window(sqlite_database: Database) -> None:
    async def requests() -> AsyncIterator[IngestStreamRequest]:
        yield IngestStreamRequest(hello=IngestHello(ledger_id=LEDGER))
        for index in range(1, 3 * WINDOW_BATCHES):
            taken.append(index)
            yield IngestStreamRequest(batch=IngestBatch(records=[record(index)]))

    async def scenario() -> None:
        async with open_store(sqlite_database.url) as store:
            gated = Gated(store)
            async with committing(gated, utc_now) as committer:
                context: Any = None
                answers = IngestService(Door(committer, utc_now), gated).IngestStream(requests(), context)
                await anext(answers)
                first = asyncio.ensure_future(anext(answers))
                await gated.committed.wait()
                taken_ahead = len(taken)
                gated.open.set()
                assert taken_ahead == WINDOW_BATCHES
                await first
                assert len([answer async for answer in answers]) == 3 * WINDOW_BATCHES - 2

    taken: list[int] = []
    asyncio.run(scenario())


def test_leaving_the_block_commits_what_is_queued(database: Database) -> None:
    async def scenario() -> None:
        async with open_store(database.url) as store:
            async with committing(store, utc_now) as committer:
                queued = committer.submit([good("a", 1)])
            assert queued.done()
            assert await store.maybe_signal("a")
            with pytest.raises(ContractError, match="nothing more"):
                committer.submit([good("b", 2)])

    asyncio.run(scenario())


def test_a_stream_that_is_cut_leaves_its_batches_committed(database: Database) -> None:
    async def scenario() -> None:
        async with open_store(database.url) as store:
            gated = Gated(store)
            async with served(gated) as client:
                async with client.stream() as stream:
                    await stream.send([record(1)])
                    await gated.committed.wait()
                gated.open.set()
                assert (await client.hello()).settled_count == 1
                [again] = await client.deliver([record(1)])
                assert again.outcome == RECORD_OUTCOME_STORED

    asyncio.run(scenario())


def test_a_queue_of_too_many_bytes_is_refused_too_and_takes_as_many_again_once_they_are_committed(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = [good("s1", None), good("s2", None)]
    monkeypatch.setattr("riskcast_server.committer.QUEUE_BYTES_MAX", sum(len(entry.event) for entry in few))

    async def scenario() -> None:
        async with open_store(sqlite_database.url) as store, committing(store, utc_now) as committer:
            taken = [committer.submit([entry]) for entry in few]
            with pytest.raises(ContractError) as caught:
                committer.submit([good("late", None)])
            assert caught.value.reason == "QUEUE_FULL"
            assert caught.value.retry_delay_s
            await asyncio.gather(*taken)
            assert await store.maybe_signal("late") is None
            await committer.submit([good("s3", None), good("s4", None)])

    asyncio.run(scenario())
