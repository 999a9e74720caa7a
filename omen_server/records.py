"""Ledger records and positions in the words of the contract."""

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from ledger import IndexFields, Position, Record
from omen.v1 import ledger_record_pb2 as pb
from omen.v1.signal_event_pb2 import SignalEvent
from serving.telemetry.names import signal_names


def ledger_position(ledger_id: str, position: Position) -> pb.LedgerPosition:
    return pb.LedgerPosition(
        ledger_id=ledger_id,
        partition=position.partition,
        segment_id=position.segment_id,
        sequence=position.sequence,
    )


def ledger_record(ledger_id: str, record: Record) -> pb.LedgerRecord:
    """The record with its bytes as they were appended."""
    written_at = Timestamp()
    written_at.FromMicroseconds(record.written_at)
    return pb.LedgerRecord(
        position=ledger_position(ledger_id, record.position), written_at=written_at, event=record.payload
    )


def index_fields(payload: bytes) -> IndexFields | None:
    """What a SignalEvent is looked for by; None for bytes that are none."""
    try:
        event = SignalEvent.FromString(payload)
    except DecodeError:
        return None
    if not event.signal_id:
        return None
    category = event.signal.category
    return IndexFields(event.signal_id, event.deterministic_trace_id, category, event.source_event_id)


def names_of(payload: bytes) -> dict[str, str]:
    """What a log line names a record's signal by; {} for bytes that are none."""
    try:
        event = SignalEvent.FromString(payload)
    except DecodeError:
        return {}
    return signal_names(event.signal_id, event.deterministic_trace_id, event.traceparent)
