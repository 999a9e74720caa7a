"""Reading: never past the durable mark, stepping over damage and naming it. Beside the writer, in any process."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from ledger.bookends import SPARSE_STEP
from ledger.disk import Disk
from ledger.file_view import FileView
from ledger.format import TYPE_RECORD, seed_of
from ledger.head import footer_at, read_head
from ledger.layout import read_ledger_id, segment_path, torn_paths
from ledger.positions import (
    SEGMENT_ID_UNKNOWN,
    IndexRange,
    PartitionInfo,
    Position,
    Record,
    SegmentInfo,
    SegmentState,
    merge_ranges,
)
from ledger.scan import Frame, Gap, Walk
from ledger.source import Source

_DEFAULT_DISK = Disk()
_STRIDE_RECORDS = 1024
_STRIDE_BYTES = 1024 * 1024
_SKIP_RECORDS_MAX = 1024  # a cursor of its own may have to walk the segment from its start


class View(Protocol):
    """Who knows how far each segment is durable: the writer's memory, or the files. KeyError for what is not there."""

    def partitions(self) -> list[PartitionInfo]: ...

    def partition(self, name: str) -> PartitionInfo: ...

    def segment(self, partition: str, ordinal: int) -> SegmentInfo: ...

    def note_damage(self, partition: str, ordinal: int, damaged: tuple[IndexRange, ...]) -> None: ...


class SegmentCursor:
    """A place in one segment. Following a live segment costs what is new in it; nothing is held open in between."""

    def __init__(self, view: View, disk: Disk, path: Path, info: SegmentInfo, from_index: int) -> None:
        self._view = view
        self._partition = info.partition
        self._ordinal = info.ordinal
        self._segment_id = info.segment_id
        self._from_index = from_index
        self._held: Record | None = None
        self._walk: Walk | None = None
        self._expected = 1
        self.damaged: tuple[IndexRange, ...] = ()
        if info.segment_id != SEGMENT_ID_UNKNOWN:
            self._walk = self._begin(disk, path, info)

    @property
    def next_index(self) -> int:
        """The index of the first record that read() has neither returned nor named as damaged."""
        if self._held:
            return self._held.position.record_index
        return max(self._expected, self._from_index)

    def skip_to(self, index: int) -> bool:
        """Goes forward to a record that is not far; False, and nothing is changed, when another cursor is cheaper."""
        if not 0 <= index - self.next_index <= _SKIP_RECORDS_MAX:
            return False
        if index > self.next_index:
            self._held = None
            self._from_index = index
        return True

    def read(self, records_max: int, bytes_max: int) -> list[Record]:
        """The next records, in order, with at most `bytes_max` payload bytes (but never none for that reason).

        [] means: nothing more is durable now; nothing more will come once the next ordinal existed before the call.
        What is damaged is passed over and added to `damaged`, and the view is told.
        """
        info = self._view.segment(self._partition, self._ordinal)
        taken: list[Record] = []
        size = 0
        while len(taken) < records_max and (record := self._held or self._next(info)):
            self._held = record
            size += len(record.payload)
            if taken and size > bytes_max:
                break
            taken.append(record)
            self._held = None
        return taken

    def _begin(self, disk: Disk, path: Path, info: SegmentInfo) -> Walk | None:
        source = Source(disk, path)
        seed = seed_of(info.segment_id)
        try:
            if info.state is not SegmentState.OPEN and self._from_index > SPARSE_STEP:
                footer = footer_at(disk, path, info.byte_length)
                if footer and (found := footer.seek(self._from_index)):
                    self._expected, offset = found
                    return Walk(source, seed, info.ordinal, offset, self._expected - 1)
            head = read_head(disk, path)
        except FileNotFoundError:
            return None
        if head.damaged:
            self._note(())
        return Walk(source, seed, info.ordinal, head.end)

    def _next(self, info: SegmentInfo) -> Record | None:
        while met := self._step(info):
            if not isinstance(met, Frame):
                self._note(())
            elif met.header.kind == TYPE_RECORD:
                self._pass_to(met.record_index)
                self._expected = met.record_index + 1
                if met.record_index >= self._from_index:
                    return self._record(met)
        self._pass_to(info.record_count + 1)
        return None

    def _step(self, info: SegmentInfo) -> Frame | Gap | None:
        try:
            return self._walk.step(info.byte_length) if self._walk else None
        except FileNotFoundError:
            return None

    def _pass_to(self, index: int) -> None:
        """Every index from the expected one up to here, exclusive, is known to have existed and cannot be read."""
        if index > self._expected:
            self._note(((self._expected, index - 1),))
            self._expected = index

    def _note(self, damaged: tuple[IndexRange, ...]) -> None:
        self.damaged = merge_ranges(self.damaged, damaged)
        self._view.note_damage(self._partition, self._ordinal, damaged)

    def _record(self, frame: Frame) -> Record:
        header = frame.header
        position = Position(self._partition, self._segment_id, header.sequence)
        return Record(position, header.written_at, header.emitted_at, frame.payload)


