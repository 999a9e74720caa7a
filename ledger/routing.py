"""Which partition a record belongs to: a pure function of (emitted_at, now, which partitions are sealed).

Main until the day's end + main_grace or its seal; late until late_grace after that or its seal; then nowhere. Whether
a directory exists changes nothing.
"""

from collections.abc import Container
from enum import Enum

from ledger.positions import LATE_SUFFIX
from ledger.settings import LedgerSettings
from ledger.times import MICROSECONDS_PER_DAY, MICROSECONDS_PER_SECOND, date_text, day_of_date


class Lateness(Enum):
    """Which partitions of a day are meant."""

    MAIN = "main"
    LATE = "late"
    BOTH = "both"

    def includes(self, partition: str) -> bool:
        return self is Lateness.BOTH or (self is Lateness.LATE) is is_late(partition)


def is_late(partition: str) -> bool:
    return partition.endswith(LATE_SUFFIX)


def span_of(partition: str) -> tuple[int, int]:
    """Its day: the first microsecond, and the first of the next day."""
    day = day_of_date(partition.removesuffix(LATE_SUFFIX))
    return day * MICROSECONDS_PER_DAY, (day + 1) * MICROSECONDS_PER_DAY


def maybe_partition(day: int, now: int, sealed: Container[str], settings: LedgerSettings) -> str | None:
    """The partition that takes records of UTC day `day` at `now` (microseconds); None when it is closed for good."""
    main = date_text(day)
    for partition in (main, main + LATE_SUFFIX):
        if now < due_at(partition, settings) and partition not in sealed:
            return partition
    return None


def due_at(partition: str, settings: LedgerSettings) -> int:
    """When a partition stops taking records, sealed or not, in microseconds since the epoch."""
    _, day_ends = span_of(partition)
    grace_s = settings.main_grace_s + (settings.late_grace_s if is_late(partition) else 0)
    return day_ends + grace_s * MICROSECONDS_PER_SECOND
