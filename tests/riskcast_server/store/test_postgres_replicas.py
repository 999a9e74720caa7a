"""Several RiskCasts on one PostgreSQL: each signal once, the same answers everywhere, and nobody stuck."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import asyncpg
import grpc
import pytest
from structlog.testing import capture_logs

from contract.coverage import Coverage
from contract.errors import ContractError, ErrorDetails
from riskcast.v1 import ingest_service_pb2 as ingest_pb
from riskcast_server.settlement import Candidate, Entry, Kept, Verdict
from riskcast_server.store import Store, open_store
from riskcast_server.store.postgres.database import BEGIN
from tests.riskcast_server.databases import PostgresDatabase
from tests.riskcast_server.events import DAY, LEDGER, OTHER_LEDGER, SEGMENT, event
from tests.riskcast_server.running import Client, refused, riskcast
from tests.riskcast_server.store.test_contract import check_coverage, drawn_entry, standing
from tests.riskcast_server.store.test_contract_runs import LONG_S, OVER_S, state
from tests.riskcast_server.test_settlement import good

DEADLINE_S = 20.0

HOLD = "SELECT * FROM coverage WHERE segment_id = $1 FOR UPDATE"
MAKE = f"""INSERT INTO coverage (ledger_id, segment_id, partition, segment_ordinal, intervals, settled_count)
    VALUES ('{LEDGER}', $1, '{DAY}', 1, '', 0)"""

INSERT = """INSERT INTO signals (signal_id, input_event_hash, ack_id, ingested_at, emitted_at, category,
    source_event_id, arrival_path, arrival_run_id, event) VALUES ($1, '', '', 1, 1, 1, '', 1, '', '')"""
SEGMENTS = [bytes([number] * 16) for number in (1, 2, 3)]
NAMES = ["a", "b", "c"]

WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"


@asynccontextmanager
async def replicas(database: PostgresDatabase) -> AsyncIterator[tuple[Store, Store]]:
    async with open_store(database.url) as one, open_store(database.url) as other:
        yield one, other


@asynccontextmanager
async def connected(database: PostgresDatabase) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(database.url)
    try:
        yield connection
    finally:
        await connection.close()


async def until_somebody_waits(database: PostgresDatabase) -> None:
    async with connected(database) as connection, asyncio.timeout(DEADLINE_S):
        while not await connection.fetchval(WAITING):
            pass


def moved(candidate: Candidate, ledger_id: str) -> Candidate:
    assert candidate.position
    return replace(candidate, position=replace(candidate.position, ledger_id=ledger_id))


def contention(logs: Sequence[Mapping[str, Any]]) -> set[str]:
    """Why batches were decided again, or not settled at all."""
    return {each["error"] for each in logs if each["event"].startswith("store_")}


async def outcome(client: Client, number: int) -> ingest_pb.IngestResponse | ErrorDetails:
    try:
        return await client.ingest(event(number))
    except grpc.aio.AioRpcError as error:
        return refused(error)


def test_64_ingests_of_one_id_over_two_replicas_give_one_ok_and_63_repeats_with_one_ack_id(
    postgres_database: PostgresDatabase,
) -> None:
    async def scenario() -> None:
        async with riskcast(postgres_database.url) as one, riskcast(postgres_database.url) as other:
            for number in range(20):
                outcomes = await asyncio.gather(
                    *(outcome(client, number) for _ in range(32) for client in (one, other))
                )
                stored = [each for each in outcomes if isinstance(each, ingest_pb.IngestResponse)]
                repeats = [each for each in outcomes if isinstance(each, ErrorDetails)]
                assert (len(stored), len(repeats)) == (1, 63)
                assert {each.reason for each in repeats} == {"DUPLICATE_SIGNAL"}
                told = {
                    (each.duplicate.ack_id, each.duplicate.ingested_at.ToNanoseconds())
                    for each in repeats
                    if each.duplicate
                }
                assert told == {(stored[0].ack_id, stored[0].ingested_at.ToNanoseconds())}
            assert await one.count() == await other.count() == 20

    asyncio.run(scenario())


@pytest.mark.parametrize("seed", range(3))
def test_replicas_that_deliver_overlapping_batches_in_opposite_order_never_deadlock_and_agree(
    postgres_database: PostgresDatabase, seed: int
) -> None:
    draw = random.Random(seed)
    acks: dict[tuple[str, str], set[str]] = {}

    async def deliver(store: Store, batches: list[list[Entry]]) -> None:
        for step, batch in enumerate(batches):
            for each in await store.settle(batch, step):
                if isinstance(each, Kept):
                    signal = each.row.signal
                    acks.setdefault((signal.signal_id, signal.input_event_hash), set()).add(signal.ack_id)

    async def scenario() -> None:
        async with replicas(postgres_database) as (one, other):
            for _ in range(5):
                batches = [[drawn_entry(draw) for _ in range(20)] for _ in range(6)]
                mirrored = [batch[::-1] for batch in batches]
                async with asyncio.timeout(DEADLINE_S):
                    await asyncio.gather(deliver(one, batches), deliver(other, mirrored))
                await check_coverage(one, postgres_database)
                await postgres_database.sql("TRUNCATE signals, settlements, coverage")
            assert {len(each) for each in acks.values()} == {1}

    with capture_logs() as logs:
        asyncio.run(scenario())
    assert contention(logs) <= {"Outrun"}


def test_replicas_that_store_the_same_signals_in_opposite_order_never_deadlock_and_store_each_once(
    postgres_database: PostgresDatabase,
) -> None:
    """The signals come from two ledgers, so that no lock of a segment puts them into an order."""
    verdicts: list[Verdict] = []

    async def deliver(store: Store, batch: list[Candidate]) -> None:
        verdicts.extend(each.verdict for each in await store.settle(batch, 1))

    async def scenario() -> None:
        async with replicas(postgres_database) as (one, other), asyncio.timeout(DEADLINE_S):
            for start in range(1, 5001, 1000):
                batch = [good(f"s{number}", number) for number in range(start, start + 1000)]
                mirrored = [moved(each, OTHER_LEDGER) for each in batch[::-1]]
                await asyncio.gather(deliver(one, batch), deliver(other, mirrored))
        [(count,)] = await postgres_database.sql("SELECT count(*) FROM signals")
        assert count == verdicts.count(Verdict.STORED) == verdicts.count(Verdict.DUPLICATE) == 5000

    with capture_logs() as logs:
        asyncio.run(scenario())
    assert contention(logs) <= {"Outrun"}


@pytest.mark.parametrize(
    ("claim", "keys"),
    [(HOLD, SEGMENTS), (MAKE, SEGMENTS), (INSERT, NAMES)],
    ids=["known segments", "new segments", "signals"],
)
def test_a_batch_takes_what_it_needs_in_one_order_whatever_its_own(
    postgres_database: PostgresDatabase, claim: str, keys: Sequence[object]
) -> None:
    """While the second is somebody else's, the first is taken and the third is not."""
    batch = [standing(name, segment, 1) for name, segment in zip(NAMES, SEGMENTS, strict=True)][::-1]

    async def free_ones() -> list[object]:
        free: list[object] = []
        for key in keys:
            async with connected(postgres_database) as asking:
                await asking.execute("SET lock_timeout = 50")
                with suppress(asyncpg.LockNotAvailableError):
                    await asking.execute("BEGIN")
                    await asking.execute(claim, key)
                    free.append(key)
        return free

    async def scenario() -> None:
        async with open_store(postgres_database.url) as store, connected(postgres_database) as rival:
            if claim == HOLD:
                await store.settle(batch, 1)
            await rival.execute("BEGIN")
            await rival.execute(claim, keys[1])
            settling = asyncio.create_task(store.settle(batch, 2))
            await until_somebody_waits(postgres_database)
            assert await free_ones() == [keys[2]]
            await rival.execute("ROLLBACK")
            await settling

    asyncio.run(scenario())


