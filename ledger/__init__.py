"""A durable, framed, append-only ledger: opaque payloads in, the same bytes out. FORMAT.md says how it lies on disk.

Read it top-down: `writer` and what it drives in `writing/`; `reader` and what it steps through in `reading/`;
`opening/`, where a crash is judged; `files/`, what lies on disk; then the words all of them use: `routing`, `settings`,
`positions`, `seal`, `format`, `disk`, `errors`, `times`. `checking/` re-reads every byte, `copying/` backs up, `index/`
finds signals: nothing that is promised depends on them.
"""

from ledger.checking.verify import Damage, Progress, Verified
from ledger.copying.backup import BackedUp, Copying, backup
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
    NotSealed,
    PartitionClosed,
    QueueFull,
)
from ledger.index.ledger_index import Advanced, IndexEntry, LedgerIndex
from ledger.index.query import IndexQuery
from ledger.index.rows import IndexFields
from ledger.opening.house import Recovered
from ledger.positions import PartitionInfo, Position, Record, SegmentInfo, SegmentState
from ledger.reader import LedgerReader
from ledger.reading.cursor import SegmentCursor
from ledger.routing import Lateness
from ledger.seal import Seal, SealedSegment, SealLink, SealState
from ledger.settings import LedgerSettings
from ledger.writer import Ledger
from ledger.writing.pruning import Pruned

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
    "NotSealed",
    "PartitionClosed",
    "PartitionInfo",
    "Position",
    "Progress",
    "Pruned",
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
