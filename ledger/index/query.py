"""What the index is asked, as SQL. Every filter has an index of its own, and the query names the one it uses."""

from collections.abc import Sequence
from dataclasses import dataclass

Key = tuple[int, str]  # (emitted_at in microseconds, signal_id): the order of every list
Parameters = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class IndexQuery:
    """All that is set must hold. Times in microseconds since the epoch: from is included, before is not."""

    emitted_from: int | None = None
    emitted_before: int | None = None
    trace_ids: tuple[str, ...] = ()
    category: int | None = None
    source_event_id: str | None = None

    @property
    def index(self) -> str:
        """The most selective filter decides; by_trace alone has to sort, what are a few rows for each id."""
        if self.trace_ids:
            return "by_trace"
        if self.source_event_id is not None:
            return "by_source_event"
        return "by_time" if self.category is None else "by_category"


# One row per answer: sqlite3 lets other threads have the interpreter at every row, and may wait long to get it back.
FIND = """SELECT partition, sequence, segment_id FROM signals JOIN segments USING (partition)
    WHERE signal_id = ? AND ordinal = sequence >> 32 ORDER BY written_at, partition LIMIT 1"""

PROGRESS = """SELECT partition, ordinal, segment_id, indexed_count, passed_over_count, damaged_count, is_pruned
    FROM segments"""

_SELECT = """SELECT json_group_array(json_array(emitted_at, signal_id, partition, sequence, hex(segment_id)))
    FROM (SELECT emitted_at, signal_id, partition, sequence FROM signals AS s INDEXED BY {index}
        WHERE {conditions} AND NOT EXISTS (SELECT 1 FROM signals AS other WHERE other.signal_id = s.signal_id
            AND other.partition <> s.partition AND (other.written_at, other.partition) < (s.written_at, s.partition))
        ORDER BY emitted_at, signal_id LIMIT ?)
    JOIN segments USING (partition) WHERE ordinal = sequence >> 32"""


def selection(query: IndexQuery, after: Key | None, limit: int) -> tuple[str, Parameters]:
    """The first `limit` signals behind `after`, each as its first append."""
    conditions, values = _conditions(query, after)
    sql = _SELECT.format(index=query.index, conditions=" AND ".join(["TRUE", *conditions]))
    return sql, (*values, limit)


def _conditions(query: IndexQuery, after: Key | None) -> tuple[list[str], list[int | str]]:
    parts: list[tuple[str, Sequence[int | str]]] = []
    if query.trace_ids:
        parts.append((f"trace_id IN ({', '.join('?' * len(query.trace_ids))})", query.trace_ids))
    if query.source_event_id is not None:
        parts.append(("source_event_id = ?", [query.source_event_id]))
    if query.category is not None:
        parts.append(("category = ?", [query.category]))
    if query.emitted_before is not None:
        parts.append(("emitted_at < ?", [query.emitted_before]))
    # One lower bound, the higher of the two: given both, SQLite might begin at the lower.
    if after is not None and (query.emitted_from is None or after[0] >= query.emitted_from):
        parts.append(("(emitted_at, signal_id) > (?, ?)", after))
    elif query.emitted_from is not None:
        parts.append(("emitted_at >= ?", [query.emitted_from]))
    return [sql for sql, _ in parts], [value for _, values in parts for value in values]
