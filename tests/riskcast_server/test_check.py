"""`riskcast check`: the store is looked at as a start would find it, and left as it was."""

import asyncio
import sqlite3
from pathlib import Path

import pytest
from filelock import FileLock

from bench.postgres import Postgres
from riskcast_server.cli.check import check_store, checks_of
from riskcast_server.settings import RiskcastSettings
from riskcast_server.store import StoreUnknown, migrate_store, open_store, schema_versions
from serving.checking.checks import Check, Outcome
from tests.riskcast_server.databases import Database
from tests.riskcast_server.events import event
from tests.riskcast_server.running import database as file_of
from tests.riskcast_server.running import riskcast, url


def settings(database_url: str) -> RiskcastSettings:
    return RiskcastSettings(listen="127.0.0.1:0", database_url=database_url, omen_targets=())


async def looked_at(database_url: str) -> Check:
    return await check_store(settings(database_url))


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_a_store_that_fits_takes_a_commit_and_keeps_what_it_holds(database: Database) -> None:
    await migrate_store(database.url)
    async with riskcast(database.url) as server:
        await server.ingest(event(1))
    check = await looked_at(database.url)
    assert (check.outcome, check.seen) == (Outcome.OK, "the schema fits, and a commit went through")
    async with riskcast(database.url) as server:
        assert await server.count() == 1


async def test_a_store_that_refuses_commits_fails(database: Database) -> None:
    await migrate_store(database.url)
    async with database.refusing_inserts("leases"):
        check = await looked_at(database.url)
    assert check.outcome is Outcome.FAILED
    assert len(check.seen.splitlines()) == 1


async def test_a_store_beside_its_server_is_left_alone_or_committed_to(database: Database) -> None:
    await migrate_store(database.url)
    async with riskcast(database.url) as server:
        check = await looked_at(database.url)
        assert check.outcome is Outcome.OK
        assert ("left alone" in check.seen) == database.url.startswith("sqlite")
        await server.ingest(event(1))


async def test_a_store_whose_server_has_just_made_it_is_in_use(tmp_path: Path) -> None:
    async with riskcast(tmp_path):
        check = await looked_at(url(tmp_path))
    assert (check.outcome, check.seen) == (Outcome.OK, "in use by a RiskCast: left alone")


async def test_what_a_killed_server_left_in_its_log_alone_is_seen(tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    killed.mkdir()
    async with riskcast(tmp_path) as server:
        await server.ingest(event(1))
        for name in names_in(tmp_path):
            if name.startswith(file_of(tmp_path).name):
                (killed / name).write_bytes((tmp_path / name).read_bytes())
    check = await looked_at(url(killed))
    assert (check.outcome, check.seen) == (Outcome.OK, "the schema fits, and a commit went through")
    async with riskcast(killed) as server:
        assert await server.count() == 1


async def test_a_start_waits_for_a_check_that_has_the_file_and_no_check_waits(tmp_path: Path) -> None:
    with FileLock(f"{file_of(tmp_path)}.lock"):
        start = asyncio.create_task(started(url(tmp_path)))
        assert (await looked_at(url(tmp_path))).seen == "in use by a RiskCast: left alone"
        await asyncio.sleep(0)  # it tries
        assert not start.done()
    await start


async def started(database_url: str) -> None:
    async with open_store(database_url):
        pass


@pytest.mark.parametrize("database_url", ["sqlite:///:memory:", "sqlite:///"])
async def test_no_file_is_no_store_for_the_check_and_the_start(database_url: str) -> None:
    assert (await looked_at(database_url)).outcome is Outcome.FAILED
    with pytest.raises(StoreUnknown):
        await started(database_url)


async def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    check = await looked_at(url(tmp_path))
    assert (check.outcome, check.seen) == (Outcome.OK, f"{file_of(tmp_path)} is yet to be made")
    assert names_in(tmp_path) == []


async def test_a_folder_that_is_not_there_fails(tmp_path: Path) -> None:
    check = await looked_at(url(tmp_path / "mistyped"))
    assert (check.outcome, check.seen) == (Outcome.FAILED, f"no directory {tmp_path / 'mistyped'}")
    assert names_in(tmp_path) == []


async def test_an_older_schema_is_told_of_and_not_brought_up_to_date(tmp_path: Path) -> None:
    with sqlite3.connect(file_of(tmp_path)) as connection:
        connection.execute("PRAGMA user_version = 1")
        connection.execute("CREATE TABLE signals (signal_id TEXT)")
    connection.close()
    before = file_of(tmp_path).read_bytes()
    check = await looked_at(url(tmp_path))
    assert check.outcome is Outcome.OK
    assert "schema version 1: brought up to" in check.seen
    assert file_of(tmp_path).read_bytes() == before
    assert names_in(tmp_path) == [file_of(tmp_path).name]


async def test_a_newer_schema_fails(tmp_path: Path) -> None:
    async with riskcast(tmp_path):
        pass
    _, known = schema_versions(file_of(tmp_path))
    with sqlite3.connect(file_of(tmp_path)) as connection:
        connection.execute(f"PRAGMA user_version = {known + 1}")
    connection.close()
    check = await looked_at(url(tmp_path))
    assert check.outcome is Outcome.FAILED
    assert "upgrade it" in check.seen


@pytest.mark.parametrize("content", [b"hunter2" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
async def test_what_is_no_database_fails(tmp_path: Path, content: bytes) -> None:
    file_of(tmp_path).write_bytes(content)
    check = await looked_at(url(tmp_path))
    assert check.outcome is Outcome.FAILED
    assert "hunter2" not in check.seen


def test_a_postgresql_without_the_schema_fails_and_says_what_to_run(postgres_server: Postgres) -> None:
    check = asyncio.run(looked_at(postgres_server.url(postgres_server.new_database())))
    assert check.outcome is Outcome.FAILED
    assert "riskcast db migrate" in check.seen


async def test_a_postgresql_that_is_not_there_fails_without_its_password() -> None:
    check = await looked_at("postgresql://riskcast:hunter2@127.0.0.1:1/riskcast")
    assert check.outcome is Outcome.FAILED
    assert "hunter2" not in check.seen


async def test_a_url_that_names_no_store_fails_and_the_other_checks_go_on() -> None:
    told = settings("mysql://riskcast:hunter2@localhost/riskcast")
    checks = {check.name: check async for check in checks_of(told)}
    assert list(checks) == ["listen", "address", "store", "keys", "TLS", "traces", "OMEN"]
    assert checks["store"].outcome is Outcome.FAILED
    assert "hunter2" not in checks["store"].seen
