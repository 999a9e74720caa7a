"""A durable, framed, append-only ledger: opaque payloads in, the same bytes out. FORMAT.md says how it lies on disk."""

from ledger.backup import BackedUp, Copying, backup
from ledger.cursor import SegmentCursor
from ledger.disk import Disk
from ledger.errors import (
    BackupFailed,
    BackupRefused,
    FormatUnsupported,
    IndexUnavailable,
    LedgerClosed,
    LedgerDamaged,
    LedgerError,
    LedgerFull,
    LedgerLocked,
    LedgerUnavailable,
    NotDue,
    PartitionClosed,
    QueueFull,
)
from ledger.house import Recovered
from ledger.index import Advanced, IndexEntry, LedgerIndex
from ledger.index_query import IndexQuery
from ledger.index_rows import IndexFields
from ledger.positions import PartitionInfo, Position, Record, SegmentInfo, SegmentState
from ledger.reader import LedgerReader
from ledger.routing import Lateness
from ledger.seal import Seal, SealedSegment, SealLink, SealState
from ledger.settings import LedgerSettings
from ledger.verify import Damage, Progress, Verified
from ledger.writer import Ledger

__all__ = [
    "Advanced",
    "BackedUp",
    "BackupFailed",
    "BackupRefused",
    "Copying",
    "Damage",
    "Disk",
    "FormatUnsupported",
    "IndexEntry",
    "IndexFields",
    "IndexQuery",
    "IndexUnavailable",
    "Lateness",
    "Ledger",
    "LedgerClosed",
    "LedgerDamaged",
    "LedgerError",
    "LedgerFull",
    "LedgerIndex",
    "LedgerLocked",
    "LedgerReader",
    "LedgerSettings",
    "LedgerUnavailable",
    "NotDue",
    "PartitionClosed",
    "PartitionInfo",
    "Position",
    "Progress",
    "QueueFull",
    "Record",
    "Recovered",
    "Seal",
    "SealLink",
    "SealState",
    "SealedSegment",
    "SegmentCursor",
    "SegmentInfo",
    "SegmentState",
    "Verified",
    "backup",
]
