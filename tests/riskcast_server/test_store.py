"""What is answered is on the disk; a store that cannot answer says so and comes back."""

import asyncio
import random
import sqlite3
from pathlib import Path

import aiosqlite
import grpc
import pytest

from contract.coverage import Coverage
from contract.errors import ContractError, Violation, invalid_signal
from riskcast_server.settlement import Candidate, Entry, Position, Refused, Verdict
from riskcast_server.store import Store, StoreRefused, open_store
from riskcast_server.store.sqlite import SqliteStore
from riskcast_server.store.sqlite.file import make_durable
from tests.riskcast_server.events import DAY, LEDGER, event, record, records
from tests.riskcast_server.running import database, refused, riskcast, served, sql, url
from tests.riskcast_server.test_settlement import good

IMPATIENT_S = 0.05


def test_the_log_is_synced_at_every_commit(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_store(url(tmp_path)) as store:
            assert isinstance(store, SqliteStore)
            assert list(await store._database.writer.execute_fetchall("PRAGMA synchronous")) == [(2,)]
            assert list(await store._database.writer.execute_fetchall("PRAGMA journal_mode")) == [("wal",)]

    asyncio.run(scenario())


def test_both_connections_wait_10_s_for_a_lock(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_store(url(tmp_path)) as store:
            assert isinstance(store, SqliteStore)
            for connection in (store._database.writer, store._database.reader):
                assert list(await connection.execute_fetchall("PRAGMA busy_timeout")) == [(10_000,)]

    asyncio.run(scenario())


def test_a_database_that_takes_no_synced_log_is_refused() -> None:
    async def scenario() -> None:
        async with aiosqlite.connect(":memory:") as database:
            with pytest.raises(StoreRefused, match="would not survive a power cut"):
                await make_durable(database, Path("nowhere.db"))

    asyncio.run(scenario())


def test_what_is_settled_is_committed_when_the_answer_comes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_store(url(tmp_path)) as store:
            await store.settle([good("a", 1), good("a", 2)], 7)
            assert sql(tmp_path, "SELECT signal_id, ingested_at FROM signals") == [("a", 7)]
            assert sql(tmp_path, "SELECT outcome, record_index FROM settlements") == [("duplicate", 2)]
            assert sql(tmp_path, "SELECT intervals FROM coverage") == [("1-2",)]

    asyncio.run(scenario())


@pytest.mark.parametrize("table", ["signals", "settlements", "coverage"])
def test_rows_settlements_and_coverage_are_written_together_or_not_at_all(tmp_path: Path, table: str) -> None:
    async def scenario() -> None:
        async with open_store(url(tmp_path)) as store:
            sql(tmp_path, f"CREATE TRIGGER stop BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'no'); END")
            with pytest.raises(ContractError, match="cannot be used now"):
                await store.settle([good("a", 1), good("a", 2)], 7)
            left = [sql(tmp_path, f"SELECT * FROM {each}") for each in ("signals", "settlements", "coverage")]
            assert left == [[], [], []]
            sql(tmp_path, "DROP TRIGGER stop")
            await store.settle([good("a", 1), good("a", 2)], 7)
            assert await store.settled_count(LEDGER) == 2

    asyncio.run(scenario())


def test_a_locked_file_is_unavailable_with_a_delay_and_answers_again_afterwards(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_store(url(tmp_path), busy_timeout_s=IMPATIENT_S) as store, served(store) as client:
            other = sqlite3.connect(database(tmp_path), isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.ingest(event(1))
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert refused(caught.value).reason == "STORE_UNAVAILABLE"
            assert refused(caught.value).retry_delay_s
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.deliver([record(1)])
            assert refused(caught.value).reason == "STORE_UNAVAILABLE"
            other.execute("ROLLBACK")
            other.close()
            await client.ingest(event(1))
            assert await client.count() == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("fault", ["PRAGMA query_only = ON", "PRAGMA max_page_count = 1"])
def test_a_read_only_or_full_file_is_unavailable_and_answers_again_afterwards(tmp_path: Path, fault: str) -> None:
    async def scenario() -> None:
        async with open_store(url(tmp_path)) as store, served(store) as client:
            assert isinstance(store, SqliteStore)
            await client.ingest(event(0))
            await store._database.writer.execute(fault)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.deliver([record(index, event(index, title="x" * 500)) for index in range(1, 100)])
            assert refused(caught.value).reason == "STORE_UNAVAILABLE"
            assert refused(caught.value).retry_delay_s
            assert await client.count() == 1
            await store._database.writer.execute("PRAGMA query_only = OFF")
            await store._database.writer.execute("PRAGMA max_page_count = 1000000")
            assert len(await client.deliver(records(range(1, 100)))) == 99
            assert await client.count() == 100

    asyncio.run(scenario())


def test_a_closed_store_is_unavailable(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_store(url(tmp_path)) as store:
            pass
        for question in (store.settle([good("a", 1)], 1), store.settled_count(LEDGER)):
            with pytest.raises(ContractError, match="cannot be used now"):
                await question

    asyncio.run(scenario())


async def opening(address: str) -> None:
    async with open_store(address):
        pass


def test_a_second_riskcast_on_the_same_file_is_refused_in_one_line(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with riskcast(tmp_path):
            with pytest.raises(StoreRefused, match=r"^.*riskcast\.db is in use by another RiskCast$"):
                await opening(url(tmp_path))
        await opening(url(tmp_path))

    asyncio.run(scenario())


def test_a_schema_of_a_newer_program_is_refused_in_one_line(tmp_path: Path) -> None:
    asyncio.run(opening(url(tmp_path)))
    sql(tmp_path, "PRAGMA user_version = 99")
    with pytest.raises(StoreRefused, match=r"^.* has schema version 99; this program knows 2: upgrade it$"):
        asyncio.run(opening(url(tmp_path)))


def test_a_file_that_is_no_database_is_refused_in_one_line(tmp_path: Path) -> None:
    database(tmp_path).write_text("a letter to somebody" * 100)
    with pytest.raises(StoreRefused, match=r"^.*riskcast\.db cannot be used: file is not a database$"):
        asyncio.run(opening(url(tmp_path)))


def test_a_missing_directory_is_refused_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreRefused, match="No such file or directory"):
        asyncio.run(opening(url(tmp_path / "missing")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", ["", "sqlite:///", "riskcast.db", "postgresql://someone:secret@host/db"])
def test_an_unknown_url_is_refused_without_being_repeated(address: str) -> None:
    with pytest.raises(StoreRefused, match=r"^the database URL must be sqlite:///path$"):
        asyncio.run(opening(address))


SEGMENTS = [bytes([number] * 16) for number in (1, 2)]
BAD = invalid_signal([Violation("title", "must be there")])


def drawn_entry(draw: random.Random) -> Entry:
    segment, index = draw.choice(SEGMENTS), draw.randint(1, 12)
    at = Position(LEDGER, DAY, segment, (SEGMENTS.index(segment) + 1) << 32 | index)
    if draw.random() < 0.15:
        return Refused(at, "", BAD, b"bad")
    shape = good(draw.choice("abcdefghijkl"), None, draw.choice(["h", "h", "h", "i"]))
    return Candidate(
        shape.signal_id, shape.input_event_hash, shape.ack_id, shape.event, 0, shape.category, "q", at, shape.path
    )


async def settled_places(directory: Path) -> set[tuple[bytes, int]]:
    """What the tables say, by the definition of settled."""
    rows = sql(directory, "SELECT segment_id, record_index FROM signals WHERE arrival_path <> 1")
    live = "outcome = 'rejected' OR signal_id IN (SELECT signal_id FROM signals)"
    return {*rows, *sql(directory, f"SELECT segment_id, record_index FROM settlements WHERE {live}")}


async def check_coverage(store: Store, directory: Path) -> None:
    expected = await settled_places(directory)
    found = await store.coverage(LEDGER, SEGMENTS)
    for segment in SEGMENTS:
        assert found.get(segment, Coverage()) == Coverage.of(index for each, index in expected if each == segment)
    assert await store.settled_count(LEDGER) == len(expected)


@pytest.mark.parametrize("seed", range(12))
def test_coverage_says_what_the_tables_say_whatever_is_settled_and_whatever_is_deleted(
    tmp_path: Path, seed: int
) -> None:
    draw = random.Random(seed)

    async def scenario() -> None:
        async with open_store(url(tmp_path)) as store:
            acks: dict[tuple[str, str], str] = {}
            for step in range(30):
                batch = [drawn_entry(draw) for _ in range(draw.randint(1, 6))]
                outcomes = await store.settle(batch, step)
                last_verdicts = {
                    (entry.position.segment_id, entry.position.record_index): outcome.verdict
                    for entry, outcome in zip(batch, outcomes, strict=True)
                    if entry.position
                }
                places = {place for place, verdict in last_verdicts.items() if verdict is not Verdict.CONFLICT}
                assert places <= await settled_places(tmp_path)
                for outcome in outcomes:
                    if row := getattr(outcome, "row", None):
                        key = row.signal.signal_id, row.signal.input_event_hash
                        assert acks.setdefault(key, row.signal.ack_id) == row.signal.ack_id
                if draw.random() < 0.3:
                    victim = draw.choice(["signals", "settlements", "coverage"])
                    sql(tmp_path, f"DELETE FROM {victim} WHERE segment_id = ?", draw.choice(SEGMENTS))
                if draw.random() < 0.5:
                    await check_coverage(store, tmp_path)
            await check_coverage(store, tmp_path)

    asyncio.run(scenario())
