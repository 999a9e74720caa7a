"""What Reconcile remembers, in the same file."""

from collections.abc import Mapping, Sequence

import aiosqlite

from contract.coverage import Coverage
from riskcast.v1.reconcile_service_pb2 import ReconcileState
from riskcast_server.store.contract import HISTORY_KEPT, Kept, Lease, SegmentCoverage, StateKey, StatesQuery
from riskcast_server.store.rows import STATE, lease_lost, microseconds, state_of, state_values_of
from riskcast_server.store.sqlite.database import NOW, Database

# Nobody else holds the name, or not any more: one statement decides and takes it.
TAKE_LEASE = f"""INSERT INTO leases (name, holder, fence, expires_at) VALUES (?1, ?2, 1, {NOW} + ?3)
    ON CONFLICT (name) DO UPDATE SET holder = ?2, fence = fence + 1, expires_at = {NOW} + ?3
    WHERE holder = ?2 OR expires_at <= {NOW}"""

LEASE = "SELECT name, holder, fence FROM leases WHERE name = ?"

RENEW_LEASE = f"UPDATE leases SET expires_at = {NOW} + ? WHERE name = ? AND holder = ? AND fence = ?"

# The row stays, so that the fence goes on rising.
END_LEASE = "UPDATE leases SET expires_at = 0, holder = '' WHERE name = ? AND holder = ? AND fence = ?"

END_ALL_LEASES = "UPDATE leases SET expires_at = 0, holder = ''"

INSERT_STATE = f"INSERT OR REPLACE INTO reconcile_history ({STATE}) VALUES ({', '.join('?' * 14)})"

PRUNE_STATES = f"""DELETE FROM reconcile_history WHERE ledger_id = ?1 AND partition = ?2 AND fence <=
    (SELECT fence FROM reconcile_history WHERE ledger_id = ?1 AND partition = ?2
     ORDER BY fence DESC LIMIT 1 OFFSET {HISTORY_KEPT})"""

# That a whole ledger could not be reached is over as soon as a later run compared something of it.
STATES = f"""SELECT {STATE} FROM reconcile_history h WHERE ?1 IN ('', ledger_id) AND ?2 IN ('', partition)
    AND (?3 OR fence = (SELECT MAX(fence) FROM reconcile_history l
        WHERE l.ledger_id = h.ledger_id AND (l.partition = h.partition OR h.partition = '')))
    AND (?4 IS NULL OR (ledger_id, partition, -fence) > (?4, ?5, -?6))
    ORDER BY ledger_id, partition, fence DESC LIMIT ?7"""

DELETE_EARLIER_MISSING = "DELETE FROM reconcile_missing WHERE ledger_id = ?1 AND (run_id <> ?2 OR partition = ?3)"

INSERT_MISSING = """INSERT INTO reconcile_missing (ledger_id, run_id, partition, segment_id, intervals)
    VALUES (?, ?, ?, ?, ?)"""

MISSING = """SELECT segment_id, intervals FROM reconcile_missing
    WHERE ledger_id = ? AND run_id = ? AND partition = ?"""

INSERT_ACCEPTED = """INSERT OR REPLACE INTO accepted_divergences
    (ledger_id, segment_id, accepted_at, partition, intervals, reason) VALUES (?, ?, ?, ?, ?, ?)"""

ACCEPTED = "SELECT segment_id, intervals FROM accepted_divergences WHERE ledger_id = ?"


class SqliteRuns:
    """Fulfils the contract of `Runs`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def lease(self, name: str, holder: str, seconds: float) -> Lease:
        async with self._database.transaction() as writer:
            await writer.execute(TAKE_LEASE, (name, holder, microseconds(seconds)))
            return await _lease(writer, name)

    async def renew(self, lease: Lease, seconds: float) -> bool:
        async with self._database.transaction() as writer:
            values = (microseconds(seconds), lease.name, lease.holder, lease.fence)
            return (await writer.execute(RENEW_LEASE, values)).rowcount == 1

    async def release(self, lease: Lease) -> None:
        async with self._database.transaction() as writer:
            await writer.execute(END_LEASE, (lease.name, lease.holder, lease.fence))

    async def release_all(self) -> None:
        """For the one that has the file alone: whoever held a lease is gone."""
        async with self._database.transaction() as writer:
            await writer.execute(END_ALL_LEASES)

    async def save_state(self, lease: Lease, state: ReconcileState) -> None:
        async with self._database.transaction() as writer:
            await _check(writer, lease)
            await writer.execute(INSERT_STATE, state_values_of(lease, state))
            await writer.execute(PRUNE_STATES, (state.ledger_id, state.partition))

    async def states(self, query: StatesQuery, after: StateKey | None, limit: int) -> list[Kept]:
        values = (query.ledger_id, query.partition, query.is_history, *(after or (None, None, None)), limit)
        return [state_of(row) for row in await self._database.read(STATES, values)]

    async def save_missing(self, lease: Lease, partition: str, missing: Mapping[bytes, Coverage]) -> None:
        rows = [
            (lease.name, lease.holder, partition, segment_id, indexes.encode())
            for segment_id, indexes in missing.items()
        ]
        async with self._database.transaction() as writer:
            await _check(writer, lease)
            await writer.execute(DELETE_EARLIER_MISSING, (lease.name, lease.holder, partition))
            await writer.executemany(INSERT_MISSING, rows)

    async def maybe_missing(self, ledger_id: str, run_id: str, partition: str) -> dict[bytes, Coverage] | None:
        rows = await self._database.read(MISSING, (ledger_id, run_id, partition))
        return {segment_id: Coverage.decode(intervals) for segment_id, intervals in rows} or None

    async def accept(self, ledger_id: str, claims: Sequence[SegmentCoverage], reason: str, accepted_at: int) -> None:
        rows = [
            (ledger_id, each.segment_id, accepted_at, each.partition, each.settled.encode(), reason) for each in claims
        ]
        async with self._database.transaction() as writer:
            await writer.executemany(INSERT_ACCEPTED, rows)

    async def accepted(self, ledger_id: str) -> dict[bytes, Coverage]:
        accepted: dict[bytes, Coverage] = {}
        for segment_id, intervals in await self._database.read(ACCEPTED, (ledger_id,)):
            accepted[segment_id] = accepted.get(segment_id, Coverage()) | Coverage.decode(intervals)
        return accepted


async def _lease(writer: aiosqlite.Connection, name: str) -> Lease:
    [row] = await writer.execute_fetchall(LEASE, (name,))
    return Lease(*row)


async def _check(writer: aiosqlite.Connection, lease: Lease) -> None:
    """Raises ContractError RECONCILE_RUNNING."""
    if (in_force := await _lease(writer, lease.name)) != lease:
        raise lease_lost(in_force)
