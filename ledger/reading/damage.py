"""What reading has found to be damaged, kept beside what FOOTERs and frames say."""

from dataclasses import replace
from threading import Lock

from ledger.positions import IndexRange, PartitionInfo, SegmentInfo, SegmentState, merge_ranges


class DamageNotes:
    """Damage that reading found in segments which were trusted by their FOOTER. Any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._notes: dict[tuple[str, int], tuple[IndexRange, ...]] = {}

    def add(self, partition: str, ordinal: int, damaged: tuple[IndexRange, ...]) -> None:
        """`damaged` as merge_ranges() gives it; empty: bytes were hit, but no record. `ordinal` 0 is the SEAL."""
        with self._lock:
            known = self._notes.get((partition, ordinal), ())
            # Readers come upon damage in the order of the records: mostly it goes behind what is known.
            is_behind = bool(known and damaged) and damaged[0][0] > known[-1][1] + 1
            self._notes[partition, ordinal] = known + damaged if is_behind else merge_ranges(known, damaged)

    def applied_to(self, info: SegmentInfo) -> SegmentInfo:
        noted = self._notes.get((info.partition, info.ordinal))
        if noted is None:
            return info
        damaged = merge_ranges(info.damaged, noted) if info.damaged else noted
        return replace(info, damaged=damaged, state=SegmentState.DAMAGED)

    def applied_to_seal(self, info: PartitionInfo) -> PartitionInfo:
        return replace(info, is_seal_damaged=True) if (info.name, 0) in self._notes else info
