"""A durable, framed, append-only ledger: opaque payloads in, the same bytes out. FORMAT.md says how it lies on disk."""

from ledger.disk import Disk
from ledger.errors import (
    FormatUnsupported,
    LedgerClosed,
    LedgerDamaged,
    LedgerError,
    LedgerFull,
    LedgerLocked,
    LedgerUnavailable,
    PartitionClosed,
    QueueFull,
)
from ledger.house import Recovered
from ledger.positions import PartitionInfo, Position, Record, SegmentInfo, SegmentState
from ledger.reader import LedgerReader, SegmentCursor
from ledger.settings import LedgerSettings
from ledger.writer import Ledger

__all__ = [
    "Disk",
    "FormatUnsupported",
    "Ledger",
    "LedgerClosed",
    "LedgerDamaged",
    "LedgerError",
    "LedgerFull",
    "LedgerLocked",
    "LedgerReader",
    "LedgerSettings",
    "LedgerUnavailable",
    "PartitionClosed",
    "PartitionInfo",
    "Position",
    "QueueFull",
    "Record",
    "Recovered",
    "SegmentCursor",
    "SegmentInfo",
    "SegmentState",
]
