"""Signals, what of each ledger is settled, and its cache."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiosqlite

from contract.coverage import Coverage
from contract.errors import ContractError
from riskcast_server.settlement import Entry, Known, Outcome, Plan, Row, covered, decide
from riskcast_server.store.checking import Counted, checked
from riskcast_server.store.contract import (
    Failure,
    PartitionCount,
    Runs,
    SegmentCoverage,
    SegmentPlace,
    SignalKey,
    SignalQuery,
    StoreRefused,
)
from riskcast_server.store.rows import (
    BLOCK_RECORDS,
    PLACE,
    ROW,
    CachedCoverage,
    bounds_of,
    by_segment,
    in_doubt,
    maybe_coverage,
    place_of,
    portions,
    row_of,
    values_of,
)
from riskcast_server.store.sqlite.database import Database
from riskcast_server.store.sqlite.runs import SqliteRuns

BLOCKS_MAX = 1024  # of one segment: its indexes may be few and as high as they come
ROWS_PER_STATEMENT = 256  # one message of a stream; every statement waits for the interpreter's lock once

INSERT_ROWS = f"INSERT INTO signals ({ROW})"

INSERT_SETTLEMENTS = f"INSERT OR REPLACE INTO settlements ({PLACE}, outcome, signal_id, input_event_hash, reason)"

DELETE_SETTLEMENTS = """DELETE FROM settlements
    WHERE ledger_id = ? AND segment_id = ? AND record_index IN (SELECT value FROM json_each(?))"""

ROWS_AT = """SELECT record_index, signal_id FROM places
    WHERE ledger_id = ? AND segment_id = ? AND record_index IN (SELECT value FROM json_each(?))"""

UPSERT_COVERAGE = """INSERT INTO coverage (ledger_id, segment_id, partition, segment_ordinal, intervals, settled_count)
    VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (ledger_id, segment_id) DO UPDATE
    SET intervals = excluded.intervals, settled_count = excluded.settled_count"""

# Duplicates, and conflicts that were emitted again, count only while the row is there that they name.
HAS_ROW = """EXISTS (SELECT 1 FROM signals o
    WHERE o.signal_id = t.signal_id AND o.input_event_hash = t.input_event_hash)"""

# Where a row claims the place too, the row is what counts.
LIVE = f"""(t.outcome = 'rejected' OR {HAS_ROW}) AND NOT EXISTS (SELECT 1 FROM places p
    WHERE p.ledger_id = t.ledger_id AND p.segment_id = t.segment_id AND p.record_index = t.record_index)"""

CACHED_COVERAGE = """SELECT segment_id, intervals, settled_count, counted_at FROM coverage
    WHERE ledger_id = ? AND segment_id IN ({asked})"""

# Cached coverage beside what rows and settlements say, per segment asked about: how many, the first and the last. One
# statement sees one snapshot.
COUNTED_COVERAGE = f"""WITH asked (segment_id) AS (VALUES {{asked}}), counted AS (
        SELECT a.segment_id,
            (SELECT COUNT(*) FROM places p WHERE p.ledger_id = ?1 AND p.segment_id = a.segment_id)
            + (SELECT COUNT(*) FROM settlements t WHERE t.ledger_id = ?1 AND t.segment_id = a.segment_id AND {LIVE})
            AS count,
            (SELECT MIN(record_index) FROM places p WHERE p.ledger_id = ?1 AND p.segment_id = a.segment_id) AS p_first,
            (SELECT MAX(record_index) FROM places p WHERE p.ledger_id = ?1 AND p.segment_id = a.segment_id) AS p_last,
            (SELECT MIN(record_index) FROM settlements t
                WHERE t.ledger_id = ?1 AND t.segment_id = a.segment_id AND {LIVE}) AS t_first,
            (SELECT MAX(record_index) FROM settlements t
                WHERE t.ledger_id = ?1 AND t.segment_id = a.segment_id AND {LIVE}) AS t_last
        FROM asked a)
    SELECT n.segment_id, c.intervals, n.count, MIN(IFNULL(p_first, t_first), IFNULL(t_first, p_first)),
        MAX(IFNULL(p_last, t_last), IFNULL(t_last, p_last))
    FROM counted n LEFT JOIN coverage c ON c.ledger_id = ?1 AND c.segment_id = n.segment_id"""

COUNTED_WITHIN = f"""SELECT SUM(
        (SELECT COUNT(*) FROM places p WHERE p.ledger_id = ?1 AND p.segment_id = ?2
            AND p.record_index BETWEEN json_extract(r.value, '$[0]') AND json_extract(r.value, '$[1]'))
        + (SELECT COUNT(*) FROM settlements t WHERE t.ledger_id = ?1 AND t.segment_id = ?2
            AND t.record_index BETWEEN json_extract(r.value, '$[0]') AND json_extract(r.value, '$[1]') AND {LIVE}))
    FROM json_each(?3) r"""

SETTLED_COUNT = "SELECT coalesce(sum(settled_count), 0) FROM coverage WHERE ledger_id = ?"

SETTLED_PLACES = f"""SELECT partition, segment_ordinal, record_index FROM places
        WHERE ledger_id = ?1 AND segment_id = ?2
    UNION ALL SELECT t.partition, t.segment_ordinal, t.record_index FROM settlements t
        WHERE t.ledger_id = ?1 AND t.segment_id = ?2 AND {LIVE}"""

HIGHEST_SETTLED = """SELECT MAX(record_index) FROM (
    SELECT MAX(record_index) AS record_index FROM places WHERE ledger_id = ?1 AND segment_id = ?2
    UNION ALL SELECT MAX(record_index) FROM settlements WHERE ledger_id = ?1 AND segment_id = ?2)"""

# By blocks of one size, told by their first indexes.
COUNTED_BLOCKS = f"""SELECT b.value,
        (SELECT COUNT(*) FROM places p WHERE p.ledger_id = ?1 AND p.segment_id = ?2
            AND p.record_index BETWEEN b.value AND b.value + ?4 - 1)
        + (SELECT COUNT(*) FROM settlements t WHERE t.ledger_id = ?1 AND t.segment_id = ?2
            AND t.record_index BETWEEN b.value AND b.value + ?4 - 1 AND {LIVE})
    FROM json_each(?3) b"""

SETTLED_WITHIN = f"""SELECT record_index FROM places
        WHERE ledger_id = ?1 AND segment_id = ?2 AND record_index BETWEEN ?3 AND ?4
    UNION ALL SELECT t.record_index FROM settlements t
        WHERE t.ledger_id = ?1 AND t.segment_id = ?2 AND t.record_index BETWEEN ?3 AND ?4 AND {LIVE}"""

COVERED_PARTITIONS = "SELECT DISTINCT ledger_id, partition FROM coverage"

PARTITION_COVERAGE = """SELECT segment_id, segment_ordinal, intervals, settled_count FROM coverage
    WHERE ledger_id = ? AND partition = ? ORDER BY segment_ordinal, segment_id"""

COVERAGE = "SELECT intervals, settled_count FROM coverage WHERE ledger_id = ? AND segment_id = ?"

DELETE_COVERAGE = "DELETE FROM coverage WHERE ledger_id = ? AND segment_id = ?"

NOTE_COUNTED = "UPDATE coverage SET counted_at = ? WHERE ledger_id = ? AND segment_id = ?"

# Each of the two partial indexes answers for its rows, without reading one.
COUNTS = """SELECT ledger_id, partition, SUM(count) FROM (
        SELECT ledger_id, partition, COUNT(*) AS count FROM signals WHERE arrival_path <> 1 GROUP BY 1, 2
        UNION ALL SELECT COALESCE(ledger_id, ''), COALESCE(partition, ''), COUNT(*) FROM signals
            WHERE arrival_path = 1 GROUP BY 1, 2)
    WHERE ?1 IN ('', ledger_id) AND ?2 IN ('', partition) GROUP BY 1, 2 ORDER BY 1, 2"""

ROW_COUNT_AT = """SELECT COUNT(*) FROM places
    WHERE ledger_id = ? AND segment_id = ? AND record_index BETWEEN ? AND ?"""

ROWS_SETTLING = f"""SELECT s.record_index, {ROW} FROM signals s
        WHERE ledger_id = ?1 AND segment_id = ?2 AND record_index BETWEEN ?3 AND ?4 AND arrival_path <> 1
    UNION ALL SELECT at, {ROW} FROM (
        SELECT record_index AS at, signal_id AS id, input_event_hash AS hash FROM settlements t
        WHERE ledger_id = ?1 AND segment_id = ?2 AND record_index BETWEEN ?3 AND ?4 AND outcome <> 'rejected'
            AND {LIVE}
    ) other JOIN signals ON signal_id = id AND input_event_hash = hash"""

FAILURES = f"""SELECT segment_id, record_index, reason FROM settlements t WHERE ledger_id = ? AND segment_id = ?
    AND (outcome = 'rejected' OR outcome = 'conflict' AND NOT {HAS_ROW}) ORDER BY record_index"""

REJECTED = """SELECT segment_id, record_index FROM settlements INDEXED BY settlements_rejected
    WHERE ledger_id = ? AND outcome = 'rejected' AND (segment_id, record_index) > (?, ?)
    ORDER BY segment_id, record_index LIMIT ?"""


@asynccontextmanager
async def open_sqlite(path: str, busy_timeout_s: float, lock_wait_s: float = 0) -> AsyncIterator["SqliteStore"]:
    """StoreRefused when another RiskCast has the file, or it cannot be used safely."""
    async with Database.opened(Path(path), busy_timeout_s, lock_wait_s) as database:
        runs = SqliteRuns(database)
        try:
            await runs.release_all()
        except ContractError as error:
            raise StoreRefused(f"{path} cannot be used: {error.__cause__}") from error
        yield SqliteStore(database, runs)


class SqliteStore:
    """Fulfils the contract of `Store`."""

    def __init__(self, database: Database, runs: SqliteRuns) -> None:
        self._database = database
        self.runs: Runs = runs

    async def settle(self, entries: Sequence[Entry], ingested_at: int) -> list[Outcome]:
        async with self._database.transaction() as writer:
            known = await _known(writer, entries)
            plan = decide(entries, known, ingested_at)
            await _write(writer, plan)
            await _cover(writer, entries, plan.outcomes)
        return plan.outcomes

    async def maybe_signal(self, signal_id: str) -> Row | None:
        found = await self._database.read(f"SELECT {ROW} FROM signals WHERE signal_id = ?", (signal_id,))
        return row_of(found[0]) if found else None

    async def list_signals(self, query: SignalQuery, after: SignalKey | None, limit: int) -> list[Row]:
        sql, values = selection(query, after, limit)
        return [row_of(each) for each in await self._database.read(sql, values)]

    async def count_signals(self, ledger_id: str = "", partition: str = "") -> list[PartitionCount]:
        counted = await self._database.read(COUNTS, (ledger_id, partition))
        return [PartitionCount(*each) for each in counted]

    async def coverage(
        self, ledger_id: str, segment_ids: Sequence[bytes], *, counted_max: int | None = None
    ) -> dict[bytes, Coverage]:
        return await checked(self, ledger_id, segment_ids, counted_max)

    async def settled_count(self, ledger_id: str) -> int:
        [(count,)] = await self._database.read(SETTLED_COUNT, (ledger_id,))
        return int(count)

    async def partitions(self) -> set[tuple[str, str]]:
        return {(ledger_id, name) for ledger_id, name in await self._database.read(COVERED_PARTITIONS)}

    async def partition_coverage(self, ledger_id: str, partition: str) -> list[SegmentCoverage]:
        cached = await self._database.read(PARTITION_COVERAGE, (ledger_id, partition))
        return [
            SegmentCoverage(partition, segment_id, ordinal, maybe_coverage(intervals, count) or Coverage())
            for segment_id, ordinal, intervals, count in cached
        ]

    async def count_rows_at(self, ledger_id: str, places: Mapping[bytes, Coverage]) -> int:
        total = 0
        for segment_id, indexes in places.items():
            for run in indexes.intervals:
                [(count,)] = await self._database.read(ROW_COUNT_AT, (ledger_id, segment_id, *run))
                total += count
        return total

    async def rows_settling(self, ledger_id: str, segment_id: bytes, first: int, last: int) -> dict[int, Row]:
        found = await self._database.read(ROWS_SETTLING, (ledger_id, segment_id, first, last))
        return {index: row_of(row) for index, *row in found}

    async def failures(self, ledger_id: str, segment_ids: Sequence[bytes]) -> list[Failure]:
        found: list[Failure] = []
        for segment_id in sorted(segment_ids):
            found += [Failure(*row) for row in await self._database.read(FAILURES, (ledger_id, segment_id))]
        return found

    async def rejected(self, ledger_id: str, after: SegmentPlace, limit: int) -> list[SegmentPlace]:
        return [(id_, index) for id_, index in await self._database.read(REJECTED, (ledger_id, *after, limit))]

    async def cached(self, ledger_id: str, segment_ids: Sequence[bytes]) -> list[CachedCoverage]:
        cached: list[CachedCoverage] = []
        for asked in portions(segment_ids):
            sql = CACHED_COVERAGE.format(asked=", ".join("?" * len(asked)))
            cached += [CachedCoverage(*each) for each in await self._database.read(sql, (ledger_id, *asked))]
        return cached

    async def counted(self, ledger_id: str, segment_ids: Sequence[bytes]) -> list[Counted]:
        sql = COUNTED_COVERAGE.format(asked=", ".join(f"(?{number})" for number in range(2, len(segment_ids) + 2)))
        return [Counted(*each) for each in await self._database.read(sql, (ledger_id, *segment_ids))]

    async def holds(self, ledger_id: str, segment_id: bytes, settled: Coverage) -> bool:
        values = (ledger_id, segment_id, json.dumps(settled.intervals))
        [(within,)] = await self._database.read(COUNTED_WITHIN, values)
        return (within or 0) == settled.count

    async def rebuild(self, ledger_id: str, segment_id: bytes) -> Coverage:
        async with self._database.transaction() as writer:
            settled = await _recounted(writer, ledger_id, segment_id)
            if settled.intervals:
                [place] = await writer.execute_fetchall(f"{SETTLED_PLACES} LIMIT 1", (ledger_id, segment_id))
                partition, ordinal, _ = place
                values = (ledger_id, segment_id, partition, ordinal, settled.encode(), settled.count)
                await writer.execute(UPSERT_COVERAGE, values)
            else:
                await writer.execute(DELETE_COVERAGE, (ledger_id, segment_id))
        return settled

    async def note_counted(self, ledger_id: str, segment_ids: Sequence[bytes], turn: int) -> None:
        async with self._database.transaction() as writer:
            await writer.executemany(NOTE_COUNTED, [(turn, ledger_id, segment_id) for segment_id in segment_ids])


def selection(query: SignalQuery, after: SignalKey | None, limit: int) -> tuple[str, list[Any]]:
    """What `list_signals` asks. Either index is in the order of time, and the one by time holds every other filter."""
    index = "signals_by_question" if query.source_event_id else "signals_by_time"
    last, emitted_before = bounds_of(query, after)
    filters: dict[str, Sequence[Any]] = {
        "(emitted_at, signal_id) > (?, ?)": last or (),
        "emitted_at < ?": () if emitted_before is None else (emitted_before,),
        "category = ?": (query.category,) if query.category else (),
        "source_event_id = ?": (query.source_event_id,) if query.source_event_id else (),
        "ledger_id = ?": (query.ledger_id,) if query.ledger_id else (),
        "partition = ?": (query.partition,) if query.partition else (),
    }
    conditions = " AND ".join(["TRUE", *(sql for sql, values in filters.items() if values)])
    sql = f"SELECT {ROW} FROM signals INDEXED BY {index} WHERE {conditions} ORDER BY emitted_at, signal_id LIMIT ?"
    return sql, [value for values in (*filters.values(), (limit,)) for value in values]


async def _recounted(writer: aiosqlite.Connection, ledger_id: str, segment_id: bytes) -> Coverage:
    """What is settled: as cached, but for the blocks whose count is another. Only those are read."""
    rows = await writer.execute_fetchall(COVERAGE, (ledger_id, segment_id))
    cached = next((found for row in rows if (found := maybe_coverage(*row))), Coverage())
    [(highest,)] = await writer.execute_fetchall(HIGHEST_SETTLED, (ledger_id, segment_id))
    size = max(BLOCK_RECORDS, (highest or 0) // BLOCKS_MAX + 1)
    blocks = json.dumps(list(range(1, (highest or 0) + 1, size)))
    counts = await writer.execute_fetchall(COUNTED_BLOCKS, (ledger_id, segment_id, blocks, size))
    doubtful = in_doubt(cached, dict(map(tuple, counts)), size)
    read: list[int] = []
    for run in doubtful.intervals:
        read += [index for (index,) in await writer.execute_fetchall(SETTLED_WITHIN, (ledger_id, segment_id, *run))]
    return (cached - doubtful) | Coverage.of(read)


async def _known(writer: aiosqlite.Connection, entries: Sequence[Entry]) -> Known:
    ids = json.dumps(sorted({entry.signal_id for entry in entries}))
    sql = f"SELECT {ROW} FROM signals WHERE signal_id IN (SELECT value FROM json_each(?))"
    known = Known(rows={row[0]: row_of(row) for row in await writer.execute_fetchall(sql, (ids,))})
    for segment, indexes in by_segment(entry.held_at for entry in entries).items():
        taken = await writer.execute_fetchall(ROWS_AT, (*segment, json.dumps(indexes)))
        known.places |= {(*segment, index): signal_id for index, signal_id in taken}
    return known


async def _write(writer: aiosqlite.Connection, plan: Plan) -> None:
    await _insert(
        writer, INSERT_ROWS, sorted(map(values_of, plan.rows))
    )  # by signal_id: a page of that index is met once
    for segment, indexes in by_segment(row.signal.held_at for row in plan.rows).items():
        await writer.execute(DELETE_SETTLEMENTS, (*segment, json.dumps(indexes)))
    settlements = [
        (*place_of(each.position), each.verdict.value, each.signal_id, each.input_event_hash, each.reason)
        for each in plan.settlements.values()
    ]
    await _insert(writer, INSERT_SETTLEMENTS, settlements)


async def _insert(writer: aiosqlite.Connection, insert: str, rows: Sequence[tuple[object, ...]]) -> None:
    for start in range(0, len(rows), ROWS_PER_STATEMENT):
        part = rows[start : start + ROWS_PER_STATEMENT]
        marks = ", ".join([f"({', '.join('?' * len(part[0]))})"] * len(part))
        await writer.execute(f"{insert} VALUES {marks}", [value for row in part for value in row])


async def _cover(writer: aiosqlite.Connection, entries: Sequence[Entry], outcomes: Sequence[Outcome]) -> None:
    for (ledger_id, partition, segment_id, ordinal), indexes in covered(entries, outcomes).items():
        rows = await writer.execute_fetchall(COVERAGE, (ledger_id, segment_id))
        cached = maybe_coverage(*next(iter(rows), ("", 0)))  # none is an empty one; a garbled one is made anew
        settled = indexes | (cached or await _recounted(writer, ledger_id, segment_id))
        values = (ledger_id, segment_id, partition, ordinal, settled.encode(), settled.count)
        await writer.execute(UPSERT_COVERAGE, values)
