"""Which store a URL names, what is refused before it serves, and what nobody is told."""

import asyncio
from pathlib import Path

import pytest

from bench.postgres import Postgres, execute
from riskcast_server.settings import RiskcastSettings
from riskcast_server.store import StoreRefused, StoreUnknown, migrate_store, open_store
from riskcast_server.store.postgres import PostgresStore
from riskcast_server.store.postgres.address import Address
from tests.riskcast_server.databases import PostgresDatabase
from tests.riskcast_server.process import run
from tests.riskcast_server.test_settlement import good

SECRET = "c4n4ry"


async def opening(address: str) -> None:
    async with open_store(address):
        pass


@pytest.mark.parametrize(
    "address",
    [
        "",
        "sqlite:///",
        f"{SECRET}.db",
        f"mysql://someone:{SECRET}@host/database",
        f"postgresql://someone:{SECRET}@host",
        f"postgresql://someone:{SECRET}@/database",
        f"postgresql://host/{SECRET}",
        f"postgresql://someone:{SECRET}@host:{SECRET}/database",
        f"postgresql://someone:{SECRET}@{SECRET}@host/database",
        f"postgresql://someone:{SECRET}@[host/database",
        f"postgresql://someone:{SECRET}@host/database?{SECRET}",
        f"postgresql://someone:{SECRET}@host/database?sslmode={SECRET}",
        f"postgresql://someone:{SECRET}@/database?host=/tmp&port={SECRET}",
    ],
)
def test_an_unknown_url_is_refused_without_being_repeated(address: str) -> None:
    for attempt in (opening, migrate_store):
        with pytest.raises(StoreUnknown, match=r"^the database URL must be [^\n]*$") as caught:
            asyncio.run(attempt(address))
        assert SECRET not in str(caught.value)


def test_what_the_url_does_not_say_is_taken_from_nowhere_else(
    postgres_database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".pgpass").write_text("*:*:*:*:wrong\n")
    (tmp_path / ".pgpass").chmod(0o600)
    for name in ("PGHOST", "PGUSER", "PGPASSWORD", "PGDATABASE", "PGSSLMODE", "PGSERVICE"):
        monkeypatch.setenv(name, "wrong")
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / ".pgpass"))
    asyncio.run(opening(postgres_database.url))
    assert Address.of("postgresql://a@h/d").arguments["password"] == ""


def test_a_password_is_given_to_nobody(postgres_server: Postgres, tmp_path: Path) -> None:
    settings = RiskcastSettings.model_validate({"database_url": f"postgresql://someone:{SECRET}@host/database"})
    assert SECRET not in f"{settings!r} {settings}"
    assert SECRET not in repr(Address.of(settings.database_url))
    for command, address, line in (
        (
            ("serve",),
            f"postgresql://someone:{SECRET}@/database?host={tmp_path}",
            f"postgresql://{tmp_path}/database cannot be used: ",
        ),
        (
            ("db", "migrate"),
            postgres_server.url("postgres", f"stranger:{SECRET}"),
            'password authentication failed for user "stranger"',
        ),
    ):
        refused = run(*command, RISKCAST_LISTEN="127.0.0.1:0", RISKCAST_DATABASE_URL=address)
        assert (refused.returncode, refused.stdout) == (5, "")
        assert refused.stderr.count("\n") == 1
        assert line in refused.stderr
        assert SECRET not in refused.stderr


def test_a_schema_that_is_missing_or_of_another_program_is_refused_in_one_line(postgres_server: Postgres) -> None:
    url = postgres_server.url(postgres_server.new_database())
    with pytest.raises(StoreRefused, match=r"has schema version 0; this program needs 2: run `riskcast db migrate`$"):
        asyncio.run(opening(url))
    asyncio.run(migrate_store(url))
    asyncio.run(opening(url))
    asyncio.run(execute(url, "INSERT INTO schema_versions (version) VALUES (99)"))
    for attempt in (opening, migrate_store):
        with pytest.raises(StoreRefused, match=r"has schema version 99; this program knows 2: upgrade it$"):
            asyncio.run(attempt(url))


def test_many_may_migrate_at_once_and_again(postgres_server: Postgres) -> None:
    url = postgres_server.url(postgres_server.new_database())

    async def scenario() -> None:
        await asyncio.gather(*(migrate_store(url) for _ in range(8)))
        await migrate_store(url)
        assert await execute(url, "SELECT version FROM schema_versions") == [(1,), (2,)]
        async with open_store(url) as store:
            await store.settle([good("a", 1)], 1)

    asyncio.run(scenario())


def test_behind_a_pooler_of_transactions_nothing_is_prepared_under_a_name(postgres_database: PostgresDatabase) -> None:
    prepared = "SELECT count(*) FROM pg_prepared_statements"

    async def scenario() -> None:
        for statements_cached, expected in ((0, 0), (100, 1)):
            async with open_store(postgres_database.url, statements_cached=statements_cached) as store:
                assert isinstance(store, PostgresStore)
                await store.settle([good("a", 1)], 1)
                [(count,)] = await store._database.read(prepared)
                assert min(count, 1) == expected

    asyncio.run(scenario())
