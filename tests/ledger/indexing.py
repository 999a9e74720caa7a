"""Ledgers whose payloads say what an index looks for, and what an index of them must answer."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from ledger import IndexEntry, IndexFields, IndexQuery, LedgerIndex, LedgerReader, Record
from tests.ledger.conftest import OpenLedger
from tests.ledger.faults import Answers, append_each


def payload(
    signal_id: str, trace_id: str = "trace", category: int = 1, source_event_id: str = "event", note: str = ""
) -> bytes:
    return json.dumps([signal_id, trace_id, category, source_event_id, note]).encode()


def extract(data: bytes) -> IndexFields | None:
    """ValueError for what is no JSON, None for JSON that is something else."""
    told = json.loads(data)
    return IndexFields(*told[:4]) if isinstance(told, list) else None


@contextmanager
def index_of(directory: Path, reader: LedgerReader | None = None) -> Iterator[LedgerIndex]:
    index = LedgerIndex(directory, reader or LedgerReader(directory), extract)
    with closing(index):
        yield index


def caught_up(index: LedgerIndex, records_max: int = 1000) -> LedgerIndex:
    while index.advance(records_max).record_count:
        pass
    assert not index.is_behind()
    return index


def everything(index: LedgerIndex, query: IndexQuery | None = None, page: int = 3) -> list[IndexEntry]:
    """All pages of a list."""
    query, after = query or IndexQuery(), None
    found: list[IndexEntry] = []
    while entries := index.select(query, after, page):
        assert len(entries) <= page
        found += entries
        after = entries[-1].key
    return found


def firsts(reader: LedgerReader) -> list[IndexEntry]:
    """The first append of each signal, in the order of lists, by reading the whole ledger."""
    first_there: dict[tuple[str, str], Record] = {}
    for info in reader.partitions():
        for record in reader.records(info.name):
            first_there.setdefault((json.loads(record.payload)[0], info.name), record)
    first: dict[str, Record] = {}
    for (signal_id, _), record in first_there.items():
        first[signal_id] = min(
            first.get(signal_id, record), record, key=lambda one: (one.written_at, one.position.partition)
        )
    entries = [IndexEntry(record.emitted_at, signal_id, record.position) for signal_id, record in first.items()]
    return sorted(entries, key=lambda entry: entry.key)


def appended(open_ledger: OpenLedger, where: Path, *payloads: bytes, **limits: Any) -> None:
    answers = Answers()
    ledger = open_ledger(answers, where, **limits)
    append_each(ledger, answers, payloads)
    ledger.close()


def ids(count: int, start: int = 1) -> list[bytes]:
    return [payload(f"S-{number:04d}") for number in range(start, start + count)]
