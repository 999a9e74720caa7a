"""A SQLite file corrupted, replaced, deleted or of an old schema: never a false OK, and no restart to come back."""

import asyncio
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from contract.coverage import Coverage
from contract.errors import ContractError
from riskcast_server.settlement import Kept, Verdict
from riskcast_server.store import StatesQuery, Store, back_up_store, open_store
from riskcast_server.store.schema import migrations
from riskcast_server.store.sqlite import SqliteStore
from tests.riskcast_server.events import DAY, LEDGER, SEGMENT, event, records
from tests.riskcast_server.running import database, refused, riskcast, sql, url
from tests.riskcast_server.test_settlement import good, unary


def garble(path: Path, draw: random.Random) -> None:
    """Every page but the header of the file, where it is."""
    with path.open("r+b") as file:
        size = path.stat().st_size
        for start in range(100, size, 64):
            file.seek(start)
            file.write(draw.randbytes(min(64, size - start)))


def put_in_place(source: Path, target: Path) -> None:
    """A copy, moved over whatever is there."""
    beside = target.with_suffix(".new")
    shutil.copy(source, beside)
    beside.replace(target)


@pytest.mark.parametrize("seed", range(3))
def test_a_file_garbled_under_the_server_is_unavailable_and_a_sound_one_in_its_place_needs_no_restart(
    tmp_path: Path, seed: int
) -> None:
    sound = tmp_path / "sound.db"
    draw = random.Random(seed)

    async def scenario() -> None:
        async with riskcast(tmp_path) as client:
            await client.deliver(records(range(1, 200)))
            back_up_store(url(tmp_path), sound)
            await client.deliver(records(range(200, 260)))
            with closing(sqlite3.connect(database(tmp_path))) as other:
                other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            garble(database(tmp_path), draw)
            for number in range(300, 320):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await client.ingest(event(number))
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
                assert (refused(caught.value).reason, refused(caught.value).retry_delay_s) == ("STORE_UNAVAILABLE", 1.0)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.count()
            assert refused(caught.value).reason == "STORE_UNAVAILABLE"
            put_in_place(sound, database(tmp_path))
            assert await client.count() == 199
            assert len(await client.deliver(records(range(200, 260)))) == 60
            assert await client.count() == 259
        assert sql(tmp_path, "PRAGMA integrity_check") == [("ok",)]
        assert sql(tmp_path, "SELECT count(*) FROM signals") == [(259,)]

    asyncio.run(scenario())


def test_a_file_replaced_under_the_server_is_the_one_that_is_written_to_and_nothing_of_the_old_one_gets_into_it(
    tmp_path: Path,
) -> None:
    sound = tmp_path / "sound.db"

    async def scenario() -> None:
        async with open_store(url(tmp_path)) as store:
            await store.settle([good("a", 1)], 1)
            back_up_store(url(tmp_path), sound)
            await store.settle([good("b", 2)], 2)  # in the write-ahead log alone
            put_in_place(sound, database(tmp_path))
            assert await store.maybe_signal("b") is None
            await store.settle([good("c", 3)], 3)
            assert await store.coverage(LEDGER, [SEGMENT]) == {SEGMENT: Coverage.of([1, 3])}
        assert sql(tmp_path, "SELECT signal_id FROM signals ORDER BY 1") == [("a",), ("c",)]
        assert sql(tmp_path, "PRAGMA integrity_check") == [("ok",)]

    asyncio.run(scenario())


def test_a_commit_into_a_file_that_was_replaced_meanwhile_is_not_acknowledged(tmp_path: Path) -> None:
    sound = tmp_path / "sound.db"

    async def scenario() -> None:
        async with open_store(url(tmp_path)) as store:
            assert isinstance(store, SqliteStore)
            back_up_store(url(tmp_path), sound)

            async def commit() -> None:
                async with store._database.transaction() as writer:
                    await writer.execute("INSERT INTO leases VALUES ('a', 'b', 1, 1)")
                    put_in_place(sound, database(tmp_path))

            with pytest.raises(ContractError, match="what became of this is unknown"):
                await commit()
            [kept] = await store.settle([good("a", 1)], 1)
            assert kept.verdict is Verdict.STORED
        assert sql(tmp_path, "SELECT signal_id FROM signals") == [("a",)]

    asyncio.run(scenario())


def delete(path: Path) -> None:
    path.unlink()


def make_a_letter(path: Path) -> None:
    path.with_suffix(".new").write_text("a letter to somebody" * 100)
    path.with_suffix(".new").replace(path)


