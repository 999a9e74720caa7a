"""The store in one SQLite file: zero set-up, one writing connection, readers beside it."""

import asyncio
import json
import sqlite3
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiosqlite
import structlog

from contract.coverage import Coverage
from contract.errors import ContractError, Reason
from riskcast.v1.reconcile_service_pb2 import ReconcileState
from riskcast_server.settlement import Candidate, Entry, Known, Outcome, Plan, Position, Row, covered, decide
from riskcast_server.store.contract import Failure, PartitionCount, SegmentCoverage
from riskcast_server.store.sqlite_file import opened

log = structlog.get_logger(__name__)

RETRY_DELAY_S = 1.0  # what callers are told to wait: locks and full disks do not pass within milliseconds
ROWS_PER_STATEMENT = 256  # one message of a stream; every statement waits for the interpreter's lock once
SEGMENTS_PER_STATEMENT = 500  # far below SQLite's limit of parameters; other readers are answered in between

ROW = """signal_id, input_event_hash, ack_id, event, emitted_at, category, source_event_id, arrival_path,
    arrival_run_id, ledger_id, partition, segment_id, segment_ordinal, record_index, ingested_at"""

INSERT_ROWS = f"INSERT INTO signals ({ROW})"

INSERT_SETTLEMENTS = """INSERT OR REPLACE INTO settlements (ledger_id, partition, segment_id, segment_ordinal,
    record_index, outcome, signal_id, reason)"""

DELETE_SETTLEMENTS = """DELETE FROM settlements
    WHERE ledger_id = ? AND segment_id = ? AND record_index IN (SELECT value FROM json_each(?))"""

ROWS_AT = """SELECT record_index, signal_id FROM signals
    WHERE ledger_id = ? AND segment_id = ? AND record_index IN (SELECT value FROM json_each(?))"""

UPSERT_COVERAGE = """INSERT OR REPLACE INTO coverage (ledger_id, segment_id, partition, segment_ordinal, intervals,
    settled_count) VALUES (?, ?, ?, ?, ?, ?)"""

# Duplicates, and conflicts that were emitted again, count only while the row is there that they name.
HAS_ROW = "EXISTS (SELECT 1 FROM signals o WHERE o.signal_id = t.signal_id)"

# Where a row claims the place too, the row is what counts.
LIVE = f"""(t.outcome = 'rejected' OR {HAS_ROW}) AND NOT EXISTS (SELECT 1 FROM signals p
    WHERE p.ledger_id = t.ledger_id AND p.segment_id = t.segment_id AND p.record_index = t.record_index)"""

# Cached coverage beside what rows and settlements say, per segment asked about. One statement sees one snapshot.
COUNTED_COVERAGE = f"""WITH asked (segment_id) AS (VALUES {{asked}})
    SELECT a.segment_id, c.intervals, c.settled_count,
        (SELECT COUNT(*) FROM signals s WHERE s.ledger_id = ? AND s.segment_id = a.segment_id)
        + (SELECT COUNT(*) FROM settlements t WHERE t.ledger_id = ? AND t.segment_id = a.segment_id AND {LIVE})
    FROM asked a LEFT JOIN coverage c ON c.ledger_id = ? AND c.segment_id = a.segment_id"""

SETTLED_COUNT = f"""SELECT (SELECT COUNT(*) FROM signals s WHERE s.ledger_id = ?)
    + (SELECT COUNT(*) FROM settlements t WHERE t.ledger_id = ? AND {LIVE})"""

SETTLED_PLACES = f"""SELECT partition, segment_ordinal, record_index FROM signals
        WHERE ledger_id = ?1 AND segment_id = ?2
    UNION ALL SELECT t.partition, t.segment_ordinal, t.record_index FROM settlements t
        WHERE t.ledger_id = ?1 AND t.segment_id = ?2 AND {LIVE}"""

COVERED_PARTITIONS = "SELECT DISTINCT ledger_id, partition FROM coverage"


@asynccontextmanager
async def open_sqlite(path: str, busy_timeout_s: float) -> AsyncIterator["SqliteStore"]:
    """StoreRefused when another RiskCast has the file, or it cannot be used safely."""
    async with opened(Path(path), busy_timeout_s) as (writer, reader):
        yield SqliteStore(writer, reader)


