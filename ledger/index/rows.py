"""Rows of the index: what is kept of a record, and how many of them are written at a time."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from ledger.positions import LATE_SUFFIX, Record
from ledger.times import date_text, day_of_date

_ROWS_PER_STATEMENT = 256  # after each statement the interpreter's lock is waited for once
_COLUMNS = 8
_INDEX_INTEGER_MAX = (1 << 63) - 1

_INSERT = """INSERT INTO signals (signal_id, partition, sequence, written_at, emitted_at, trace_id, category,
    source_event_id) VALUES {rows}
    ON CONFLICT (signal_id, partition) DO UPDATE SET sequence = excluded.sequence, written_at = excluded.written_at,
    emitted_at = excluded.emitted_at, trace_id = excluded.trace_id, category = excluded.category,
    source_event_id = excluded.source_event_id WHERE excluded.sequence < signals.sequence"""

Row = tuple[str, int, int, int, int, str, int, str]


@dataclass(frozen=True, slots=True)
class IndexFields:
    """What a payload says that is looked for. Printable text only."""

    signal_id: str
    trace_id: str
    category: int
    source_event_id: str


def row_of(record: Record, fields: IndexFields) -> Row:
    position = record.position
    return (
        fields.signal_id,
        number_of(position.partition),
        position.sequence,
        record.written_at,
        record.emitted_at,
        fields.trace_id,
        fields.category,
        fields.source_event_id,
    )


def insert(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    rows = sorted(rows)  # by signal_id: in the order of the index that is dearest, so that a page of it is met once
    for start in range(0, len(rows), _ROWS_PER_STATEMENT):
        part = rows[start : start + _ROWS_PER_STATEMENT]
        places = ", ".join([f"({', '.join('?' * _COLUMNS)})"] * len(part))
        connection.execute(_INSERT.format(rows=places), [value for row in part for value in row])


def is_storable(fields: IndexFields) -> bool:
    """Text without NUL and lone surrogates, and a number that SQLite can hold."""
    texts = (fields.signal_id, fields.trace_id, fields.source_event_id)
    return all(map(str.isprintable, texts)) and -_INDEX_INTEGER_MAX <= fields.category <= _INDEX_INTEGER_MAX


def number_of(partition: str) -> int:
    """Sorts as the names do."""
    date = partition.removesuffix(LATE_SUFFIX)
    return day_of_date(date) * 2 + (date != partition)


def name_of(number: int) -> str:
    return date_text(number // 2) + (LATE_SUFFIX if number % 2 else "")
