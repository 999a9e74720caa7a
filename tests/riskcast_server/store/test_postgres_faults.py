"""PostgreSQL killed, hung, locked, or run without care: never a false OK, and back by itself."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import count

import asyncpg
import grpc
import pytest

from bench.postgres import Postgres, execute, migrated, postgres
from contract.errors import ContractError, Reason
from riskcast.v1.ingest_service_pb2 import RECORD_OUTCOME_STORED
from riskcast_server.store import StatesQuery, StoreRefused, open_store
from riskcast_server.store.postgres import PostgresStore
from riskcast_server.store.postgres.database import RETRY_DELAY_S
from tests.riskcast_server.databases import PostgresDatabase
from tests.riskcast_server.events import LEDGER, event, record
from tests.riskcast_server.running import Client, refused, riskcast
from tests.riskcast_server.test_settlement import good

KILLS = 3
DEADLINE_S = 30.0
IMPATIENT_S = 0.3
UNSAFE = (
    r"^PostgreSQL runs without fsync, full_page_writes and synchronous_commit: commits would not survive a power cut$"
)


@pytest.fixture(scope="module")
def own_server() -> Iterator[Postgres]:
    """One that a test may kill, and leaves running."""
    with postgres() as server:
        yield server


@pytest.fixture(scope="module")
def own_database(own_server: Postgres) -> PostgresDatabase:
    return PostgresDatabase(own_server, migrated(own_server))


class Load:
    """Clients that ingest one new signal after the other, and records on a stream, and note what they are told."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._numbers = count(1)
        self._progress = asyncio.Condition()
        self.acks: dict[int, str] = {}
        self.is_over = False
        self.failures: list[tuple[grpc.StatusCode, str, float | None]] = []

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(6):
                tasks.create_task(self._work(self._ingest))
            tasks.create_task(self._work(self._deliver))

    async def until(self, acknowledged: int) -> None:
        async with asyncio.timeout(DEADLINE_S), self._progress:
            await self._progress.wait_for(lambda: len(self.acks) >= acknowledged)

    async def until_it_fails(self) -> None:
        failures = len(self.failures)
        async with asyncio.timeout(DEADLINE_S), self._progress:
            await self._progress.wait_for(lambda: len(self.failures) > failures)

    async def _work(self, act: Callable[[int], Awaitable[str]]) -> None:
        while not self.is_over:
            number = next(self._numbers)
            try:
                self.acks[number] = await act(number)
            except grpc.aio.AioRpcError as error:
                told = refused(error)
                self.failures.append((error.code(), told.reason, told.retry_delay_s))
            async with self._progress:
                self._progress.notify_all()

    async def _ingest(self, number: int) -> str:
        return (await self._client.ingest(event(number))).ack_id

    async def _deliver(self, number: int) -> str:
        [result] = await self._client.deliver([record(number)])
        assert result.outcome == RECORD_OUTCOME_STORED
        return result.ack_id


