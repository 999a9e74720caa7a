"""The nouns of the ledger: where a record is, what it holds, and what is known of segments and partitions.

A *sequence* is (segment_ordinal << 32) | record_index. Ordinals count the segments of a partition from 1, record
indexes count the records of a segment from 1. A sequence is never a count.
"""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from ledger.seal import Seal, SealState

SEGMENT_ID_UNKNOWN = bytes(16)
RECORD_INDEX_MAX = 0xFFFF_FFFF
ORDINAL_MAX = 0x7FFF_FFFF  # a sequence then fits into the signed 64 bits of SQLite and of most languages
LATE_SUFFIX = "-late"  # of the partition that takes what arrives after its day is closed

IndexRange = tuple[int, int]  # closed range of record indexes


def sequence_of(segment_ordinal: int, record_index: int) -> int:
    return segment_ordinal << 32 | record_index


class Position(NamedTuple):
    """`segment_id` is random per file: it, not a name, identifies what was written where."""

    partition: str
    segment_id: bytes
    sequence: int

    @property
    def segment_ordinal(self) -> int:
        return self.sequence >> 32

    @property
    def record_index(self) -> int:
        return self.sequence & RECORD_INDEX_MAX


class Record(NamedTuple):
    """One appended payload. Both times are microseconds since the Unix epoch, UTC."""

    position: Position
    written_at: int
    emitted_at: int
    payload: bytes


class SegmentState(Enum):
    OPEN = "open"  # its end is only known as far as the durable mark
    FROZEN = "frozen"  # nothing is appended to it any more
    DAMAGED = "damaged"  # bytes that were durable cannot be read; a live segment may be this, and still grow


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """What is durable of one segment.

    `record_count` counts every record the segment is known to have held, damaged ones included: their indexes are
    1..record_count. `byte_length` ends at the last durable frame and leaves out the FOOTER. `damaged` lists closed
    ranges of record indexes that cannot be read; damage that hit no record leaves it empty, and `state` still says so.
    """

    partition: str
    ordinal: int
    segment_id: bytes
    record_count: int
    byte_length: int
    damaged: tuple[IndexRange, ...]
    state: SegmentState


@dataclass(frozen=True, slots=True)
class PartitionInfo:
    """One UTC day of `emitted_at`, or what arrived late for it.

    `is_seal_damaged`: it is sealed, and its SEAL can no longer be read, or verify found that it does not fit the rest.
    """

    name: str
    segments: tuple[SegmentInfo, ...]
    is_late: bool
    seal: Seal | None = None
    is_seal_damaged: bool = False

    @property
    def is_sealed(self) -> bool:
        return self.seal is not None or self.is_seal_damaged

    @property
    def is_pruned(self) -> bool:
        return self.seal is not None and self.seal.state is SealState.PRUNED

    @property
    def record_count(self) -> int:
        return sum(segment.record_count for segment in self.segments)

    @property
    def highwater_sequence(self) -> int:
        """The highest sequence known to have been given to a record; 0 before the first."""
        held = [segment for segment in self.segments if segment.record_count]
        return sequence_of(held[-1].ordinal, held[-1].record_count) if held else 0

    @property
    def damaged(self) -> bool:
        return self.is_seal_damaged or any(segment.state is SegmentState.DAMAGED for segment in self.segments)


def merge_ranges(*groups: tuple[IndexRange, ...]) -> tuple[IndexRange, ...]:
    """The union of closed ranges: sorted, without overlap, neighbours joined."""
    merged: list[IndexRange] = []
    for first, last in sorted(entry for group in groups for entry in group):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)
