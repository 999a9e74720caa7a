"""What Reconcile remembers, in the same database. Leases are rows: locks of a session end behind a pooler."""

from collections.abc import Mapping, Sequence
from functools import partial

from contract.coverage import Coverage
from riskcast.v1.reconcile_service_pb2 import ReconcileState
from riskcast_server.store.contract import HISTORY_KEPT, Kept, Lease, SegmentCoverage, StateKey, StatesQuery
from riskcast_server.store.postgres.database import NOW, Connection, Database
from riskcast_server.store.rows import STATE, lease_lost, microseconds, state_of, state_values_of

# Nobody else holds the name, or not any more: one statement decides and takes it.
TAKE_LEASE = f"""INSERT INTO leases AS l (name, holder, fence, expires_at) VALUES ($1, $2, 1, {NOW} + $3)
    ON CONFLICT (name) DO UPDATE SET holder = $2, fence = l.fence + 1, expires_at = {NOW} + $3
    WHERE l.holder = $2 OR l.expires_at <= {NOW}"""

LEASE = "SELECT name, holder, fence FROM leases WHERE name = $1 FOR UPDATE"

RENEW_LEASE = f"UPDATE leases SET expires_at = {NOW} + $1 WHERE name = $2 AND holder = $3 AND fence = $4"

# The row stays, so that the fence goes on rising.
END_LEASE = "UPDATE leases SET expires_at = 0, holder = '' WHERE name = $1 AND holder = $2 AND fence = $3"

# The same fence again is the same run, saying it once more.
DELETE_STATE = "DELETE FROM reconcile_history WHERE ledger_id = $1 AND partition = $2 AND fence = $3"

INSERT_STATE = f"""INSERT INTO reconcile_history ({STATE})
    VALUES ({", ".join(f"${number}" for number in range(1, 15))})"""

PRUNE_STATES = f"""DELETE FROM reconcile_history WHERE ledger_id = $1 AND partition = $2 AND fence <=
    (SELECT fence FROM reconcile_history WHERE ledger_id = $1 AND partition = $2
     ORDER BY fence DESC LIMIT 1 OFFSET {HISTORY_KEPT})"""

# That a whole ledger could not be reached is over as soon as a later run compared something of it.
STATES = f"""SELECT {STATE} FROM reconcile_history h WHERE $1 IN ('', ledger_id) AND $2 IN ('', partition)
    AND ($3 OR fence = (SELECT max(fence) FROM reconcile_history l
        WHERE l.ledger_id = h.ledger_id AND (l.partition = h.partition OR h.partition = '')))
    AND ($4::text IS NULL OR (ledger_id, partition, -fence) > ($4, $5::text, -$6::bigint))
    ORDER BY ledger_id, partition, fence DESC LIMIT $7"""

DELETE_EARLIER_MISSING = "DELETE FROM reconcile_missing WHERE ledger_id = $1 AND (run_id <> $2 OR partition = $3)"

INSERT_MISSING = """INSERT INTO reconcile_missing (ledger_id, run_id, partition, segment_id, intervals)
    VALUES ($1, $2, $3, $4, $5)"""

MISSING = """SELECT segment_id, intervals FROM reconcile_missing
    WHERE ledger_id = $1 AND run_id = $2 AND partition = $3"""

UPSERT_ACCEPTED = """INSERT INTO accepted_divergences
    (ledger_id, segment_id, accepted_at, partition, intervals, reason) VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (ledger_id, segment_id, accepted_at) DO UPDATE
    SET partition = excluded.partition, intervals = excluded.intervals, reason = excluded.reason"""

ACCEPTED = "SELECT segment_id, intervals FROM accepted_divergences WHERE ledger_id = $1"


class PostgresRuns:
    """Fulfils the contract of `Runs`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def lease(self, name: str, holder: str, seconds: float) -> Lease:
        return await self._database.run(partial(_take, name, holder, microseconds(seconds)))

    async def renew(self, lease: Lease, seconds: float) -> bool:
        values = (microseconds(seconds), lease.name, lease.holder, lease.fence)
        return await self._database.run(lambda connection: connection.execute(RENEW_LEASE, *values)) == "UPDATE 1"

    async def release(self, lease: Lease) -> None:
        values = (lease.name, lease.holder, lease.fence)
        await self._database.run(lambda connection: connection.execute(END_LEASE, *values))

    async def save_state(self, lease: Lease, state: ReconcileState) -> None:
        await self._database.run(partial(_save_state, lease, state))

    async def states(self, query: StatesQuery, after: StateKey | None, limit: int) -> list[Kept]:
        values = (query.ledger_id, query.partition, query.is_history, *(after or (None, None, None)), limit)
        return [state_of(row) for row in await self._database.read(STATES, *values)]

    async def save_missing(self, lease: Lease, partition: str, missing: Mapping[bytes, Coverage]) -> None:
        await self._database.run(partial(_save_missing, lease, partition, missing))

    async def maybe_missing(self, ledger_id: str, run_id: str, partition: str) -> dict[bytes, Coverage] | None:
        rows = await self._database.read(MISSING, ledger_id, run_id, partition)
        return {segment_id: Coverage.decode(intervals) for segment_id, intervals in rows} or None

    async def accept(self, ledger_id: str, claims: Sequence[SegmentCoverage], reason: str, accepted_at: int) -> None:
        rows = sorted(
            (ledger_id, each.segment_id, accepted_at, each.partition, each.settled.encode(), reason) for each in claims
        )
        await self._database.run(lambda connection: connection.executemany(UPSERT_ACCEPTED, rows))

    async def accepted(self, ledger_id: str) -> dict[bytes, Coverage]:
        accepted: dict[bytes, Coverage] = {}
        for segment_id, intervals in await self._database.read(ACCEPTED, ledger_id):
            accepted[segment_id] = accepted.get(segment_id, Coverage()) | Coverage.decode(intervals)
        return accepted


async def _take(name: str, holder: str, duration_us: int, connection: Connection) -> Lease:
    await connection.execute(TAKE_LEASE, name, holder, duration_us)
    return await _lease(connection, name)


async def _lease(connection: Connection, name: str) -> Lease:
    """The lease of that name; no other takes its place while the transaction lasts."""
    [row] = await connection.fetch(LEASE, name)
    return Lease(*row)


async def _check(connection: Connection, lease: Lease) -> None:
    """Raises ContractError RECONCILE_RUNNING."""
    if (in_force := await _lease(connection, lease.name)) != lease:
        raise lease_lost(in_force)


async def _save_state(lease: Lease, state: ReconcileState, connection: Connection) -> None:
    await _check(connection, lease)
    await connection.execute(DELETE_STATE, state.ledger_id, state.partition, lease.fence)
    await connection.execute(INSERT_STATE, *state_values_of(lease, state))
    await connection.execute(PRUNE_STATES, state.ledger_id, state.partition)


async def _save_missing(
    lease: Lease, partition: str, missing: Mapping[bytes, Coverage], connection: Connection
) -> None:
    rows = [
        (lease.name, lease.holder, partition, segment_id, indexes.encode()) for segment_id, indexes in missing.items()
    ]
    await _check(connection, lease)
    await connection.execute(DELETE_EARLIER_MISSING, lease.name, lease.holder, partition)
    await connection.executemany(INSERT_MISSING, rows)