def test_killed_with_9_under_load_and_started_again_nothing_acknowledged_is_lost_and_riskcast_goes_on(
    own_server: Postgres, own_database: PostgresDatabase
) -> None:
    own_database.empty()

    async def scenario() -> None:
        async with riskcast(own_database.url) as client:
            load = Load(client)
            running = asyncio.create_task(load.run())
            for _ in range(KILLS):
                await load.until(len(load.acks) + 60)
                await asyncio.to_thread(own_server.kill)
                await load.until_it_fails()
                await asyncio.to_thread(own_server.start)
                await load.until(len(load.acks) + 60)
            load.is_over = True
            await running
            assert set(load.failures) == {(grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", RETRY_DELAY_S)}
            stored = dict(await execute(own_database.url, "SELECT signal_id, ack_id FROM signals"))
            for number, ack_id in load.acks.items():
                assert stored[event(number).signal_id] == ack_id
            for number in list(load.acks)[:50]:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await client.ingest(event(number))
                duplicate = refused(caught.value).duplicate
                assert duplicate
                assert duplicate.ack_id == load.acks[number]
            assert await client.count() == len(stored)

    asyncio.run(scenario())


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    """They hang: connected, and silent."""
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_a_server_that_hangs_is_unavailable_in_time_and_answers_again_afterwards(
    own_server: Postgres, own_database: PostgresDatabase
) -> None:
    own_database.empty()

    async def scenario() -> None:
        async with open_store(own_database.url, timeout_s=IMPATIENT_S) as store:
            await store.settle([good("a", 1)], 1)
            others = "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            pids = [pid for (pid,) in await execute(own_database.url, others)]
            with stopped([own_server.pid, *pids]):
                for question in (store.settle([good("b", 2)], 2), store.settled_count(LEDGER)):
                    with pytest.raises(ContractError) as caught:
                        await asyncio.wait_for(question, 4 * IMPATIENT_S)
                    assert caught.value.reason == Reason.STORE_UNAVAILABLE
                    assert caught.value.retry_delay_s
            async with asyncio.timeout(DEADLINE_S):
                assert await settled_in_the_end(store) == 2

    asyncio.run(scenario())


async def settled_in_the_end(store: object) -> int:
    assert isinstance(store, PostgresStore)
    while True:
        try:
            await store.settle([good("b", 2)], 3)
            return await store.settled_count(LEDGER)
        except ContractError:
            continue


def test_a_table_that_somebody_locks_is_unavailable_in_time_and_answers_again_afterwards(
    postgres_database: PostgresDatabase,
) -> None:
    async def scenario() -> None:

        async with open_store(postgres_database.url, timeout_s=IMPATIENT_S) as store:
            other = await asyncpg.connect(postgres_database.url)
            await other.execute("BEGIN; LOCK TABLE signals")
            for question in (store.settle([good("a", 1)], 1), store.maybe_signal("a")):
                with pytest.raises(ContractError, match="cannot be used now"):
                    await asyncio.wait_for(question, 4 * IMPATIENT_S)
            await other.close()
            await store.settle([good("a", 1)], 2)
            assert await store.settled_count(LEDGER) == 1

    asyncio.run(scenario())


def test_questions_that_wait_however_many_keep_no_commit_waiting(postgres_database: PostgresDatabase) -> None:
    async def scenario() -> None:
        async with open_store(postgres_database.url) as store:
            other = await asyncpg.connect(postgres_database.url)
            await other.execute("BEGIN; LOCK TABLE reconcile_history")
            asking = [asyncio.create_task(store.runs.states(StatesQuery(), None, 1)) for _ in range(20)]
            await store.settle([good("a", 1)], 1)
            assert not any(each.done() for each in asking)
            await other.close()
            assert await asyncio.gather(*asking) == [[]] * 20

    asyncio.run(scenario())


async def opening(address: str) -> None:
    async with open_store(address):
        pass


def test_a_server_that_would_lose_commits_is_refused_at_the_start_and_unavailable_later(
    own_server: Postgres, own_database: PostgresDatabase
) -> None:
    own_database.empty()

    async def scenario() -> None:
        async with open_store(own_database.url) as store:
            await store.settle([good("a", 1)], 1)
            for setting in ("fsync=off", "full_page_writes=off"):
                await asyncio.to_thread(own_server.stop)
                await asyncio.to_thread(own_server.start, setting)
                with pytest.raises(StoreRefused, match=UNSAFE):
                    await opening(own_database.url)
                for _ in range(2):
                    with pytest.raises(ContractError, match="cannot be used now"):
                        await store.settle([good("b", 2)], 2)
            await asyncio.to_thread(own_server.stop)
            await asyncio.to_thread(own_server.start, "synchronous_commit=off")
            assert await store.settled_count(LEDGER) == 1
            assert isinstance(store, PostgresStore)
            assert await store._database.read("SHOW synchronous_commit") == [("on",)]

    asyncio.run(scenario())


def test_coverage_deleted_in_the_middle_of_a_batch_is_unavailable_and_the_next_batch_is_settled(
    postgres_database: PostgresDatabase,
) -> None:
    async def scenario() -> None:
        async with open_store(postgres_database.url) as store:
            body = "'BEGIN DELETE FROM coverage; RETURN NULL; END'"
            await postgres_database.sql(f"CREATE FUNCTION gone() RETURNS trigger AS {body} LANGUAGE plpgsql")
            await postgres_database.sql(
                "CREATE TRIGGER gone AFTER INSERT ON coverage FOR EACH ROW EXECUTE FUNCTION gone()"
            )
            with pytest.raises(ContractError) as caught:
                await store.settle([good("a", 1)], 1)
            assert caught.value.reason is Reason.STORE_UNAVAILABLE
            await postgres_database.sql("DROP TRIGGER gone ON coverage")
            await postgres_database.sql("DROP FUNCTION gone")
            await store.settle([good("a", 1)], 1)
            assert await store.settled_count(LEDGER) == 1

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "state", ["53100", "25006", "XX001", "57P03"], ids=["full", "read-only", "corrupt", "starting or stopping"]
)
def test_whatever_postgresql_says_it_cannot_do_now_is_unavailable_and_done_afterwards(
    postgres_database: PostgresDatabase, state: str
) -> None:
    async def scenario() -> None:
        async with open_store(postgres_database.url) as store:
            body = f"$$BEGIN RAISE EXCEPTION USING ERRCODE = '{state}'; END$$"
            await postgres_database.sql(f"CREATE FUNCTION refuse() RETURNS trigger AS {body} LANGUAGE plpgsql")
            await postgres_database.sql(
                "CREATE TRIGGER refuse BEFORE INSERT ON signals FOR EACH ROW EXECUTE FUNCTION refuse()"
            )
            with pytest.raises(ContractError) as caught:
                await store.settle([good("a", 1)], 1)
            assert (caught.value.reason, caught.value.retry_delay_s) == (Reason.STORE_UNAVAILABLE, RETRY_DELAY_S)
            assert await store.maybe_signal("a") is None
            await postgres_database.sql("DROP TRIGGER refuse ON signals")
            await postgres_database.sql("DROP FUNCTION refuse")
            await store.settle([good("a", 1)], 1)
            assert await store.settled_count(LEDGER) == 1

    asyncio.run(scenario())