class LedgerReader:
    """Of a directory, from another process than the writer's; the writer's own comes from Ledger.reader().

    Tolerates segments appearing, growing and rolling over while it reads. LedgerDamaged or FormatUnsupported when the
    directory is no ledger that can be understood.
    """

    def __init__(self, directory: Path, *, view: View | None = None, disk: Disk = _DEFAULT_DISK) -> None:
        self.ledger_id = read_ledger_id(disk, directory)
        self._directory = directory
        self._disk = disk
        self._view = view or FileView(directory, self.ledger_id, disk)

    def partitions(self) -> list[PartitionInfo]:
        """The durable view of every partition, by name."""
        return self._view.partitions()

    def partition(self, name: str) -> PartitionInfo:
        """The durable view of one partition. KeyError when there is none of that name."""
        return self._view.partition(name)

    def torn_files(self) -> list[Path]:
        """Tails that recovery copied aside: bytes that were never acknowledged, kept for whoever wants to look."""
        return torn_paths(self._disk, self._directory)

    def segment_cursor(self, partition: str, ordinal: int, from_index: int = 1) -> SegmentCursor:
        """A cursor at record `from_index`, which may not exist yet. KeyError when there is no such segment."""
        info = self._view.segment(partition, ordinal)
        path = segment_path(self._directory, partition, ordinal)
        return SegmentCursor(self._view, self._disk, path, info, from_index)

    def records(self, partition: str, *, from_sequence: int = 0) -> Iterator[Record]:
        """Every readable record from `from_sequence` on, up to the durable mark as it is when the iterator gets there.

        KeyError when there is no such partition.
        """
        self._view.partition(partition)
        ordinal, index = max(from_sequence >> 32, 1), max(from_sequence & 0xFFFF_FFFF, 1)
        while self._exists(partition, ordinal):
            yield from self._segment_records(partition, ordinal, index)
            ordinal, index = ordinal + 1, 1

    def ranges(self, partition: str, ordinal: int, ranges: Sequence[IndexRange]) -> Iterator[Record]:
        """The readable records whose indexes lie in the closed `ranges`. KeyError when there is no such segment."""
        cursor: SegmentCursor | None = None
        for first, last in merge_ranges(tuple(ranges)):
            if cursor is None or not cursor.skip_to(first):
                cursor = self.segment_cursor(partition, ordinal, first)
            while batch := cursor.read(min(_STRIDE_RECORDS, last - cursor.next_index + 1), _STRIDE_BYTES):
                yield from (record for record in batch if record.position.record_index <= last)

    def _segment_records(self, partition: str, ordinal: int, from_index: int) -> Iterator[Record]:
        cursor = self.segment_cursor(partition, ordinal, from_index)
        while True:
            # Asked before reading: a segment is complete before its successor appears.
            is_complete = self._exists(partition, ordinal + 1)
            batch = cursor.read(_STRIDE_RECORDS, _STRIDE_BYTES)
            yield from batch
            if not batch and (is_complete or not self._exists(partition, ordinal + 1)):
                return

    def _exists(self, partition: str, ordinal: int) -> bool:
        try:
            self._view.segment(partition, ordinal)
        except KeyError:
            return False
        return True
