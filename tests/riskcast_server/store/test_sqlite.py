"""What is answered is on the disk; a store that cannot answer says so and comes back."""

import asyncio
import shutil
import sqlite3
from collections.abc import Awaitable
from pathlib import Path

import aiosqlite
import grpc
import pytest

from riskcast_server.store import StoreRefused, open_store
from riskcast_server.store.sqlite import SqliteStore, file
from riskcast_server.store.sqlite.file import make_durable
from tests.riskcast_server.events import event, record, records
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


def test_a_locked_file_is_unavailable_with_a_delay_and_answers_again_afterwards(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_store(url(tmp_path), timeout_s=IMPATIENT_S) as store, served(store) as client:
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
    with pytest.raises(StoreRefused, match=r"^.* has schema version 99; this program knows 3: upgrade it$"):
        asyncio.run(opening(url(tmp_path)))


def test_a_file_that_is_no_database_is_refused_in_one_line(tmp_path: Path) -> None:
    database(tmp_path).write_text("a letter to somebody" * 100)
    with pytest.raises(StoreRefused, match=r"^.*riskcast\.db cannot be used: file is not a database$"):
        asyncio.run(opening(url(tmp_path)))


def test_a_missing_directory_is_refused_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreRefused, match="No such file or directory"):
        asyncio.run(opening(url(tmp_path / "missing")))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_replaced_while_it_is_opened_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its log would be the other one's: what is committed could not be read again, or only that."""

    async def scenario() -> None:
        async with open_store(url(tmp_path)) as store:
            await store.settle([good("a", 1)], 7)
        copy = Path(shutil.copy(database(tmp_path), tmp_path / "copy.db"))

        def made_durable(writer: aiosqlite.Connection, path: Path) -> Awaitable[None]:
            copy.replace(path)
            return make_durable(writer, path)

        monkeypatch.setattr(file, "make_durable", made_durable)
        with pytest.raises(StoreRefused, match="replaced while it was opened"):
            async with open_store(url(tmp_path)):
                pass
        monkeypatch.undo()
        async with open_store(url(tmp_path)) as store:
            assert await store.maybe_signal("a")

    asyncio.run(scenario())
