"""What the ledger can answer instead of a position, split by who must act.

    LedgerError
    ├── QueueFull           the caller: try again in a moment
    ├── PartitionClosed     the caller: emitted_at is too old, it will never be taken
    ├── NotDue              the caller: too early to seal that partition; `due_at` says when
    ├── NotSealed           the caller: only what is final can be pruned
    ├── LedgerClosed        the caller: close() has been called
    ├── LedgerFull          the operator: the disk is below its free-space floor; nothing was written
    ├── LedgerUnavailable   the process must end and start again: a write or fsync failed, outcome unknown
    ├── LedgerLocked        the operator: another writer holds this directory
    ├── IndexUnavailable    the caller: the derived index cannot answer now; the ledger itself is not concerned
    ├── LedgerDamaged       the operator: the directory cannot be understood as a ledger
    ├── BackupRefused       the operator: the target is not, or no longer, a backup of this ledger; nothing was changed
    ├── BackupFailed        the operator: a disk refused, or did not keep what it was given; run the backup again
    └── FormatUnsupported   the operator: written by a newer version of this program

Damage inside segments raises nothing: what is readable is served, and the rest is named in `SegmentInfo.damaged`.
"""


class LedgerError(Exception):
    """Every error the ledger answers. Foreign errors (OSError) are translated once, and kept as `__cause__`."""


class QueueFull(LedgerError):
    """The bounded queue before the flusher is full. Nothing was written."""


class PartitionClosed(LedgerError):
    """Neither the day's partition nor its late partition takes records any more. Nothing was written."""


class NotDue(LedgerError):
    """The partition still takes records, until `due_at` (microseconds since the epoch). Nothing was changed."""

    def __init__(self, message: str, due_at: int) -> None:
        super().__init__(message)
        self.due_at = due_at


class NotSealed(LedgerError):
    """The partition may still take records. Nothing was changed."""


class LedgerClosed(LedgerError):
    """close() has been called. Nothing was written."""


class LedgerFull(LedgerError):
    """Too little free space left on the disk. Nothing was written; appends are taken again when space is back."""


class LedgerUnavailable(LedgerError):
    """The outcome is unknown, and the ledger acknowledges nothing more until a new process opens it."""


class LedgerLocked(LedgerError):
    """Another writer, in this process or another, holds the directory."""


class LedgerDamaged(LedgerError):
    """The directory is not a ledger that can be opened, or a name was asked for that it does not hold."""


class IndexUnavailable(LedgerError):
    """SQLite or the disk refuses for now, or index.db is being made anew. Nothing in the ledger depends on it."""


class FormatUnsupported(LedgerError):
    """A format version or a frame type that must not be skipped, unknown to this program."""


class BackupRefused(LedgerError):
    """The target directory is not, or no longer, a backup of this ledger. Nothing was changed in it."""


class BackupFailed(LedgerError):
    """What was copied so far is whole, and is kept when the backup is run again."""
