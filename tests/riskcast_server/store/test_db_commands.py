"""`riskcast db`: the schema brought up to date, and a copy taken beside a running server."""

import asyncio
import os
from pathlib import Path
from stat import S_IMODE

import pytest

import serving
from bench.postgres import Postgres
from contract.coverage import Coverage
from riskcast_server.store import StoreRefused, back_up_store, open_store
from tests.riskcast_server.databases import Database, PostgresDatabase
from tests.riskcast_server.events import LEDGER, SEGMENT, event, records
from tests.riskcast_server.process import run, server
from tests.riskcast_server.running import Client, riskcast, sql, url
from tests.riskcast_server.test_settlement import good


def test_migrate_says_that_the_schema_is_up_to_date(database: Database) -> None:
    done = run("db", "migrate", RISKCAST_DATABASE_URL=database.url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "the schema is up to date\n")


def test_serve_tells_what_to_run_on_a_database_without_a_schema_and_then_serves(
    postgres_server: Postgres, tmp_path: Path
) -> None:
    address = postgres_server.url(postgres_server.new_database())
    told = {"RISKCAST_LISTEN": "127.0.0.1:0", "RISKCAST_DATABASE_URL": address}
    refused = run("serve", **told)
    assert refused.returncode == 5
    assert refused.stderr.endswith("has schema version 0; this program needs 2: run `riskcast db migrate`\n")
    assert refused.stderr.count("\n") == 1
    assert run("db", "migrate", **told).returncode == 0

    async def scenario(target: str) -> None:
        async with serving.channel(target) as channel:
            await Client(channel).ingest(event(1))

    with server(tmp_path, RISKCAST_DATABASE_URL=address) as running:
        asyncio.run(scenario(running.target))


def test_a_backup_beside_a_server_under_load_opens_as_a_store_and_holds_what_was_acknowledged(tmp_path: Path) -> None:
    copies = [tmp_path / f"copy{number}" / "riskcast.db" for number in range(2)]
    known: list[int] = []

    async def load(client: Client) -> None:
        async with client.stream() as stream:
            for start in range(1, 4001, 100):
                await stream.send(records(range(start, start + 100)))
                await stream.results()
                known.append(start + 99)

    async def scenario() -> None:
        async with riskcast(tmp_path) as client:
            loading = asyncio.create_task(load(client))
            for copy in copies:
                copy.parent.mkdir()
                acknowledged = known[-1] if known else 0
                done = await asyncio.to_thread(run, "db", "backup", str(copy), RISKCAST_DATABASE_URL=url(tmp_path))
                assert (done.returncode, done.stdout, done.stderr) == (0, "", f"{copy} holds what was committed\n")
                held = sql(copy.parent, "SELECT count(*) FROM signals")[0][0]
                assert acknowledged <= held
                assert held % 100 == 0
            await loading
        for copy in copies:
            async with open_store(url(copy.parent)) as store:
                count = await store.settled_count(LEDGER)
                assert await store.coverage(LEDGER, [SEGMENT]) == ({SEGMENT: Coverage.up_to(count)} if count else {})
                await store.settle([good("a", 9000)], 1)
            assert sql(copy.parent, "PRAGMA integrity_check") == [("ok",)]

    asyncio.run(scenario())


def test_a_backup_takes_no_files_place_and_leaves_nothing_when_it_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    (copies / "there").write_text("precious")
    asyncio.run(opened(url(tmp_path)))
    for target, line in ((copies / "there", "exists already"), (copies / "missing" / "file", "No such file")):
        with pytest.raises(StoreRefused, match=line):
            back_up_store(url(tmp_path), target)
    with pytest.raises(StoreRefused, match="unable to open database file"):
        back_up_store(url(tmp_path / "nowhere"), copies / "file")

    def somebody_else_is_faster(source: str, target: Path) -> None:
        Path(target).write_text("faster")
        link(source, target)

    link = os.link
    monkeypatch.setattr(os, "link", somebody_else_is_faster)
    with pytest.raises(StoreRefused, match="File exists"):
        back_up_store(url(tmp_path), copies / "file")
    assert {each.name: each.read_text() for each in copies.iterdir()} == {"there": "precious", "file": "faster"}


async def opened(address: str) -> None:
    async with open_store(address):
        pass


def test_a_backup_is_durable_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(opened(url(tmp_path)))
    done: list[str] = []
    fsync, link = os.fsync, os.link

    def noted_fsync(descriptor: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).suffix)
        fsync(descriptor)

    def noted_link(source: str, target: Path) -> None:
        done.append("link")
        link(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "link", noted_link)
    (tmp_path / "copies").mkdir()
    back_up_store(url(tmp_path), tmp_path / "copies" / "file")
    assert S_IMODE((tmp_path / "copies" / "file").stat().st_mode) == 0o600
    assert done == [".partial", "link", ""]


def test_postgresql_is_backed_up_by_its_own_tools(postgres_database: PostgresDatabase, tmp_path: Path) -> None:
    refused = run("db", "backup", str(tmp_path / "copy"), RISKCAST_DATABASE_URL=postgres_database.url)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "a PostgreSQL database is backed up by pg_dump\n"
    assert list(tmp_path.iterdir()) == []


def test_a_backup_put_in_the_place_of_the_file_is_what_the_server_then_has(tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"

    async def scenario() -> None:
        async with riskcast(tmp_path) as client:
            await client.deliver(records(range(1, 11)))
            back_up_store(url(tmp_path), copy)
            await client.deliver(records(range(11, 21)))
            copy.replace(tmp_path / "riskcast.db")
            assert (await client.hello(SEGMENT)).settled_count == 10

    asyncio.run(scenario())