def test_a_batch_that_another_replica_outran_is_decided_again(postgres_database: PostgresDatabase) -> None:
    async def scenario() -> None:
        async with replicas(postgres_database) as (one, other), connected(postgres_database) as rival:
            await one.settle([good("a", None)], 1)
            await rival.execute("BEGIN; UPDATE signals SET signal_id = 'b', ack_id = 'won'")
            settling = asyncio.create_task(other.settle([good("c", 1), good("b", 2)], 7))
            await until_somebody_waits(postgres_database)
            await rival.execute("COMMIT")
            stored, repeat = await settling
            assert (stored.verdict, repeat.verdict) == (Verdict.STORED, Verdict.DUPLICATE)
            assert isinstance(repeat, Kept)
            assert repeat.row.signal.ack_id == "won"
            assert await other.coverage(LEDGER, [SEGMENT]) == {SEGMENT: Coverage.of([1, 2])}

    with capture_logs() as logs:
        asyncio.run(scenario())
    assert contention(logs) == {"Outrun"}


def test_a_place_goes_to_one_signal_whoever_asks_for_it_at_once(postgres_database: PostgresDatabase) -> None:
    async def scenario() -> None:
        async with replicas(postgres_database) as stores:
            for index in range(1, 41):
                settling = [
                    store.settle([good(f"{name}{index}", index)], 1) for store, name in zip(stores, "ab", strict=True)
                ]
                verdicts = sorted(each.verdict for [each] in await asyncio.gather(*settling))
                assert verdicts == [Verdict.REJECTED, Verdict.STORED]
            assert await stores[0].coverage(LEDGER, [SEGMENT]) == {SEGMENT: Coverage.up_to(40)}
            assert await stores[0].settled_count(LEDGER) == 40

    asyncio.run(scenario())


def test_a_lease_asked_for_at_once_is_one_replicas_and_fences_the_other_out_after_it_ran_out(
    postgres_database: PostgresDatabase,
) -> None:
    async def scenario() -> None:
        async with replicas(postgres_database) as stores:
            asking = [store.runs.lease(LEDGER, f"run{number}", LONG_S) for number, store in enumerate(stores * 10)]
            [lease] = set(await asyncio.gather(*asking))
            assert lease.holder.startswith("run")
            one, other = stores
            assert await one.runs.renew(lease, OVER_S)
            later = await other.runs.lease(LEDGER, "later", LONG_S)
            assert (later.holder, later.fence) == ("later", lease.fence + 1)
            assert not await one.runs.renew(lease, LONG_S)
            with pytest.raises(ContractError, match="another run of this ledger took over"):
                await one.runs.save_state(lease, state(lease))
            await other.runs.save_state(later, state(later))

    asyncio.run(scenario())


def test_a_replica_that_hangs_in_a_transaction_keeps_the_others_waiting_no_longer_than_its_time_out(
    postgres_database: PostgresDatabase,
) -> None:
    async def scenario() -> None:
        async with open_store(postgres_database.url) as store, connected(postgres_database) as hung:
            await store.settle([good("a", 1)], 1)
            await hung.execute(BEGIN.format(timeout_ms=200))
            await hung.execute("SELECT * FROM coverage FOR UPDATE")
            [kept] = await store.settle([good("b", 2)], 2)
            assert kept.verdict is Verdict.STORED

    asyncio.run(scenario())
