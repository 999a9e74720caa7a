"""Signals, what of each ledger is settled, and its cache.

Replicas write at once. Each batch first takes the coverage rows of its segments, in order, so that the places of a
segment are given out by one at a time; then it writes its signals, in order, so that two batches never wait for each
other. Where another replica stored one of them since it was looked up, the whole batch is decided again.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from contract.coverage import Coverage
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
)
from riskcast_server.store.postgres.address import Address
from riskcast_server.store.postgres.database import Connection, Database, Outrun, refusing
from riskcast_server.store.postgres.runs import PostgresRuns
from riskcast_server.store.postgres.schema import check_version
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
    row_of,
    values_of,
)

INSERT_ROWS = f"""WITH inserted AS (INSERT INTO signals ({ROW}) SELECT * FROM unnest($1::text[], $2::text[], $3::text[],
        $4::bytea[], $5::bigint[], $6::integer[], $7::text[], $8::integer[], $9::text[], $10::text[], $11::text[],
        $12::bytea[], $13::bigint[], $14::bigint[], $15::bigint[])
    ON CONFLICT (signal_id) DO NOTHING RETURNING 1) SELECT count(*) FROM inserted"""

UPSERT_SETTLEMENTS = f"""INSERT INTO settlements ({PLACE}, outcome, signal_id, input_event_hash, reason)
    SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bigint[], $5::bigint[], $6::text[], $7::text[],
        $8::text[], $9::text[])
    ON CONFLICT (ledger_id, segment_id, record_index) DO UPDATE SET partition = excluded.partition,
        segment_ordinal = excluded.segment_ordinal, outcome = excluded.outcome, signal_id = excluded.signal_id,
        input_event_hash = excluded.input_event_hash, reason = excluded.reason"""

DELETE_SETTLEMENTS = "DELETE FROM settlements WHERE ledger_id = $1 AND segment_id = $2 AND record_index = ANY($3)"

ROWS_AT = (
    "SELECT record_index, signal_id FROM places WHERE ledger_id = $1 AND segment_id = $2 AND record_index = ANY($3)"
)

# A row that is not there cannot be held: so it is made first.
ENSURE_COVERAGE = """INSERT INTO coverage (ledger_id, segment_id, partition, segment_ordinal, intervals, settled_count)
    SELECT *, '', 0 FROM unnest($1::text[], $2::bytea[], $3::text[], $4::bigint[])
    ON CONFLICT (ledger_id, segment_id) DO NOTHING"""

HOLD_COVERAGE = """SELECT ledger_id, segment_id, intervals, settled_count FROM coverage
    WHERE (ledger_id, segment_id) IN (SELECT * FROM unnest($1::text[], $2::bytea[]))
    ORDER BY ledger_id, segment_id FOR UPDATE"""

UPDATE_COVERAGE = """UPDATE coverage SET intervals = $3, settled_count = $4 WHERE ledger_id = $1 AND segment_id = $2"""

# Duplicates, and conflicts that were emitted again, count only while the row is there that they name.
# One look-up in an index each: as EXISTS the planner may join the whole table instead, by statistics of yesterday.
HAS_ROW = """(SELECT true FROM signals o
    WHERE o.signal_id = t.signal_id AND o.input_event_hash = t.input_event_hash LIMIT 1) IS NOT NULL"""

# Where a row claims the place too, the row is what counts.
LIVE = f"""(t.outcome = 'rejected' OR {HAS_ROW}) AND (SELECT true FROM places p WHERE p.ledger_id = t.ledger_id
    AND p.segment_id = t.segment_id AND p.record_index = t.record_index LIMIT 1) IS NULL"""

CACHED_COVERAGE = """SELECT segment_id, intervals, settled_count, counted_at FROM coverage
    WHERE ledger_id = $1 AND segment_id = ANY($2)"""

# Cached coverage beside what rows and settlements say, per segment asked about: how many, the first and the last. One
# statement sees one snapshot.
COUNTED_COVERAGE = f"""SELECT a.segment_id, c.intervals,
        p.count + t.count, least(p.first, t.first), greatest(p.last, t.last)
    FROM unnest($2::bytea[]) a (segment_id)
    LEFT JOIN coverage c ON c.ledger_id = $1 AND c.segment_id = a.segment_id
    CROSS JOIN LATERAL (SELECT count(*), min(record_index) AS first, max(record_index) AS last FROM places
        WHERE ledger_id = $1 AND segment_id = a.segment_id) p
    CROSS JOIN LATERAL (SELECT count(*), min(record_index) AS first, max(record_index) AS last FROM settlements t
        WHERE t.ledger_id = $1 AND t.segment_id = a.segment_id AND {LIVE}) t"""

COUNTED_WITHIN = f"""SELECT coalesce(sum(
        (SELECT count(*) FROM places p WHERE p.ledger_id = $1 AND p.segment_id = $2
            AND p.record_index BETWEEN r.first AND r.last)
        + (SELECT count(*) FROM settlements t WHERE t.ledger_id = $1 AND t.segment_id = $2
            AND t.record_index BETWEEN r.first AND r.last AND {LIVE})), 0)::bigint
    FROM unnest($3::bigint[], $4::bigint[]) r (first, last)"""

SETTLED_COUNT = "SELECT coalesce(sum(settled_count), 0)::bigint FROM coverage WHERE ledger_id = $1"

SETTLED_PLACES = f"""SELECT partition, segment_ordinal, record_index FROM places
        WHERE ledger_id = $1 AND segment_id = $2
    UNION ALL SELECT t.partition, t.segment_ordinal, t.record_index FROM settlements t
        WHERE t.ledger_id = $1 AND t.segment_id = $2 AND {LIVE}"""

SETTLED_WITHIN = f"""SELECT record_index FROM places
        WHERE ledger_id = $1 AND segment_id = $2 AND record_index BETWEEN $3 AND $4
    UNION ALL SELECT t.record_index FROM settlements t
        WHERE t.ledger_id = $1 AND t.segment_id = $2 AND t.record_index BETWEEN $3 AND $4 AND {LIVE}"""

# By blocks, told by their first indexes.
COUNTED_BLOCKS = f"""SELECT record_index - (record_index - 1) % {BLOCK_RECORDS}, count(*) FROM (
        SELECT record_index FROM places WHERE ledger_id = $1 AND segment_id = $2
        UNION ALL SELECT t.record_index FROM settlements t
            WHERE t.ledger_id = $1 AND t.segment_id = $2 AND {LIVE}) settled GROUP BY 1"""

COVERED_PARTITIONS = "SELECT DISTINCT ledger_id, partition FROM coverage WHERE settled_count > 0"

PARTITION_COVERAGE = """SELECT segment_id, segment_ordinal, intervals, settled_count FROM coverage
    WHERE ledger_id = $1 AND partition = $2 AND settled_count > 0 ORDER BY segment_ordinal, segment_id"""

NOTE_COUNTED = "UPDATE coverage SET counted_at = $3 WHERE ledger_id = $1 AND segment_id = ANY($2)"

# Each of the two partial indexes answers for its rows, without reading one.
COUNTS = """SELECT ledger_id, partition, sum(count)::bigint FROM (
        SELECT ledger_id, partition, count(*) AS count FROM signals WHERE arrival_path <> 1 GROUP BY 1, 2
        UNION ALL SELECT coalesce(ledger_id, ''), coalesce(partition, ''), count(*) FROM signals
            WHERE arrival_path = 1 GROUP BY 1, 2) counts
    WHERE $1 IN ('', ledger_id) AND $2 IN ('', partition) GROUP BY 1, 2 ORDER BY 1, 2"""

ROW_COUNT_AT = """SELECT count(*) FROM unnest($2::bytea[], $3::bigint[], $4::bigint[]) a (segment_id, first, last)
    JOIN places p ON p.ledger_id = $1 AND p.segment_id = a.segment_id AND p.record_index BETWEEN a.first AND a.last"""

ROWS_SETTLING = f"""SELECT s.record_index, {ROW} FROM signals s
        WHERE ledger_id = $1 AND segment_id = $2 AND record_index BETWEEN $3 AND $4 AND arrival_path <> 1
    UNION ALL SELECT at, {ROW} FROM (
        SELECT record_index AS at, signal_id AS id, input_event_hash AS hash FROM settlements t
        WHERE ledger_id = $1 AND segment_id = $2 AND record_index BETWEEN $3 AND $4 AND outcome <> 'rejected'
            AND {LIVE}
    ) other JOIN signals ON signal_id = id AND input_event_hash = hash"""

FAILURES = f"""SELECT segment_id, record_index, reason FROM settlements t WHERE ledger_id = $1 AND segment_id = ANY($2)
    AND (outcome = 'rejected' OR outcome = 'conflict' AND NOT {HAS_ROW}) ORDER BY segment_id, record_index"""

REJECTED = """SELECT segment_id, record_index FROM settlements
    WHERE ledger_id = $1 AND outcome = 'rejected' AND (segment_id, record_index) > ($2, $3)
    ORDER BY segment_id, record_index LIMIT $4"""

Segment = tuple[str, bytes]  # ledger_id, segment_id


@asynccontextmanager
async def open_postgres(url: str, timeout_s: float, statements_cached: int) -> AsyncIterator["PostgresStore"]:
    """StoreUnknown for a URL that cannot be read; StoreRefused when the database cannot be used, or not safely, or has
    another schema version."""
    address = Address.of(url)
    async with Database.opened(address, timeout_s, statements_cached) as database:
        with refusing(address.place):
            async with asyncio.timeout(timeout_s):
                await database.attempt(lambda connection: check_version(connection, address.place))
        yield PostgresStore(database)


class PostgresStore:
    """Fulfils the contract of `Store`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.runs: Runs = PostgresRuns(database)

    async def settle(self, entries: Sequence[Entry], ingested_at: int) -> list[Outcome]:
        return await self._database.run(partial(_settle, entries, ingested_at))

    async def maybe_signal(self, signal_id: str) -> Row | None:
        found = await self._database.read(f"SELECT {ROW} FROM signals WHERE signal_id = $1", signal_id)
        return row_of(found[0]) if found else None

    async def list_signals(self, query: SignalQuery, after: SignalKey | None, limit: int) -> list[Row]:
        sql, values = _selection(query, after, limit)
        return [row_of(each) for each in await self._database.read(sql, *values)]

    async def count_signals(self, ledger_id: str = "", partition: str = "") -> list[PartitionCount]:
        return [PartitionCount(*each) for each in await self._database.read(COUNTS, ledger_id, partition)]

    async def coverage(
        self, ledger_id: str, segment_ids: Sequence[bytes], *, counted_max: int | None = None
    ) -> dict[bytes, Coverage]:
        return await checked(self, ledger_id, segment_ids, counted_max)

    async def settled_count(self, ledger_id: str) -> int:
        [(count,)] = await self._database.read(SETTLED_COUNT, ledger_id)
        return int(count)

    async def partitions(self) -> set[tuple[str, str]]:
        return {(ledger_id, name) for ledger_id, name in await self._database.read(COVERED_PARTITIONS)}

    async def partition_coverage(self, ledger_id: str, partition: str) -> list[SegmentCoverage]:
        cached = await self._database.read(PARTITION_COVERAGE, ledger_id, partition)
        return [
            SegmentCoverage(partition, segment_id, ordinal, maybe_coverage(intervals, count) or Coverage())
            for segment_id, ordinal, intervals, count in cached
        ]

    async def count_rows_at(self, ledger_id: str, places: Mapping[bytes, Coverage]) -> int:
        runs = [(segment_id, *run) for segment_id, indexes in places.items() for run in indexes.intervals]
        [(count,)] = await self._database.read(ROW_COUNT_AT, ledger_id, *_columns(runs, 3))
        return int(count)

    async def rows_settling(self, ledger_id: str, segment_id: bytes, first: int, last: int) -> dict[int, Row]:
        found = await self._database.read(ROWS_SETTLING, ledger_id, segment_id, first, last)
        return {index: row_of(row) for index, *row in found}

    async def failures(self, ledger_id: str, segment_ids: Sequence[bytes]) -> list[Failure]:
        return [Failure(*row) for row in await self._database.read(FAILURES, ledger_id, list(segment_ids))]

    async def rejected(self, ledger_id: str, after: SegmentPlace, limit: int) -> list[SegmentPlace]:
        return [(id_, index) for id_, index in await self._database.read(REJECTED, ledger_id, *after, limit)]

    async def cached(self, ledger_id: str, segment_ids: Sequence[bytes]) -> list[CachedCoverage]:
        rows = await self._database.read(CACHED_COVERAGE, ledger_id, list(segment_ids))
        return [CachedCoverage(*each) for each in rows]

    async def counted(self, ledger_id: str, segment_ids: Sequence[bytes]) -> list[Counted]:
        return [Counted(*each) for each in await self._database.read(COUNTED_COVERAGE, ledger_id, segment_ids)]

    async def rebuild(self, ledger_id: str, segment_id: bytes) -> Coverage:
        return await self._database.run(partial(_rebuild, ledger_id, segment_id))

    async def note_counted(self, ledger_id: str, segment_ids: Sequence[bytes], turn: int) -> None:
        await self._database.run(partial(_note_counted, ledger_id, segment_ids, turn))

    async def holds(self, ledger_id: str, segment_id: bytes, settled: Coverage) -> bool:
        firsts, lasts = [first for first, _ in settled.intervals], [last for _, last in settled.intervals]
        [(within,)] = await self._database.read(COUNTED_WITHIN, ledger_id, segment_id, firsts, lasts)
        return bool(within == settled.count)


