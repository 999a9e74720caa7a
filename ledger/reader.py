"""Reading: never past the durable mark, stepping over damage and naming it. Beside the writer, in any process."""

from collections.abc import Generator, Iterator, Sequence
from itertools import count
from pathlib import Path

from ledger.checking.verify import Damage, Progress, Verified, verify_chain, verify_partition
from ledger.disk import Disk
from ledger.files.head import footer_at
from ledger.files.layout import has_partition, partition_names, read_ledger_id, segment_path, torn_paths
from ledger.positions import (
    RECORD_INDEX_MAX,
    IndexRange,
    PartitionInfo,
    Record,
    SegmentInfo,
    SegmentState,
    merge_ranges,
    sequence_of,
)
from ledger.reading.cursor import SegmentCursor, View
from ledger.reading.file_view import FileView
from ledger.routing import Lateness, span_of

_DEFAULT_DISK = Disk()
_STRIDE_RECORDS = 1024
_STRIDE_BYTES = 1024 * 1024
_FIRST_SEQUENCE = sequence_of(1, 1)


class LedgerReader:
    """Of a directory, from another process than the writer's; the writer's own comes from Ledger.reader().

    Tolerates segments appearing, growing and rolling over while it reads. LedgerDamaged or FormatUnsupported when the
    directory is no ledger that can be understood.
    """

    def __init__(
        self, directory: Path, *, view: View | None = None, disk: Disk = _DEFAULT_DISK, ledger_id: str = ""
    ) -> None:
        """`ledger_id` is read from the directory unless it is given."""
        self.ledger_id = ledger_id or read_ledger_id(disk, directory)
        self.directory = directory
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
        return torn_paths(self._disk, self.directory)

    def note_damage(self, partition: str, ordinal: int, damaged: tuple[IndexRange, ...]) -> None:
        """Tells the view what was found elsewhere; `ordinal` 0 is the SEAL. partition() says so from then on."""
        self._view.note_damage(partition, ordinal, damaged)

    def verify(self, partition: str) -> Iterator[Progress | Damage | Verified]:
        """Re-reads every byte of one partition; what is found damaged is told, and partition() says so from then on.

        Ends with Verified. KeyError at once when there is no such partition; OSError when the disk refuses to read.
        """
        return verify_partition(self._view, self._disk, self.directory, self.ledger_id, partition)

    def verify_chain(self) -> Iterator[Damage]:
        """Re-reads all SEALs: whether they are numbered 1, 2, 3 … and each names the one before it."""
        return verify_chain(self._view, self._disk, self.directory, self.ledger_id)

    def segment_cursor(self, partition: str, ordinal: int, from_index: int = 1) -> SegmentCursor:
        """A cursor at record `from_index`, which may not exist yet. KeyError when there is no such segment."""
        info = self._view.segment(partition, ordinal)
        path = segment_path(self.directory, partition, ordinal)
        return SegmentCursor(self._view, self._disk, path, info, from_index)

    def records(self, partition: str, *, from_sequence: int = 0) -> Iterator[Record]:
        """Every readable record from `from_sequence` on, up to the durable mark as it is when the iterator gets there.

        KeyError when there is no such partition.
        """
        if not has_partition(self._disk, self.directory, partition):
            raise KeyError(partition)
        first = max(from_sequence, _FIRST_SEQUENCE)
        ordinal, index = first >> 32, max(first & RECORD_INDEX_MAX, 1)
        while self._maybe_segment(partition, ordinal):
            if not (yield from self._segment_records(partition, ordinal, index)):
                return
            ordinal, index = ordinal + 1, 1

    def emitted(self, first: int, before: int, lateness: Lateness) -> Iterator[Record]:
        """The readable records with first <= emitted_at < before, in microseconds: by day, main before late.

        Within a partition in the order of their sequences. Segments whose FOOTER excludes them are not read.
        """
        for partition in partition_names(self._disk, self.directory):
            day_begins, day_ends = span_of(partition)
            if lateness.includes(partition) and first < day_ends and day_begins < before:
                for record in self._partition_emitted(partition, first, before):
                    if first <= record.emitted_at < before:
                        yield record

    def ranges(self, partition: str, ordinal: int, ranges: Sequence[IndexRange]) -> Iterator[Record]:
        """The readable records whose indexes lie in the closed `ranges`. KeyError when there is no such segment."""
        cursor: SegmentCursor | None = None
        for first, last in merge_ranges(tuple(ranges)):
            if cursor is None or not cursor.skip_to(first):
                cursor = self.segment_cursor(partition, ordinal, first)
            while batch := cursor.read(min(_STRIDE_RECORDS, last - cursor.next_index + 1), _STRIDE_BYTES):
                yield from (record for record in batch if record.position.record_index <= last)

    def _partition_emitted(self, partition: str, first: int, before: int) -> Iterator[Record]:
        for ordinal in count(1):
            info = self._maybe_segment(partition, ordinal)
            if info is None:
                return
            if self._may_hold_emitted(info, first, before) and not (
                yield from self._segment_records(partition, ordinal, 1)
            ):
                return

    def _may_hold_emitted(self, info: SegmentInfo, first: int, before: int) -> bool:
        """Only a FOOTER can exclude it."""
        if info.state is SegmentState.OPEN:
            return True
        path = segment_path(self.directory, info.partition, info.ordinal)
        footer = footer_at(self._disk, path, info.byte_length) if self._disk.exists(path) else None
        if footer is None or footer.segment_id != info.segment_id:
            return True
        low, high = footer.emitted_at_min, footer.emitted_at_max
        return low is not None and high is not None and low < before and first <= high

    def _segment_records(self, partition: str, ordinal: int, from_index: int) -> Generator[Record, None, bool]:
        """Whether it was complete when its end was reached. What came into it later is left out, and so must be what
        came behind it."""
        cursor = self.segment_cursor(partition, ordinal, from_index)
        is_complete = False
        while True:
            # Asked before reading: a segment is complete before its successor appears.
            is_complete = is_complete or self._maybe_segment(partition, ordinal + 1) is not None
            batch = cursor.read(_STRIDE_RECORDS, _STRIDE_BYTES)
            yield from batch
            if not batch and (is_complete or self._maybe_segment(partition, ordinal + 1) is None):
                return is_complete

    def _maybe_segment(self, partition: str, ordinal: int) -> SegmentInfo | None:
        try:
            return self._view.segment(partition, ordinal)
        except KeyError:
            return None
