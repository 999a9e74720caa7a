"""Signals given back in the words of the contract, and in pages."""

import json
from dataclasses import astuple, dataclass, field

from google.protobuf.message import DecodeError

from contract.errors import timestamp
from contract.pages import READ_AT_ONCE, PageBytes, SignalKey
from omen.v1.ledger_record_pb2 import LedgerPosition
from omen.v1.signal_event_pb2 import SignalEvent
from riskcast.v1 import signal_service_pb2 as pb
from riskcast_server.ingest import datetime_of
from riskcast_server.settlement import Row
from riskcast_server.store import SignalQuery, Store


@dataclass(slots=True)
class Page:
    """`after` is the key of its last signal, None when nothing follows."""

    signals: list[pb.StoredSignal] = field(default_factory=list)
    after: SignalKey | None = None


async def page_of(store: Store, query: SignalQuery, after: SignalKey | None, size: int) -> Page:
    """At most `size` signals, and 1 MiB of them."""
    page, held, last = Page(), PageBytes(), after
    at_once = min(size + 1, READ_AT_ONCE)
    while True:
        rows = await store.list_signals(query, last, at_once)
        for row in rows:
            signal = stored_signal(row)
            if len(page.signals) == size or not held.take(signal.ByteSize()):
                page.after = last
                return page
            page.signals.append(signal)
            last = row.signal.emitted_at, row.signal.signal_id
        if len(rows) < at_once:
            return page


def stored_signal(row: Row) -> pb.StoredSignal:
    """Without a parsed event where somebody garbled its bytes."""
    at = row.signal.position
    stored = pb.StoredSignal(
        event=maybe_event(row.signal.event),
        stored_event=row.signal.event,
        ack_id=row.signal.ack_id,
        ingested_at=timestamp(datetime_of(row.ingested_at)),
        first_arrival=pb.Arrival(path=row.signal.path, run_id=row.signal.run_id),
    )
    if at:
        position = LedgerPosition(
            ledger_id=at.ledger_id, partition=at.partition, segment_id=at.segment_id, sequence=at.sequence
        )
        stored.position.CopyFrom(position)
    return stored


def maybe_event(encoded: bytes) -> SignalEvent | None:
    try:
        return SignalEvent.FromString(encoded)
    except DecodeError:
        return None


def signal_query(request: pb.ListSignalsRequest) -> SignalQuery:
    """The filters of a request that has been checked."""
    return SignalQuery(
        emitted_from=request.emitted_from.ToMicroseconds() if request.HasField("emitted_from") else None,
        emitted_before=request.emitted_before.ToMicroseconds() if request.HasField("emitted_before") else None,
        category=request.category,
        source_event_id=request.source_event_id,
        ledger_id=request.ledger_id,
        partition=request.partition,
    )


def named(query: SignalQuery) -> str:
    """The RPC and its filters, which a page token is bound to."""
    return f"ListSignals {json.dumps(astuple(query))}"