def _selection(query: SignalQuery, after: SignalKey | None, limit: int) -> tuple[str, list[Any]]:
    """What `list_signals` asks, and the values of its marks."""
    last, emitted_before = bounds_of(query, after)
    filters: dict[str, Sequence[Any]] = {
        "(emitted_at, signal_id) > ({}, {})": last or (),
        "emitted_at < {}": () if emitted_before is None else (emitted_before,),
        "category = {}": (query.category,) if query.category else (),
        "source_event_id = {}": (query.source_event_id,) if query.source_event_id else (),
        "ledger_id = {}": (query.ledger_id,) if query.ledger_id else (),
        "partition = {}": (query.partition,) if query.partition else (),
    }
    values = [value for values in (*filters.values(), (limit,)) for value in values]
    conditions = " AND ".join(["TRUE", *(sql for sql, asked in filters.items() if asked)])
    sql = f"SELECT {ROW} FROM signals WHERE {conditions} ORDER BY emitted_at, signal_id LIMIT {{}}"
    return sql.format(*(f"${number}" for number in range(1, len(values) + 1))), values


def _columns(rows: Iterable[Sequence[Any]], count: int) -> list[list[Any]]:
    """What unnest makes rows of again."""
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(count)]


async def _settle(entries: Sequence[Entry], ingested_at: int, connection: Connection) -> list[Outcome]:
    """Raises Outrun when what was decided is no longer true."""
    cached = await _hold(connection, entries)
    plan = decide(entries, await _known(connection, entries), ingested_at)
    await _write(connection, plan)
    updates = [
        (ledger_id, segment_id, settled.encode(), settled.count)
        for (ledger_id, _, segment_id, _), indexes in covered(entries, plan.outcomes).items()
        for settled in [indexes | cached[ledger_id, segment_id]]
    ]
    if updates:
        await connection.executemany(UPDATE_COVERAGE, updates)
    return plan.outcomes


