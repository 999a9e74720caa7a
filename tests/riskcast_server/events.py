"""Events and records as a ledger holds them: small, valid, told apart by a number."""

from collections.abc import Sequence
from datetime import UTC, datetime

from contract.errors import timestamp
from contract.identity import fill_identity, identity_of_event, input_event_hash
from omen.v1.ledger_record_pb2 import LedgerPosition, LedgerRecord
from omen.v1.signal_event_pb2 import SignalEvent
from omen.v1.signal_pb2 import (
    CONFIDENCE_LEVEL_MEDIUM,
    PRICE_BASIS_LAST_TRADE,
    SIGNAL_CATEGORY_GEOPOLITICAL,
    SIGNAL_STATUS_ACTIVE,
    SIGNAL_TYPE_GEOPOLITICAL_CONFLICT,
    SOURCE_CLASS_REAL_MONEY_MARKET,
    Signal,
)

LEDGER = "0c3f9a52-5d57-4f43-9a5d-6a1f4be0c7d3"
OTHER_LEDGER = "7d0e4f7c-3f15-4c6f-8f1d-6a520c0b4f0e"
DAY = "2026-01-29"
SEGMENT = bytes(range(16))
NOON = datetime(2026, 1, 29, 12, tzinfo=UTC)


def event(number: int, *, title: str = "Will the strait be closed?") -> SignalEvent:
    """The same number gives the same ids, on every call."""
    made = SignalEvent(
        schema_version="1.0.0",
        input_event_hash=input_event_hash(str(number).encode()),
        source="market",
        source_event_id=f"market:{number}",
        ruleset_version="1.0.0",
        observed_at=timestamp(NOON),
        emitted_at=timestamp(NOON),
        signal=Signal(
            title=title,
            signal_type=SIGNAL_TYPE_GEOPOLITICAL_CONFLICT,
            status=SIGNAL_STATUS_ACTIVE,
            category=SIGNAL_CATEGORY_GEOPOLITICAL,
            probability=0.25,
            probability_source="market",
            price_basis=PRICE_BASIS_LAST_TRADE,
            confidence_score=0.5,
            confidence_level=CONFIDENCE_LEVEL_MEDIUM,
            confidence_method="1.0.0",
            source_class=SOURCE_CLASS_REAL_MONEY_MARKET,
            generated_at=timestamp(NOON),
        ),
    )
    fill_identity(made)
    return made


def position(index: int, *, segment_id: bytes = SEGMENT, ordinal: int = 1, partition: str = DAY) -> LedgerPosition:
    return LedgerPosition(ledger_id=LEDGER, partition=partition, segment_id=segment_id, sequence=ordinal << 32 | index)


def record(index: int, payload: SignalEvent | bytes | None = None, *, at: LedgerPosition | None = None) -> LedgerRecord:
    """By default the event of the same number, at that index of the first segment."""
    payload = event(index) if payload is None else payload
    encoded = payload if isinstance(payload, bytes) else payload.SerializeToString()
    return LedgerRecord(position=at or position(index), written_at=timestamp(NOON), event=encoded)


def records(indexes: Sequence[int]) -> list[LedgerRecord]:
    return [record(index) for index in indexes]


def with_long_id(made: SignalEvent, digits: int) -> SignalEvent:
    longer = SignalEvent()
    longer.CopyFrom(made)
    longer.signal_id = identity_of_event(made).signal_id_of(digits)
    return longer
