"""Ledger records and positions in the words of the contract."""

from google.protobuf.message import DecodeError

from ledger import IndexFields, Position, Record
from omen.v1 import ledger_record_pb2 as pb
from omen.v1.signal_event_pb2 import SignalEvent
from serving.telemetry.names import signal_names


def ledger_position(ledger_id: str, position: Position) -> pb.LedgerPosition:
    message = pb.LedgerPosition()
    put_position(message, ledger_id, position)
    return message


def ledger_record(ledger_id: str, record: Record) -> pb.LedgerRecord:
    """The record with its bytes as they were appended."""
    message = pb.LedgerRecord()
    put_record(message, ledger_id, record)
    return message


def put_position(into: pb.LedgerPosition, ledger_id: str, position: Position) -> None:
    """Field by field into the message that it is a part of: to make parts and copy them takes three times as long."""
    into.ledger_id = ledger_id
    into.partition = position.partition
    into.segment_id = position.segment_id
    into.sequence = position.sequence


def put_record(into: pb.LedgerRecord, ledger_id: str, record: Record) -> None:
    """As `put_position`."""
    put_position(into.position, ledger_id, record.position)
    seconds, microseconds = divmod(record.written_at, 1_000_000)
    into.written_at.seconds = seconds
    into.written_at.nanos = microseconds * 1000
    into.event = record.payload


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