async def _hold(connection: Connection, entries: Sequence[Entry]) -> dict[Segment, Coverage]:
    """Until the transaction ends nobody else settles records of these segments. What is settled of them by now."""
    segments = {(at.ledger_id, at.segment_id): at for entry in entries if (at := entry.held_at)}
    if not segments:
        return {}
    rows = [(*segment, at.partition, at.segment_ordinal) for segment, at in sorted(segments.items(), key=_segment)]
    ledger_ids, segment_ids, partitions, ordinals = _columns(rows, 4)
    await connection.execute(ENSURE_COVERAGE, ledger_ids, segment_ids, partitions, ordinals)
    settled: dict[Segment, Coverage] = {}
    for ledger_id, segment_id, intervals, count in await connection.fetch(HOLD_COVERAGE, ledger_ids, segment_ids):
        found = maybe_coverage(intervals, count)
        settled[ledger_id, segment_id] = found or await _recounted(connection, ledger_id, segment_id, Coverage())
    if settled.keys() != segments.keys():
        raise Outrun  # somebody deleted one in between
    return settled


def _segment(item: tuple[Segment, object]) -> Segment:
    return item[0]


async def _known(connection: Connection, entries: Sequence[Entry]) -> Known:
    ids = sorted({entry.signal_id for entry in entries})
    found = await connection.fetch(f"SELECT {ROW} FROM signals WHERE signal_id = ANY($1)", ids)
    known = Known(rows={row["signal_id"]: row_of(tuple(row)) for row in found})
    for segment, indexes in by_segment(entry.held_at for entry in entries).items():
        taken = await connection.fetch(ROWS_AT, *segment, indexes)
        known.places |= {(*segment, index): signal_id for index, signal_id in taken}
    return known


