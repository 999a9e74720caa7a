"""Events of about 800 bytes, told apart by a number: the same number has the same ids and the same bytes."""

from datetime import datetime
from typing import NamedTuple

from contract.errors import timestamp
from contract.identity import ack_id, identity
from contract.versions import SCHEMA_VERSION
from omen.v1 import signal_pb2
from omen.v1.ledger_record_pb2 import LedgerPosition, LedgerRecord
from omen.v1.signal_event_pb2 import SignalEvent
from riskcast.v1.signal_service_pb2 import ARRIVAL_PATH_DELIVERY
from riskcast_server.settlement import Candidate, Position

RULESET = "1.0.0"


class Ids(NamedTuple):
    """All that differs from event to event, in the order of the fields, which is the order of the bytes."""

    signal_id: str
    trace_id: str
    input_hash: str
    source_event_id: str


def ids_of(number: int) -> Ids:
    """`number` has at most ten digits: all events have one length."""
    source_event_id, input_hash = f"bench:{number:010}", f"sha256:{number:064x}"
    ids = identity(source_event_id, input_hash, RULESET)
    return Ids(ids.signal_id, ids.trace_id, input_hash, source_event_id)


class Events:
    """All of one time. Only what differs is encoded anew: a million take seconds."""

    def __init__(self, emitted_at: datetime) -> None:
        """`emitted_at` is aware."""
        self.emitted_at = emitted_at
        self._model = _event(ids_of(0), emitted_at)
        self._template = _template(self._model.SerializeToString(), ids_of(0))
        self._emitted_us = self._model.emitted_at.ToMicroseconds()

    def encoded(self, number: int) -> bytes:
        """A SignalEvent that passes every check."""
        return self._encoded(ids_of(number))

    def event(self, number: int) -> SignalEvent:
        return SignalEvent.FromString(self.encoded(number))

    def record(self, number: int, position: LedgerPosition) -> LedgerRecord:
        return LedgerRecord(position=position, written_at=self._model.emitted_at, event=self.encoded(number))

    def candidate(self, number: int, position: Position) -> Candidate:
        """What RiskCast makes of such a record."""
        ids = ids_of(number)
        return Candidate(
            ids.signal_id,
            ids.input_hash,
            ack_id(ids.signal_id, ids.input_hash),
            self._encoded(ids),
            self._emitted_us,
            signal_pb2.SIGNAL_CATEGORY_INFRASTRUCTURE,
            ids.source_event_id,
            position,
            ARRIVAL_PATH_DELIVERY,
        )

    def _encoded(self, ids: Ids) -> bytes:
        return self._template % tuple(each.encode() for each in ids)


def _event(ids: Ids, emitted_at: datetime) -> SignalEvent:
    return SignalEvent(
        schema_version=SCHEMA_VERSION,
        signal_id=ids.signal_id,
        deterministic_trace_id=ids.trace_id,
        input_event_hash=ids.input_hash,
        source="bench",
        source_event_id=ids.source_event_id,
        ruleset_version=RULESET,
        observed_at=timestamp(emitted_at),
        emitted_at=timestamp(emitted_at),
        signal=signal_pb2.Signal(
            title="Will traffic through the lane stop?",
            description="A closure of the lane would be announced by its authority. " * 9,
            signal_type=signal_pb2.SIGNAL_TYPE_SHIPPING_ROUTE_RISK,
            status=signal_pb2.SIGNAL_STATUS_ACTIVE,
            category=signal_pb2.SIGNAL_CATEGORY_INFRASTRUCTURE,
            probability=0.25,
            probability_source="bench:stated",
            price_basis=signal_pb2.PRICE_BASIS_STATED,
            confidence_score=0.8,
            confidence_level=signal_pb2.CONFIDENCE_LEVEL_HIGH,
            confidence_method="bench",
            tags=["lane", "traffic"],
            source_class=signal_pb2.SOURCE_CLASS_MODEL,
            generated_at=timestamp(emitted_at),
        ),
    )


def _template(encoded: bytes, ids: Ids) -> bytes:
    """The bytes with %s for each id. There is one length for all, so that no length within changes."""
    template = encoded.replace(b"%", b"%%")
    for each in ids:
        template = template.replace(each.encode(), b"%s", 1)
    return template
