"""Which partition a record belongs to: a pure function of (emitted_at, now, which partitions are sealed).

Main until the day's end + main_grace or its seal; late until late_grace after that or its seal; then nowhere. Whether
a directory exists changes nothing.
"""

from collections.abc import Container

from ledger.positions import LATE_SUFFIX
from ledger.settings import LedgerSettings
from ledger.times import MICROSECONDS_PER_DAY, MICROSECONDS_PER_SECOND, date_text, day_of_date


def is_late(partition: str) -> bool:
    return partition.endswith(LATE_SUFFIX)


def maybe_partition(day: int, now: int, sealed: Container[str], settings: LedgerSettings) -> str | None:
    """The partition that takes records of UTC day `day` at `now` (microseconds); None when it is closed for good."""
    main = date_text(day)
    for partition in (main, main + LATE_SUFFIX):
        if now < due_at(partition, settings) and partition not in sealed:
            return partition
    return None


def due_at(partition: str, settings: LedgerSettings) -> int:
    """When a partition stops taking records, sealed or not, in microseconds since the epoch."""
    day = day_of_date(partition.removesuffix(LATE_SUFFIX))
    grace_s = settings.main_grace_s + (settings.late_grace_s if is_late(partition) else 0)
    return (day + 1) * MICROSECONDS_PER_DAY + grace_s * MICROSECONDS_PER_SECOND
