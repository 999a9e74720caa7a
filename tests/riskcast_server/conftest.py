"""Every store that RiskCast knows. What a test proves of `database` it proves of all; another one is a parameter."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.postgres import Postgres, migrated, postgres
from tests.riskcast_server.databases import Database, PostgresDatabase, SqliteDatabase
from tests.serving.conftest import pytest_pyfunc_call as pytest_pyfunc_call


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@pytest.fixture(scope="session")
def migrated_postgres(postgres_server: Postgres) -> PostgresDatabase:
    return PostgresDatabase(postgres_server, migrated(postgres_server))


@pytest.fixture
def postgres_database(migrated_postgres: PostgresDatabase) -> PostgresDatabase:
    """Empty; a new one for each test would take longer than most tests."""
    migrated_postgres.empty()
    return migrated_postgres


@pytest.fixture
def sqlite_database(tmp_path: Path) -> SqliteDatabase:
    return SqliteDatabase(tmp_path)


@pytest.fixture(params=["sqlite_database", "postgres_database"])
def database(request: pytest.FixtureRequest) -> Database:
    found: Database = request.getfixturevalue(request.param)
    return found
