"""Signals given back: the index says where they stand, the ledger what they are.

What the index says is never taken for granted: the record at the place it names must be the signal that was asked for.
"""

import asyncio
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby

from google.protobuf.timestamp_pb2 import Timestamp

from contract.errors import ContractError, Reason
from contract.pages import READ_AT_ONCE, PageBytes, SignalKey
from ledger import IndexEntry, IndexQuery, IndexUnavailable, LedgerIndex, LedgerReader, Position, Record
from omen.v1.signal_service_pb2 import ListSignalsRequest
from omen_server.journal import Journal
from omen_server.reading.signal_index import SignalIndex
from omen_server.records import index_fields

INDEX_WAIT_S = 2.0  # a healthy index is milliseconds behind; longer, and whoever asks should ask again
INDEX_RETRY_S = 1.0


@dataclass(slots=True)
class Page:
    """`after` is the key of its last place, None when nothing follows. What cannot be read has its place too."""

    records: list[Record] = field(default_factory=list)
    unreadable: list[Position] = field(default_factory=list)
    after: SignalKey | None = None
    through: Position | None = None


class StoredSignals:
    def __init__(self, journal: Journal, index: SignalIndex) -> None:
        self._journal = journal
        self._index = index

    async def get(self, signal_id: str) -> Record:
        """The first append of a signal. Raises ContractError: SIGNAL_NOT_FOUND, INDEX_BEHIND, LEDGER_DAMAGED."""
        position = await self._maybe_position(signal_id)
        if position is None:
            raise self._not_found(signal_id)
        reader = await self._journal.read(lambda ledger: ledger.reader())
        [(_, record)] = await asyncio.to_thread(read_each, reader, [position])
        if record is None:
            if (await self._journal.read(lambda ledger: ledger.partition(position.partition))).is_pruned:
                raise self._not_found(signal_id)
            metadata = {"partition": position.partition, "sequences": str(position.sequence)}
            raise ContractError(Reason.LEDGER_DAMAGED, "the record of this signal cannot be read", metadata=metadata)
        if not is_signal(record, signal_id):
            raise self._distrusted()
        return record

    async def page(self, query: IndexQuery, after: SignalKey | None, size: int) -> Page:
        """At most `size` signals, and about 1 MiB of them. Raises ContractError: INDEX_BEHIND."""
        try:
            return await self._page(query, after, size)
        except IndexUnavailable:
            await self._index.caught_up(INDEX_WAIT_S)
        try:
            return await self._page(query, after, size)
        except IndexUnavailable as error:
            raise behind() from error

    async def _page(self, query: IndexQuery, after: SignalKey | None, size: int) -> Page:
        reader = await self._journal.read(lambda ledger: ledger.reader())
        page = await asyncio.to_thread(page_of, self._index.ledger_index, reader, query, after, size)
        if page is None:
            raise self._distrusted()
        return page

    async def _maybe_position(self, signal_id: str) -> Position | None:
        """None: it is not among the signals that were durable when this was asked."""
        find = self._index.ledger_index.find
        with suppress(IndexUnavailable):
            if position := await asyncio.to_thread(find, signal_id):
                return position
        if not await self._index.caught_up(INDEX_WAIT_S):
            raise behind()
        try:
            return await asyncio.to_thread(find, signal_id)
        except IndexUnavailable as error:
            raise behind() from error

    def _not_found(self, signal_id: str) -> ContractError:
        damaged = self._index.ledger_index.damaged_count
        metadata = {"damaged_record_count": str(damaged)} if damaged else {}
        return ContractError(Reason.SIGNAL_NOT_FOUND, f"no signal {signal_id} in the ledger", metadata=metadata)

    def _distrusted(self) -> ContractError:
        self._index.distrust("it named a record that is another one")
        return behind()


def behind() -> ContractError:
    message = "the index has not reached what is in the ledger"
    return ContractError(Reason.INDEX_BEHIND, message, retry_delay_s=INDEX_RETRY_S)


def page_of(
    index: LedgerIndex, reader: LedgerReader, query: IndexQuery, after: SignalKey | None, size: int
) -> Page | None:
    """None when the index named a record that is not the signal it said. Reads files: on a thread."""
    page = Page(through=index.indexed_through())  # before the list, which then covers at least that
    entries = index.select(query, after, size + 1)
    held = PageBytes()
    taken: IndexEntry | None = None
    for entry, record in read_entries(reader, entries[:size]):
        if record is None:
            page.unreadable.append(entry.position)
        elif not is_signal(record, entry.signal_id):
            return None
        elif held.take(len(record.payload)):
            page.records.append(record)
        else:
            break
        taken = entry
    page.after = taken.key if taken and taken is not entries[-1] else None
    return page


def read_entries(reader: LedgerReader, entries: Sequence[IndexEntry]) -> Iterator[tuple[IndexEntry, Record | None]]:
    for start in range(0, len(entries), READ_AT_ONCE):
        part = entries[start : start + READ_AT_ONCE]
        records = dict(read_each(reader, [entry.position for entry in part]))
        yield from ((entry, records[entry.position]) for entry in part)


def read_each(reader: LedgerReader, positions: Iterable[Position]) -> Iterator[tuple[Position, Record | None]]:
    """The records at these places, None for what cannot be read; in the order of the ledger."""
    for (partition, ordinal), group in groupby(sorted(positions, key=order), key=order_of_segment):
        asked = {position.sequence: position for position in group}
        found: dict[int, Record] = {}
        with suppress(OSError, KeyError):  # then no more of this segment can be read
            ranges = [(position.record_index, position.record_index) for position in asked.values()]
            for record in reader.ranges(partition, ordinal, ranges):
                found[record.position.sequence] = record
        for sequence, position in asked.items():
            yield position, found.get(sequence)


def order(position: Position) -> tuple[str, int]:
    return position.partition, position.sequence


def order_of_segment(position: Position) -> tuple[str, int]:
    return position.partition, position.segment_ordinal


def is_signal(record: Record, signal_id: str) -> bool:
    fields = index_fields(record.payload)
    return fields is not None and fields.signal_id == signal_id


def index_query(request: ListSignalsRequest) -> IndexQuery:
    """The filters of a request that has been checked."""
    return IndexQuery(
        emitted_from=microseconds(request.emitted_from) if request.HasField("emitted_from") else None,
        emitted_before=microseconds(request.emitted_before) if request.HasField("emitted_before") else None,
        trace_ids=tuple(request.deterministic_trace_ids),
        category=request.category or None,
        source_event_id=request.source_event_id or None,
    )


def microseconds(at: Timestamp) -> int:
    return at.seconds * 1_000_000 + at.nanos // 1000


def named(query: IndexQuery) -> str:
    """The RPC and its filters, which a page token is bound to."""
    told = (query.emitted_from, query.emitted_before, query.trace_ids, query.category, query.source_event_id)
    return f"ListSignals {json.dumps(told)}"
