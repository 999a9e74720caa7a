"""What a partition's files say of themselves before any frame is read: heads, FOOTERs, and who pins whom."""

from dataclasses import dataclass, replace
from pathlib import Path

from ledger.disk import Disk
from ledger.files.bookends import Pin, SegmentFooter, pin_of_sealed
from ledger.files.head import HEAD_FOREIGN, HEAD_MISSING, Head, footer_at, footer_at_end, footer_ordinal, read_head
from ledger.files.layout import seal_path, segment_ordinals, segment_path
from ledger.positions import SEGMENT_ID_UNKNOWN, PartitionInfo, SegmentInfo, SegmentState
from ledger.routing import is_late
from ledger.seal import SEAL_BYTES_MAX, Seal, maybe_decoded

_LOST_IN_A_ROW_MAX = 1024  # 64 GiB. A file behind a longer run of missing ones must say itself which segment it is


@dataclass(frozen=True, slots=True)
class Surveyed:
    """One segment. `is_present` is False when others speak of it and its file is gone.

    `footer` is the one at the end that `pin` tells; without a pin, and without a HEADER, one that may say the id.
    """

    partition: str
    ordinal: int
    path: Path
    is_present: bool
    head: Head
    pin: Pin | None
    footer: SegmentFooter | None

    @property
    def segment_id(self) -> bytes:
        """From whoever still knows it: a HEADER copy, the pin, the FOOTER."""
        known = (self.head.header, self.pin, self.footer)
        return next((source.segment_id for source in known if source), SEGMENT_ID_UNKNOWN)

    def trusted(self) -> SegmentInfo | None:
        """Frozen segments are trusted by their FOOTER, unread, where a pin says the same and the head is whole.

        Without a pin only a walk of the frames can tell a FOOTER from a payload that holds one.
        """
        footer, pin = self.footer, self.pin
        if footer is None or pin is None or self.head.header is None or self.head.damaged:
            return None
        if (footer.record_count, footer.byte_length) != (pin.record_count, pin.byte_length):
            return None
        return SegmentInfo(
            self.partition,
            self.ordinal,
            footer.segment_id,
            footer.record_count,
            footer.byte_length,
            (),
            SegmentState.FROZEN,
        )

    def lost(self) -> SegmentInfo:
        """For a file that is gone: all that its pin says it held is damaged."""
        info = self.pruned()
        damaged = ((1, info.record_count),) if info.record_count else ()
        return replace(info, damaged=damaged, state=SegmentState.DAMAGED)

    def pruned(self) -> SegmentInfo:
        """For a file that was given up on purpose, and may still lie there: what its pin says it held."""
        count, length = (self.pin.record_count, self.pin.byte_length) if self.pin else (0, 0)
        return SegmentInfo(self.partition, self.ordinal, self.segment_id, count, length, (), SegmentState.FROZEN)