class SqliteStore:
    """Fulfils the contract of `Store`. Only `_transaction` writes."""

    def __init__(self, writer: aiosqlite.Connection, reader: aiosqlite.Connection) -> None:
        self._writer = writer
        self._reader = reader
        self._writing = asyncio.Lock()

    async def settle(self, entries: Sequence[Entry], ingested_at: int) -> list[Outcome]:
        async with self._transaction() as writer:
            known = await _known(writer, entries)
            plan = decide(entries, known, ingested_at)
            await _write(writer, plan)
            await _cover(writer, entries, plan.outcomes)
        return plan.outcomes

    async def maybe_signal(self, signal_id: str) -> Row | None:
        found = await self._read(f"SELECT {ROW} FROM signals WHERE signal_id = ?", (signal_id,))
        return _row(found[0]) if found else None

    async def count_signals(self, ledger_id: str = "", partition: str = "") -> list[PartitionCount]:
        counted = await self._read(
            """SELECT COALESCE(ledger_id, ''), COALESCE(partition, ''), COUNT(*) FROM signals
               WHERE ?1 IN ('', ledger_id) AND ?2 IN ('', partition) GROUP BY 1, 2 ORDER BY 1, 2""",
            (ledger_id, partition),
        )
        return [PartitionCount(*each) for each in counted]

    async def coverage(self, ledger_id: str, segment_ids: Sequence[bytes]) -> dict[bytes, Coverage]:
        settled: dict[bytes, Coverage] = {}
        for start in range(0, len(segment_ids), SEGMENTS_PER_STATEMENT):
            asked = segment_ids[start : start + SEGMENTS_PER_STATEMENT]
            sql = COUNTED_COVERAGE.format(asked=", ".join(["(?)"] * len(asked)))
            for segment_id, intervals, cached, counted in await self._read(sql, (*asked, *[ledger_id] * 3)):
                if (cached or 0) == counted:
                    settled[segment_id] = Coverage.decode(intervals or "")
                else:
                    log.warning("coverage_rebuilt", ledger_id=ledger_id, segment_id=segment_id.hex(), counted=counted)
                    settled[segment_id] = await self._rebuild(ledger_id, segment_id)
        return settled

    async def settled_count(self, ledger_id: str) -> int:
        [(count,)] = await self._read(SETTLED_COUNT, (ledger_id, ledger_id))
        return int(count)

    async def partitions(self) -> set[tuple[str, str]]:
        return {(ledger_id, name) for ledger_id, name in await self._read(COVERED_PARTITIONS, ())}

    async def partition_coverage(self, ledger_id: str, partition: str) -> list[SegmentCoverage]:
        cached = await self._read(
            """SELECT segment_id, segment_ordinal, intervals FROM coverage WHERE ledger_id = ? AND partition = ?
               ORDER BY segment_ordinal, segment_id""",
            (ledger_id, partition),
        )
        return [SegmentCoverage(segment, ordinal, Coverage.decode(intervals)) for segment, ordinal, intervals in cached]

    async def count_rows_at(self, ledger_id: str, places: Mapping[bytes, Coverage]) -> int:
        total = 0
        for segment_id, indexes in places.items():
            for first, last in indexes.intervals:
                [(count,)] = await self._read(
                    """SELECT COUNT(*) FROM signals
                       WHERE ledger_id = ? AND segment_id = ? AND record_index BETWEEN ? AND ?""",
                    (ledger_id, segment_id, first, last),
                )
                total += count
        return total

    async def failures(self, ledger_id: str, segment_ids: Sequence[bytes]) -> list[Failure]:
        found: list[Failure] = []
        for segment_id in sorted(segment_ids):
            rows = await self._read(
                f"""SELECT segment_id, record_index, reason FROM settlements t WHERE ledger_id = ? AND segment_id = ?
                    AND (outcome = 'rejected' OR outcome = 'conflict' AND NOT {HAS_ROW}) ORDER BY record_index""",
                (ledger_id, segment_id),
            )
            found += [Failure(*row) for row in rows]
        return found

    async def save_state(self, state: ReconcileState) -> None:
        values = (
            state.ledger_id,
            state.partition,
            state.status,
            state.reason,
            state.ledger_record_count,
            state.highwater_sequence,
            state.manifest_revision,
            state.run_id,
            state.finished_at.ToMicroseconds(),
        )
        async with self._transaction() as writer:
            await writer.execute(
                """INSERT OR REPLACE INTO reconcile_states (ledger_id, partition, status, reason, ledger_record_count,
                   highwater_sequence, manifest_revision, run_id, finished_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)""",
                values,
            )

    async def _rebuild(self, ledger_id: str, segment_id: bytes) -> Coverage:
        async with self._transaction() as writer:
            places = list(await writer.execute_fetchall(SETTLED_PLACES, (ledger_id, segment_id)))
            settled = Coverage.of(index for _, _, index in places)
            if places:
                partition, ordinal, _ = places[0]
                values = (ledger_id, segment_id, partition, ordinal, settled.encode(), settled.count)
                await writer.execute(UPSERT_COVERAGE, values)
            else:
                await writer.execute(
                    "DELETE FROM coverage WHERE ledger_id = ? AND segment_id = ?", (ledger_id, segment_id)
                )
        return settled

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[aiosqlite.Connection]:
        """Committed and synced on leaving; rolled back on any error."""
        async with self._writing:
            with _translated():
                try:
                    await self._writer.execute("BEGIN IMMEDIATE")
                    yield self._writer
                    await self._writer.commit()
                except BaseException:
                    await self._writer.rollback()
                    raise

    async def _read(self, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        with _translated():
            return [tuple(row) for row in await self._reader.execute_fetchall(sql, values)]


@contextmanager
def _translated() -> Iterator[None]:
    """Locked, corrupt, full, read-only or closed: the caller learns that it may try again, the log learns why."""
    try:
        yield
    except (sqlite3.Error, ValueError) as error:  # aiosqlite says ValueError once the connection is closed
        log.error("store_unavailable", error=f"{type(error).__name__}: {error}")
        message = "the store cannot be used now; what became of this is unknown"
        raise ContractError(Reason.STORE_UNAVAILABLE, message, retry_delay_s=RETRY_DELAY_S) from error


async def _known(writer: aiosqlite.Connection, entries: Sequence[Entry]) -> Known:
    ids = json.dumps(sorted({entry.signal_id for entry in entries}))
    sql = f"SELECT {ROW} FROM signals WHERE signal_id IN (SELECT value FROM json_each(?))"
    known = Known(rows={row[0]: _row(row) for row in await writer.execute_fetchall(sql, (ids,))})
    for segment, indexes in _by_segment(entry.position for entry in entries).items():
        taken = await writer.execute_fetchall(ROWS_AT, (*segment, json.dumps(indexes)))
        known.places |= {(*segment, index): signal_id for index, signal_id in taken}
    return known


async def _write(writer: aiosqlite.Connection, plan: Plan) -> None:
    await _insert(writer, INSERT_ROWS, [_values(row) for row in plan.rows])
    for segment, indexes in _by_segment(row.signal.position for row in plan.rows).items():
        await writer.execute(DELETE_SETTLEMENTS, (*segment, json.dumps(indexes)))
    settlements = [
        (*_place(each.position), each.verdict.value, each.signal_id, each.reason) for each in plan.settlements.values()
    ]
    await _insert(writer, INSERT_SETTLEMENTS, settlements)


async def _insert(writer: aiosqlite.Connection, insert: str, rows: Sequence[tuple[object, ...]]) -> None:
    for start in range(0, len(rows), ROWS_PER_STATEMENT):
        part = rows[start : start + ROWS_PER_STATEMENT]
        marks = ", ".join([f"({', '.join('?' * len(part[0]))})"] * len(part))
        await writer.execute(f"{insert} VALUES {marks}", [value for row in part for value in row])


def _by_segment(positions: Iterable[Position | None]) -> dict[tuple[str, bytes], list[int]]:
    """Record indexes by (ledger_id, segment_id)."""
    indexes: defaultdict[tuple[str, bytes], list[int]] = defaultdict(list)
    for at in positions:
        if at:
            indexes[at.ledger_id, at.segment_id].append(at.record_index)
    return indexes


async def _cover(writer: aiosqlite.Connection, entries: Sequence[Entry], outcomes: Sequence[Outcome]) -> None:
    for (ledger_id, partition, segment_id, ordinal), indexes in covered(entries, outcomes).items():
        cached = await writer.execute_fetchall(
            "SELECT intervals FROM coverage WHERE ledger_id = ? AND segment_id = ?", (ledger_id, segment_id)
        )
        settled = indexes | Coverage.decode("".join(intervals for (intervals,) in cached))
        values = (ledger_id, segment_id, partition, ordinal, settled.encode(), settled.count)
        await writer.execute(UPSERT_COVERAGE, values)


def _place(at: Position) -> tuple[str, str, bytes, int, int]:
    return at.ledger_id, at.partition, at.segment_id, at.segment_ordinal, at.record_index


def _values(row: Row) -> tuple[object, ...]:
    """In the order of ROW."""
    signal = row.signal
    return (
        signal.signal_id,
        signal.input_event_hash,
        signal.ack_id,
        signal.event,
        signal.emitted_at,
        signal.category,
        signal.source_event_id,
        signal.path,
        signal.run_id,
        *(_place(signal.position) if signal.position else (None,) * 5),
        row.ingested_at,
    )


def _row(values: Sequence[Any]) -> Row:
    """From the columns of ROW."""
    signal_id, digest, ack_id, event, emitted_at, category, source_event_id, path, run_id = values[:9]
    ledger_id, partition, segment_id, ordinal, index, ingested_at = values[9:]
    position = None if ledger_id is None else Position(ledger_id, partition, segment_id, ordinal << 32 | index)
    signal = Candidate(signal_id, digest, ack_id, event, emitted_at, category, source_event_id, position, path, run_id)
    return Row(signal, ingested_at)
