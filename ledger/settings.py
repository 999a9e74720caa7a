"""The limits of a ledger, each with the reason for its number."""

from dataclasses import dataclass

from ledger.positions import RECORD_INDEX_MAX

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class LedgerSettings:
    """ValueError when a limit makes no sense."""

    segment_bytes_max: int = 64 * MIB  # a scan after a crash reads one segment: 0.2 s
    segment_records_max: int = 65_536
    queue_records_max: int = 16_384  # a quarter of a second of full speed: more would be memory, not throughput
    queue_bytes_max: int = 64 * MIB
    idle_mark_s: float = 0.05  # the brief loss of certainty after the last batch, against one more fsync
    free_bytes_min: int = 256 * MIB  # room to copy torn tails aside and to freeze every live segment
    main_grace_s: int = 6 * 3600
    late_grace_s: int = 3 * 86_400
    segments_live_max: int = 16  # open files; four days of main and late is the usual most

    def __post_init__(self) -> None:
        at_least_one = ("segment_bytes_max", "segment_records_max", "queue_records_max", "queue_bytes_max")
        for name in (*at_least_one, "segments_live_max"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        for name in ("idle_mark_s", "free_bytes_min", "main_grace_s", "late_grace_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        if self.segment_records_max > RECORD_INDEX_MAX:
            raise ValueError(f"segment_records_max is at most {RECORD_INDEX_MAX}: a record index has 32 bits")
        if self.segment_bytes_max > 1024 * MIB:
            raise ValueError("segment_bytes_max is at most 1 GiB: the scan after a crash must end soon")