async def _write(connection: Connection, plan: Plan) -> None:
    rows = sorted(values_of(row) for row in plan.rows)
    if rows and await connection.fetchval(INSERT_ROWS, *_columns(rows, 15)) < len(rows):
        raise Outrun
    for segment, indexes in by_segment(row.signal.held_at for row in plan.rows).items():
        await connection.execute(DELETE_SETTLEMENTS, *segment, indexes)
    settlements = [
        (*place_of(each.position), each.verdict.value, each.signal_id, each.input_event_hash, each.reason)
        for each in plan.settlements.values()
    ]
    if settlements:
        await connection.execute(UPSERT_SETTLEMENTS, *_columns(settlements, 9))


async def _rebuild(ledger_id: str, segment_id: bytes, connection: Connection) -> Coverage:
    """While the row is held nothing is settled. A row that is missing is made like the first settled record's."""
    maybe_place = await connection.fetchrow(f"{SETTLED_PLACES} LIMIT 1", ledger_id, segment_id)
    if maybe_place:
        partition, ordinal, _ = maybe_place
        await connection.execute(ENSURE_COVERAGE, [ledger_id], [segment_id], [partition], [ordinal])
    held = await connection.fetch(HOLD_COVERAGE, [ledger_id], [segment_id])
    cached = next((found for *_, intervals, count in held if (found := maybe_coverage(intervals, count))), Coverage())
    settled = await _recounted(connection, ledger_id, segment_id, cached)
    await connection.execute(UPDATE_COVERAGE, ledger_id, segment_id, settled.encode(), settled.count)
    return settled


async def _recounted(connection: Connection, ledger_id: str, segment_id: bytes, cached: Coverage) -> Coverage:
    """What is settled: as cached, but for the blocks whose count is another. Only those are read."""
    counts = dict(await connection.fetch(COUNTED_BLOCKS, ledger_id, segment_id))
    doubtful = in_doubt(cached, counts, BLOCK_RECORDS)
    found: list[int] = []
    for run in doubtful.intervals:
        found += [index for (index,) in await connection.fetch(SETTLED_WITHIN, ledger_id, segment_id, *run)]
    return (cached - doubtful) | Coverage.of(found)


async def _note_counted(ledger_id: str, segment_ids: Sequence[bytes], turn: int, connection: Connection) -> None:
    await connection.fetch(HOLD_COVERAGE, [ledger_id] * len(segment_ids), segment_ids)  # in order, as batches do
    await connection.execute(NOTE_COUNTED, ledger_id, segment_ids, turn)
