"""A place in one segment, from which its records are read in order."""

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ledger.disk import Disk
from ledger.files.bookends import SPARSE_STEP
from ledger.files.head import footer_at, read_head
from ledger.files.scan import Frame, Gap, Walk
from ledger.files.source import Source
from ledger.format import TYPE_RECORD, WholeRecord, seed_of
from ledger.positions import (
    RECORD_INDEX_MAX,
    SEGMENT_ID_UNKNOWN,
    IndexRange,
    PartitionInfo,
    Position,
    Record,
    SegmentInfo,
    SegmentState,
    merge_ranges,
    sequence_of,
)

_SKIP_RECORDS_MAX = 1024  # a cursor of its own may have to walk the segment from its start


class View(Protocol):
    """Who knows how far each segment is durable: the writer's memory, or the files. KeyError for what is not there."""

    def partitions(self) -> list[PartitionInfo]: ...

    def partition(self, name: str) -> PartitionInfo: ...

    def segment(self, partition: str, ordinal: int) -> SegmentInfo: ...

    def maybe_offset(self, partition: str, ordinal: int, index: int) -> tuple[int, int] | None:
        """(index, offset) of a record at or before `index`, where that is known without reading."""

    def note_damage(self, partition: str, ordinal: int, damaged: tuple[IndexRange, ...]) -> None: ...


class SegmentCursor:
    """A place in one segment. Following a live segment costs what is new in it; no file is held open in between."""

    def __init__(self, view: View, disk: Disk, path: Path, info: SegmentInfo, from_index: int) -> None:
        self._view = view
        self._info = info
        self._from_index = from_index
        self._ready: deque[Record] = deque()  # walked past already
        self._expected = 1
        self._untold: list[IndexRange] | None = None  # damage that the view is told of when read() ends
        self.is_away = False  # the file was not there: maybe for now, what nobody else calls damage is none
        self._walk = None if info.segment_id == SEGMENT_ID_UNKNOWN else self._begin(disk, path, info)

    @property
    def next_index(self) -> int:
        """The index of the first record that read() has neither returned nor named as damaged."""
        return self._ready[0].position.record_index if self._ready else max(self._expected, self._from_index)

    def skip_to(self, index: int) -> bool:
        """Goes forward to a record that is not far; False, and nothing is changed, when another cursor is cheaper."""
        if not 0 <= index - self.next_index <= _SKIP_RECORDS_MAX:
            return False
        self._from_index = index
        while self._ready and self._ready[0].position.record_index < index:
            self._ready.popleft()
        return True

    def read(self, records_max: int, bytes_max: int) -> list[Record]:
        """The next records, in order, with at most `bytes_max` payload bytes (but never none for that reason).

        [] means: nothing more is durable now; nothing more will come once the next ordinal existed before the call.
        What is damaged is passed over, and the view is told of it. What is away is passed over too.
        """
        if self._info.state is not SegmentState.FROZEN:
            self._info = self._view.segment(self._info.partition, self._info.ordinal)
        taken: list[Record] = []
        size = 0
        try:
            while len(taken) < records_max and (self._ready or self._fill()):
                size += len(self._ready[0].payload)
                if taken and size > bytes_max:
                    break
                taken.append(self._ready.popleft())
        finally:
            self._tell()
        return taken

    def _begin(self, disk: Disk, path: Path, info: SegmentInfo) -> Walk | None:
        source = Source(disk, path)
        seed = seed_of(info.segment_id)
        try:
            if self._from_index > SPARSE_STEP and (found := self._maybe_near(disk, path, info)):
                self._expected, offset = found
                return Walk(source, seed, info.ordinal, offset, self._expected - 1)
            head = read_head(disk, path)
        except FileNotFoundError:
            self.is_away = True
            return None
        if head.damaged:
            self._untold = []
        return Walk(source, seed, info.ordinal, head.end)

    def _maybe_near(self, disk: Disk, path: Path, info: SegmentInfo) -> tuple[int, int] | None:
        """(index, offset) of a record to begin at that is nearer than the first."""
        if info.state is not SegmentState.OPEN and (footer := footer_at(disk, path, info.byte_length)):
            return footer.seek(self._from_index)
        return self._view.maybe_offset(info.partition, info.ordinal, self._from_index)

    def _fill(self) -> bool:
        """Goes on to the next records. False when there are none: then all that is missing has been named."""
        while not self._ready and (met := self._next()):
            if isinstance(met, Gap):
                self._untold = self._untold or []
            elif not isinstance(met, Frame):
                self._take(met)
            elif met.header.kind == TYPE_RECORD:
                self._take([met.record])
        if not self._ready:
            self._pass_to(self._info.record_count + 1)
        return bool(self._ready)

    def _next(self) -> list[WholeRecord] | Frame | Gap | None:
        end = self._info.byte_length
        try:
            return (self._walk.records(end) or self._walk.step(end)) if self._walk else None
        except FileNotFoundError:
            self.is_away = True
            return None

    def _take(self, records: Sequence[WholeRecord]) -> None:
        """Records whose indexes follow one another."""
        first, last = records[0][1], records[-1][1]
        self._pass_to(first & RECORD_INDEX_MAX)
        self._expected = (last & RECORD_INDEX_MAX) + 1
        partition, segment_id = self._info.partition, self._info.segment_id
        wanted = sequence_of(self._info.ordinal, self._from_index)
        self._ready.extend(
            [
                Record(Position(partition, segment_id, sequence), written_at, emitted_at, payload)
                for _, sequence, _, written_at, emitted_at, payload in records
                if sequence >= wanted
            ]
        )

    def _pass_to(self, index: int) -> None:
        """Every index from the expected one up to here, exclusive, is known to have existed and cannot be read."""
        if index > self._expected and not self.is_away:
            self._untold = self._untold or []
            self._untold.append((self._expected, index - 1))
        self._expected = max(index, self._expected)

    def _tell(self) -> None:
        """Once per read(): scattered damage is told in one go, not record by record."""
        if self._untold is not None:
            self._view.note_damage(self._info.partition, self._info.ordinal, merge_ranges(tuple(self._untold)))
            self._untold = None
