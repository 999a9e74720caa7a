"""What a partition's files say of themselves before any frame is read: heads, FOOTERs, and who pins whom."""

from dataclasses import dataclass, replace
from pathlib import Path

from ledger.bookends import Pin, SegmentFooter
from ledger.disk import Disk
from ledger.head import HEAD_FOREIGN, HEAD_MISSING, Head, footer_at, footer_at_end, read_head
from ledger.layout import maybe_seal, seal_pins, segment_ordinals, segment_path
from ledger.positions import SEGMENT_ID_UNKNOWN, SegmentInfo, SegmentState


@dataclass(frozen=True, slots=True)
class Surveyed:
    """One segment. `is_present` is False when others speak of it and its file is gone."""

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
        """Frozen segments are trusted by their FOOTER, unread, when head and pin have nothing against it."""
        footer = self.footer
        if footer is None or self.head.header is None or self.head.damaged:
            return None
        if self.pin and (footer.record_count, footer.byte_length) != (self.pin.record_count, self.pin.byte_length):
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
        """For a file that was given up on purpose: what its pin says it held."""
        count, length = (self.pin.record_count, self.pin.byte_length) if self.pin else (0, 0)
        return SegmentInfo(self.partition, self.ordinal, self.segment_id, count, length, (), SegmentState.FROZEN)


class PartitionSurvey:
    """The files of one partition. `ledger_id` tells a segment of this ledger from one that was copied in."""

    def __init__(self, disk: Disk, directory: Path, partition: str, ledger_id: str) -> None:
        self._disk = disk
        self._directory = directory
        self._partition = partition
        self._ledger_id = ledger_id
        seal = maybe_seal(disk, directory / partition)
        self.is_sealed = seal is not None
        self.is_pruned = seal is not None and seal.get("state") == "PRUNED"
        self._seal_pins = seal_pins(seal)

    def ordinals(self) -> range:
        """Every ordinal that a file or the SEAL speaks of, and all below it."""
        present = segment_ordinals(self._disk, self._directory / self._partition)
        return range(1, max((*present, *self._seal_pins), default=0) + 1)

    def segment(self, ordinal: int) -> Surveyed:
        path = segment_path(self._directory, self._partition, ordinal)
        is_present = self._disk.exists(path)
        head = self._head(ordinal)
        pin = self._seal_pins.get(ordinal) or self._successor_pin(ordinal)
        if head.header and pin and head.header.segment_id != pin.segment_id:
            head = HEAD_FOREIGN
        # Another file under this name: nothing in it is about this segment, its FOOTER neither.
        footer = self._footer(path, head, pin) if is_present and not head.is_foreign else None
        return Surveyed(self._partition, ordinal, path, is_present, head, pin, footer)

    def _head(self, ordinal: int) -> Head:
        path = segment_path(self._directory, self._partition, ordinal)
        if not self._disk.exists(path):
            return HEAD_MISSING
        head = read_head(self._disk, path)
        told = head.header
        if told and (told.ledger_id, told.partition, told.ordinal) != (self._ledger_id, self._partition, ordinal):
            return HEAD_FOREIGN
        return head

    def _successor_pin(self, ordinal: int) -> Pin | None:
        header = self._head(ordinal + 1).header
        return header.prev if header and header.prev and header.prev.ordinal == ordinal else None

    def _footer(self, path: Path, head: Head, pin: Pin | None) -> SegmentFooter | None:
        footer = footer_at(self._disk, path, pin.byte_length) if pin else footer_at_end(self._disk, path)
        expected = next((source.segment_id for source in (head.header, pin) if source), None)
        return footer if footer and expected in (None, footer.segment_id) else None