class PartitionSurvey:
    """The files of one partition. `ledger_id` tells a segment of this ledger from one that was copied in."""

    def __init__(self, disk: Disk, directory: Path, partition: str, ledger_id: str) -> None:
        self._disk = disk
        self._directory = directory
        self._partition = partition
        self._ledger_id = ledger_id
        self._next: tuple[int, Head] | None = None  # the head that was read last, for what it says of the one before it
        data = _maybe_whole(disk, seal_path(directory, partition))
        self._seal = _maybe_own(data, ledger_id, partition) if data is not None else None
        self._seal_pins = {each.ordinal: pin_of_sealed(each) for each in self._seal.segments} if self._seal else {}
        is_seal_damaged = data is not None and self._seal is None
        self._without_segments = PartitionInfo(partition, (), is_late(partition), self._seal, is_seal_damaged)

    @property
    def is_sealed(self) -> bool:
        return self._without_segments.is_sealed

    @property
    def has_intact_seal(self) -> bool:
        return self._seal is not None

    @property
    def is_pruned(self) -> bool:
        return self._without_segments.is_pruned

    def partition(self, segments: tuple[SegmentInfo, ...]) -> PartitionInfo:
        """What the SEAL says, with what became of the segments."""
        return replace(self._without_segments, segments=segments)

    def ordinals(self) -> range:
        """Those the SEAL lists. Without one, every ordinal that a file speaks of, and all below it.

        A file far beyond the others, or beyond what the SEAL lists, is a stray one.
        """
        last = max(self._seal_pins, default=0)
        if self._seal:
            return range(1, last + 1)
        for ordinal in segment_ordinals(self._disk, self._directory / self._partition):
            if ordinal - last <= _LOST_IN_A_ROW_MAX or self._is_own(ordinal):
                last = max(last, ordinal)
        return range(1, last + 1)

    def segment(self, ordinal: int) -> Surveyed:
        path = segment_path(self._directory, self._partition, ordinal)
        is_present = self._disk.exists(path)
        head = self._next[1] if self._next and self._next[0] == ordinal else self._head(ordinal)
        self._next = None
        pin = self._maybe_pin(ordinal)
        if head.header and pin and head.header.segment_id != pin.segment_id:
            head = HEAD_FOREIGN
        # Another file under this name: nothing in it is about this segment, its FOOTER neither.
        footer = self._footer(path, ordinal, head, pin) if is_present and not head.is_foreign else None
        return Surveyed(self._partition, ordinal, path, is_present, head, pin, footer)

    def _head(self, ordinal: int) -> Head:
        path = segment_path(self._directory, self._partition, ordinal)
        try:
            head = read_head(self._disk, path)
        except FileNotFoundError:
            return HEAD_MISSING
        told = head.header
        if told and (told.ledger_id, told.partition, told.ordinal) != (self._ledger_id, self._partition, ordinal):
            return HEAD_FOREIGN
        return head

    def _maybe_pin(self, ordinal: int) -> Pin | None:
        """None too when nobody knew any more what was pinned: good bytes may have been put back since."""
        pin = self._seal_pins.get(ordinal) or self._successor_pin(ordinal)
        return pin if pin and pin.segment_id != SEGMENT_ID_UNKNOWN else None

    def _successor_pin(self, ordinal: int) -> Pin | None:
        head = self._head(ordinal + 1)
        if head.header is None:
            return None
        self._next = ordinal + 1, head
        return head.header.prev if head.header.prev and head.header.prev.ordinal == ordinal else None

    def _is_own(self, ordinal: int) -> bool:
        """Whether the file itself says that it is this segment: nobody between its neighbours and it is left to ask."""
        path = segment_path(self._directory, self._partition, ordinal)
        head = self._head(ordinal)
        if head.header or head.is_foreign:
            return not head.is_foreign
        footer = footer_at_end(self._disk, path)
        return footer is not None and footer_ordinal(self._disk, path, footer) == ordinal

    def _footer(self, path: Path, ordinal: int, head: Head, pin: Pin | None) -> SegmentFooter | None:
        if pin:
            footer = footer_at(self._disk, path, pin.byte_length)
            return footer if footer and footer.segment_id == pin.segment_id else None
        if head.header:
            return None
        footer = footer_at_end(self._disk, path)
        if footer is None:  # nobody else says whose FOOTER it is, and it does not give an ordinal itself
            return None
        return footer if footer_ordinal(self._disk, path, footer) in (None, ordinal) else None


def _maybe_whole(disk: Disk, path: Path) -> bytes | None:
    try:
        return disk.read(path, 0, SEAL_BYTES_MAX + 1)
    except FileNotFoundError:
        return None


def _maybe_own(data: bytes, ledger_id: str, partition: str) -> Seal | None:
    """None when it cannot be read, or speaks of another partition than the one it lies in."""
    seal = maybe_decoded(data)
    return seal if seal and (seal.ledger_id, seal.partition) == (ledger_id, partition) else None
