"""How far each segment is indexed, and what that says of the index as a whole. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ledger.positions import SEGMENT_ID_UNKNOWN, IndexRange, PartitionInfo, SegmentInfo

Place = tuple[str, int]  # partition, segment ordinal


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one segment is indexed. What is damaged counts as indexed: it is passed over until it is restored."""

    segment_id: bytes
    indexed_count: int = 0
    passed_over_count: int = 0
    damaged_count: int = 0
    is_pruned: int = 0  # as SQLite knows it: 0 or 1


def is_covered(done: Progress | None, info: PartitionInfo, segment: SegmentInfo) -> bool:
    if info.is_pruned:
        return done is not None and bool(done.is_pruned)
    return segment.record_count == 0 or (done is not None and done.indexed_count >= segment.record_count)


def reconsidered(progress: Mapping[Place, Progress], infos: Sequence[PartitionInfo]) -> dict[Place, Progress]:
    """Forgets how far a segment is indexed of which fewer records are damaged now than could not be read then."""
    damaged = {(info.name, segment.ordinal): segment.damaged for info in infos for segment in info.segments}
    return {
        place: Progress(done.segment_id) if done.damaged_count > count_of(damaged[place], done.indexed_count) else done
        for place, done in progress.items()
    }


def count_of(damaged: Sequence[IndexRange], last_index: int) -> int:
    """How many of the records up to `last_index` are in these ranges."""
    return sum(min(last, last_index) - first + 1 for first, last in damaged if first <= last_index)


def contradiction(progress: Mapping[Place, Progress], infos: Sequence[PartitionInfo]) -> str:
    """Why this cannot be the index of that ledger; "" when it can."""
    held = {(info.name, segment.ordinal): (info, segment) for info in infos for segment in info.segments}
    for place, done in progress.items():
        if place not in held:
            return f"it knows a segment that the ledger does not have: {place}"
        info, segment = held[place]
        if segment.segment_id not in (done.segment_id, SEGMENT_ID_UNKNOWN):
            return f"another segment has come into the place of one it knows: {place}"
        if done.indexed_count > segment.record_count or (done.is_pruned and not info.is_pruned):
            return f"it claims more than the ledger has: {place}"
    return ""
