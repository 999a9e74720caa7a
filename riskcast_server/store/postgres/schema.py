"""The schema version of a PostgreSQL database: `migrate` changes it, a server only looks at it.

Several replicas start at once, the old ones still serving: none of them may change the schema by itself.
"""

import asyncpg

from riskcast_server.store.contract import StoreRefused
from riskcast_server.store.postgres.address import Address
from riskcast_server.store.postgres.database import Connection, Database, refusing
from riskcast_server.store.schema import migrations, newer_schema

PACKAGE = "riskcast_server.store.postgres"

LOCK = "SELECT pg_advisory_xact_lock(8244247497944429428)"  # "riskcast" in ASCII; one changes the schema at a time

CREATE_VERSIONS = """CREATE TABLE IF NOT EXISTS schema_versions (
    version    INTEGER     NOT NULL PRIMARY KEY,
    applied_at TIMESTAMPTZ NOT NULL DEFAULT now()
)"""

VERSION = "SELECT coalesce(max(version), 0) FROM schema_versions"

CONNECT_TIMEOUT_S = 10.0


async def check_version(connection: Connection, place: str) -> None:
    """StoreRefused in one line when the schema is not the one that this program knows."""
    known = len(migrations(PACKAGE))
    try:
        version = await connection.fetchval(VERSION)
    except asyncpg.UndefinedTableError:
        version = 0
    if version > known:
        raise newer_schema(place, version, known)
    if version < known:
        raise StoreRefused(
            f"{place} has schema version {version}; this program needs {known}: run `riskcast db migrate`"
        )


async def migrate(url: str, *, statements_cached: int) -> int:
    """Brings the schema up to date, all of it or nothing, however many do so at once; the version it then has.

    StoreUnknown for a URL that cannot be read; StoreRefused when it cannot be done, in one line.
    """
    address = Address.of(url)
    with refusing(address.place):
        async with Database.opened(address, CONNECT_TIMEOUT_S, statements_cached) as database:
            return await database.attempt(lambda connection: _migrate(connection, address.place))


async def _migrate(connection: Connection, place: str) -> int:
    await connection.execute("SET LOCAL statement_timeout = 0")  # an index of many rows takes its time
    await connection.execute(LOCK)
    await connection.execute(CREATE_VERSIONS)
    version = int(await connection.fetchval(VERSION))
    scripts = migrations(PACKAGE)
    if version > len(scripts):
        raise newer_schema(place, version, len(scripts))
    for number, script in enumerate(scripts[version:], start=version + 1):
        await connection.execute(script.read_text("utf-8"))
        await connection.execute("INSERT INTO schema_versions (version) VALUES ($1)", number)
    return len(scripts)