def make_newer(path: Path) -> None:
    with closing(sqlite3.connect(path.with_suffix(".new"))) as other:
        other.execute("PRAGMA user_version = 99")
    path.with_suffix(".new").replace(path)


@pytest.mark.parametrize("harm", [delete, make_a_letter, make_newer])
def test_while_no_sound_file_is_there_nothing_is_answered_and_none_is_made(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    sound = tmp_path / "sound.db"

    async def scenario() -> None:
        async with open_store(url(tmp_path)) as store:
            await store.settle([good("a", 1)], 1)
            back_up_store(url(tmp_path), sound)
            harm(database(tmp_path))
            left = database(tmp_path).exists()
            for _ in range(2):
                for ask in (ingest, look_up, lease):
                    with pytest.raises(ContractError, match="cannot be used now"):
                        await ask(store)
            assert database(tmp_path).exists() == left
            put_in_place(sound, database(tmp_path))
            repeat, _ = await store.settle([good("a", 1), good("b", 2)], 2)
            assert isinstance(repeat, Kept)
            assert (repeat.verdict, repeat.row.ingested_at) == (Verdict.DUPLICATE, 1)

    asyncio.run(scenario())


async def ingest(store: Store) -> None:
    await store.settle([good("b", 2)], 2)


async def look_up(store: Store) -> None:
    await store.maybe_signal("a")


async def lease(store: Store) -> None:
    await store.runs.lease(LEDGER, "one", 1.0)


OLD_SIGNAL = """INSERT INTO signals (signal_id, input_event_hash, ack_id, ingested_at, emitted_at, category,
    source_event_id, ledger_id, partition, segment_id, segment_ordinal, record_index, arrival_path, arrival_run_id,
    event)
    VALUES (?, 'h', ?, 7, 0, 3, 'q', ?, ?, ?, 1, ?, ?, '', ?)"""
OLD_STATE = "INSERT INTO reconcile_states VALUES (?, ?, 1, '', 3, 4294967299, 5, 'run', 1769688000000000)"


def old_database(path: Path) -> None:
    """As the first schema was left: a row from the ledger, one with the position that a client stated, and the rest."""
    with closing(sqlite3.connect(path)) as old:
        old.executescript(migrations("riskcast_server.store.sqlite")[0].read_text("utf-8"))
        for name, index, kept in (("a", 1, good("a", 1)), ("b", 2, unary("b", 2))):
            values = (name, kept.ack_id, LEDGER, DAY, SEGMENT, index, kept.path, kept.event)
            old.execute(OLD_SIGNAL, values)
        old.execute("INSERT INTO settlements VALUES (?, ?, ?, 1, 3, 'duplicate', 'a', '')", (LEDGER, DAY, SEGMENT))
        old.execute("INSERT INTO coverage VALUES (?, ?, ?, 1, '1-3', 3)", (LEDGER, SEGMENT, DAY))
        old.execute(OLD_STATE, (LEDGER, DAY))
        old.execute("PRAGMA user_version = 1")
        old.commit()


def test_a_database_of_the_first_schema_is_brought_up_to_date_with_all_it_holds(tmp_path: Path) -> None:
    old_database(database(tmp_path))

    async def scenario() -> None:
        async with open_store(url(tmp_path)) as store:
            row = await store.maybe_signal("a")
            assert row
            assert (row.signal.event, row.ingested_at) == (good("a", 1).event, 7)
            assert await store.coverage(LEDGER, [SEGMENT]) == {SEGMENT: Coverage.of([1, 3])}
            [state] = await store.runs.states(StatesQuery(), None, 10)
            assert state.key == (LEDGER, DAY, 0)
            assert (state.state.highwater_sequence, state.state.run_id) == (4294967299, "run")
            [kept] = await store.settle([good("c", 2)], 8)
            assert kept.verdict is Verdict.STORED

    asyncio.run(scenario())
    assert sql(tmp_path, "PRAGMA user_version") == [(3,)]
    asyncio.run(scenario_again(tmp_path))


async def scenario_again(directory: Path) -> None:
    async with open_store(url(directory)) as store:
        assert await store.settled_count(LEDGER) == 3


def test_a_database_of_the_first_schema_put_in_place_under_the_server_is_brought_up_to_date(tmp_path: Path) -> None:
    old_database(tmp_path / "old.db")

    async def scenario() -> None:
        async with open_store(url(tmp_path)) as store:
            await store.settle([good("z", 9)], 1)
            os.replace(tmp_path / "old.db", database(tmp_path))
            assert await store.coverage(LEDGER, [SEGMENT]) == {SEGMENT: Coverage.of([1, 3])}

    asyncio.run(scenario())
