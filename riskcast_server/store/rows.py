"""What the stores of every technology share: the columns of a row, and which coverage to check next. No SQL dialect."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from contract.coverage import Coverage
from contract.errors import ContractError, Reason
from contract.validation import EPOCH
from riskcast.v1.reconcile_service_pb2 import ReconcileState
from riskcast_server.settlement import Candidate, Position, Row
from riskcast_server.store.contract import Kept, Lease, SignalKey, SignalQuery

ROW = """signal_id, input_event_hash, ack_id, event, emitted_at, category, source_event_id, arrival_path,
    arrival_run_id, ledger_id, partition, segment_id, segment_ordinal, record_index, ingested_at"""

PLACE = "ledger_id, partition, segment_id, segment_ordinal, record_index"

STATE = """ledger_id, partition, fence, status, reason, ledger_record_count, highwater_sequence, manifest_revision,
    run_id, finished_at, missing_record_count, replayed_record_count, failed_record_count, extra_record_count"""

SEGMENTS_PER_STATEMENT = 500  # below SQLite's limit of parameters; other questions are answered in between

RECORDS_PER_STATEMENT = 250_000  # to count: duplicates take some 10 µs each, and a statement is given 10 s

BLOCK_RECORDS = 256  # where the cache of a segment is wrong, so many are read for each that misses: 0.1 ms

DAY_US = 24 * 3600 * 1_000_000


@dataclass(frozen=True, slots=True)
class CachedCoverage:
    """A row of coverage. `counted_at`: in which turn, later ones are higher; 0 for never. No time: clocks go back."""

    segment_id: bytes
    intervals: str
    settled_count: int
    counted_at: int

    def maybe_settled(self) -> Coverage | None:
        return maybe_coverage(self.intervals, self.settled_count)


def maybe_coverage(intervals: str, settled_count: int) -> Coverage | None:
    """None when the two do not agree, or nobody can read them: it is a cache, and is made anew."""
    try:
        settled = Coverage.decode(intervals)
    except ValueError:
        return None
    return settled if settled.count == settled_count else None


def is_one_run(settled: Coverage, first: int | None, last: int | None) -> bool:
    """From the first to the last that were counted, without a hole: as many as that are these. Elsewhere as many may be
    others: a row was deleted, and a conflict came to be settled."""
    return settled.intervals == (() if first is None or last is None else ((first, last),))


def values_of(row: Row) -> tuple[Any, ...]:
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
        *(place_of(signal.position) if signal.position else (None,) * 5),
        row.ingested_at,
    )


def row_of(values: Sequence[Any]) -> Row:
    """From the columns of ROW."""
    signal_id, digest, ack_id, event, emitted_at, category, source_event_id, path, run_id = values[:9]
    ledger_id, partition, segment_id, ordinal, index, ingested_at = values[9:]
    position = None if ledger_id is None else Position(ledger_id, partition, segment_id, ordinal << 32 | index)
    signal = Candidate(signal_id, digest, ack_id, event, emitted_at, category, source_event_id, position, path, run_id)
    return Row(signal, ingested_at)


def state_values_of(lease: Lease, state: ReconcileState) -> tuple[Any, ...]:
    """In the order of STATE."""
    return (
        state.ledger_id,
        state.partition,
        lease.fence,
        state.status,
        state.reason,
        state.ledger_record_count,
        state.highwater_sequence,
        state.manifest_revision,
        state.run_id,
        state.finished_at.ToMicroseconds(),
        state.missing_record_count,
        state.replayed_record_count,
        state.failed_record_count,
        state.extra_record_count,
    )


def state_of(values: Sequence[Any]) -> Kept:
    """From the columns of STATE."""
    ledger_id, partition, fence, status, reason, record_count, highwater, revision, run_id, finished_at = values[:10]
    missing, replayed, failed, extra = values[10:]
    state = ReconcileState(
        ledger_id=ledger_id,
        partition=partition,
        status=status,
        reason=reason,
        ledger_record_count=record_count,
        highwater_sequence=highwater,
        manifest_revision=revision,
        run_id=run_id,
        missing_record_count=missing,
        replayed_record_count=replayed,
        failed_record_count=failed,
        extra_record_count=extra,
    )
    state.finished_at.FromMicroseconds(finished_at)
    return Kept((ledger_id, partition, fence), state)


def lease_lost(in_force: Lease) -> ContractError:
    """`in_force` is the lease that came after; its holder is "" once that was released."""
    metadata = {"run_id": in_force.holder}
    return ContractError(Reason.RECONCILE_RUNNING, "another run of this ledger took over", metadata=metadata)


def place_of(at: Position) -> tuple[str, str, bytes, int, int]:
    """In the order of PLACE."""
    return at.ledger_id, at.partition, at.segment_id, at.segment_ordinal, at.record_index


def by_segment(positions: Iterable[Position | None]) -> dict[tuple[str, bytes], list[int]]:
    """Record indexes by (ledger_id, segment_id), ascending by that."""
    indexes: defaultdict[tuple[str, bytes], list[int]] = defaultdict(list)
    for at in positions:
        if at:
            indexes[at.ledger_id, at.segment_id].append(at.record_index)
    return dict(sorted(indexes.items()))


def in_doubt(cached: Coverage, counts: Mapping[int, int], size: int) -> Coverage:
    """The blocks of so many indexes, told by their first ones, that must be read to know what is settled of them.

    Beyond doubt are those that are full, or empty, in the cache and by the count. Others may hold as many, and others.
    `counts` may lack those of which nothing is settled.
    """
    expected: Counter[int] = Counter()
    for first, last in cached.intervals:
        for block in range(first - (first - 1) % size, last + 1, size):
            expected[block] += min(last, block + size - 1) - max(first, block) + 1
    full = {block for block, count in counts.items() if count == expected[block] == size}
    return Coverage.spanning((block, block + size - 1) for block in (counts.keys() | expected.keys()) - full)


def least_recently_counted(
    segment_ids: Iterable[bytes], cached: Iterable[CachedCoverage], counted_max: int
) -> list[bytes]:
    """Segments of together at most so many settled records, and at least one; without a sound cache in any case."""
    known = {each.segment_id: each for each in cached if each.maybe_settled()}
    chosen = [segment_id for segment_id in segment_ids if segment_id not in known]
    count = 0
    for each in sorted(known.values(), key=lambda each: (each.counted_at, each.segment_id)):
        count += each.settled_count
        if count > counted_max and chosen:
            break
        chosen.append(each.segment_id)
    return chosen


def bounds_of(query: SignalQuery, after: SignalKey | None) -> tuple[SignalKey | None, int | None]:
    """The key behind which the asked-for signals begin, and the time before which they end; None without a bound.

    One bound each way: given two, a database might begin at the lower. A partition is a day, which an index finds.
    """
    days = [day_of(query.partition)] if query.partition else []
    begins = [query.emitted_from, *(start for start, _ in days)]
    ends = [query.emitted_before, *(end for _, end in days)]
    keys = [(at, "") for at in begins if at is not None]  # no signal_id is "", so that the first one is behind it
    last = max(keys + ([after] if after else []), default=None)
    return last, min((at for at in ends if at is not None), default=None)


def portions(segment_ids: Sequence[bytes], cached: Iterable[CachedCoverage] = ()) -> Iterator[list[bytes]]:
    """Of a size that one statement takes; with what is cached of them, of one that it can count in time."""
    counts = {each.segment_id: each.settled_count for each in cached}
    portion: list[bytes] = []
    records = 0
    for segment_id in segment_ids:
        count = counts.get(segment_id, 0)
        if portion and (len(portion) == SEGMENTS_PER_STATEMENT or records + count > RECORDS_PER_STATEMENT):
            yield portion
            portion, records = [], 0
        portion.append(segment_id)
        records += count
    if portion:
        yield portion


def microseconds(seconds: float) -> int:
    return round(seconds * 1_000_000)


def day_of(partition: str) -> tuple[int, int]:
    """The UTC day of a partition, main or late: from and before, in microseconds since the epoch."""
    day = date.fromisoformat(partition.removesuffix("-late"))
    start = (datetime(day.year, day.month, day.day, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
    return start, start + DAY_US
