"""From bytes to frames and gaps. Decides nothing: what a gap means is for recovery and for the reader.

A frame header carries its own CRC, so its length can be trusted: a damaged payload costs exactly one record. Behind a
damaged header the walk goes on in steps of 8 bytes to the next header whose seeded CRC, ascending sequence and
durable_offset all hold.

Records are only missing where bytes are: each has taken up a header at least. So whatever claims that more of them are
missing than the bad bytes before it can have held is not in its place, a block that was written to the wrong one or a
frame within a payload, and is bad bytes itself. Believed, it would hide the records behind it, whose indexes are lower.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from ledger.errors import FormatUnsupported
from ledger.files.bookends import RecordSummary, SegmentFooter, footer_remnants, maybe_footer, maybe_mark
from ledger.files.source import Source
from ledger.format import (
    ALIGNMENT,
    HEADER_BYTES,
    TYPE_COMMIT_MARK,
    TYPE_FOOTER,
    TYPE_RECORD,
    TYPES_CRITICAL,
    TYPES_KNOWN,
    FrameHeader,
    WholeRecord,
    frame_bytes,
    maybe_header,
    maybe_payload,
    seed_of,
    whole_records,
)
from ledger.positions import RECORD_INDEX_MAX, IndexRange, sequence_of

_TYPE_AT = 4  # where the type byte lies in a header
_KNOWN = re.compile(b"[" + re.escape(TYPES_KNOWN) + b"]")
_RESYNC_WINDOW = 1024 * 1024
_REMNANT_BYTES = 256 * 1024  # a FOOTER of 65,536 records is about 5 KiB
_RECORDS_AT_ONCE = 256  # about one window of 1 KiB records


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame with nothing wrong. `record_index` is 0 unless it is a RECORD."""

    offset: int
    header: FrameHeader
    payload: bytes

    @property
    def end(self) -> int:
        return self.offset + self.header.frame_bytes

    @property
    def record_index(self) -> int:
        return self.header.sequence & RECORD_INDEX_MAX

    @property
    def record(self) -> WholeRecord:
        header = self.header
        times = (header.written_at, header.emitted_at)
        return (self.offset, header.sequence, header.durable_offset, *times, self.payload)


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes that are no whole frame. `header` is there when only the payload is bad: then it names what it held."""

    offset: int
    end: int
    header: FrameHeader | None


@dataclass(frozen=True, slots=True)
class Remnant:
    """What a damaged FOOTER still proves: it is only written when the `byte_length` bytes before it are durable.

    `record_count` is as good as the bytes that say it, which no CRC covers any more; None when they are gone too.
    """

    byte_length: int
    record_count: int | None


class Walk:
    """Steps through the frames of one segment, from `offset` (a frame boundary) with `last_index` records behind it.

    `bad_bytes` is how many there are since the last known record: each HEADER_BYTES of them may have been one.
    """

    def __init__(
        self, source: Source, seed: int, ordinal: int, offset: int, last_index: int = 0, bad_bytes: int = 0
    ) -> None:
        self._source = source
        self._seed = seed
        self._ordinal = ordinal
        self.offset = offset
        self.last_index = last_index
        self.bad_bytes = bad_bytes

    def records(self, end: int) -> list[WholeRecord]:
        """The records that follow here without a gap, whole, before `end`: some of them, or none.

        None means that something else is next, which step() will tell. It would tell the same of these, one by one.
        """
        if self.offset + HEADER_BYTES > end:
            return []
        data, start = self._source.at(self.offset, HEADER_BYTES, end)
        offset = self.offset - start
        last = min(self.last_index + _RECORDS_AT_ONCE, RECORD_INDEX_MAX)
        expected = range(sequence_of(self._ordinal, self.last_index) + 1, sequence_of(self._ordinal, last) + 1)
        found = whole_records(data, start, min(len(data), end - offset), offset, self._seed, expected)
        if found:
            last_offset, *_, last_payload = found[-1]
            self.offset = last_offset + frame_bytes(len(last_payload))
            self.last_index += len(found)
            self.bad_bytes = 0
        return found

    def step(self, end: int) -> Frame | Gap | None:
        """What comes next before `end`; None there. FormatUnsupported for a frame that must not be skipped."""
        offset = self.offset
        if offset >= end:
            return None
        header = self._maybe_header_at(offset, end)
        if header is None:
            self.offset = self._resync(offset + ALIGNMENT, end)
            self.bad_bytes += self.offset - offset
            return Gap(offset, self.offset, None)
        return self._frame(offset, header, end)

    def maybe_remnant(self, gap: Gap, end: int) -> Remnant | None:
        """Of the FOOTER of this segment, when the gap that ends the file has been one, or it begins in there."""
        if gap.end < end or (gap.header and gap.header.kind != TYPE_FOOTER):
            return None
        if gap.header and gap.end < gap.offset + gap.header.frame_bytes:
            return None  # cut off: its writer may be about to write the rest
        base = max(gap.offset, end - _REMNANT_BYTES)
        data, start = self._source.at(base, end - base, end)
        for segment_id, record_count, byte_length in footer_remnants(data[start:], base):
            if seed_of(segment_id) == self._seed:
                return Remnant(byte_length, record_count)
        return Remnant(gap.offset, None) if gap.header else None

    def _frame(self, offset: int, header: FrameHeader, end: int) -> Frame | Gap:
        if header.kind >= TYPES_CRITICAL and header.kind not in TYPES_KNOWN:
            raise FormatUnsupported(f"frame type {header.kind:#04x} at offset {offset} must not be skipped")
        size = header.frame_bytes
        self.offset = min(offset + size, end)
        if header.kind == TYPE_RECORD:
            self.last_index = header.sequence & RECORD_INDEX_MAX
            self.bad_bytes = 0
        data, start = self._source.at(offset, size, end)
        payload = maybe_payload(data, start, header) if offset + size <= end else None
        if payload is None:
            return Gap(offset, self.offset, header)
        return Frame(offset, header, payload)

    def _maybe_header_at(self, offset: int, end: int) -> FrameHeader | None:
        if offset + HEADER_BYTES > end:
            return None
        data, start = self._source.at(offset, HEADER_BYTES, end)
        header = maybe_header(data, start, offset, self._seed)
        return header if header and self._is_next(header, offset, end) else None

    def _is_next(self, header: FrameHeader, offset: int, end: int) -> bool:
        highest = self.last_index + (self.bad_bytes + offset - self.offset) // HEADER_BYTES  # that may lie before it
        if header.kind == TYPE_RECORD:
            index = header.sequence & RECORD_INDEX_MAX
            return header.sequence >> 32 == self._ordinal and self.last_index < index <= highest + 1
        if header.kind == TYPE_COMMIT_MARK and (self._maybe_count(header, offset, end) or 0) > highest:
            return False
        return header.sequence == 0

    def _maybe_count(self, mark: FrameHeader, offset: int, end: int) -> int | None:
        data, start = self._source.at(offset, mark.frame_bytes, end)
        payload = maybe_payload(data, start, mark)
        return None if payload is None else maybe_mark(payload)

    def _resync(self, offset: int, end: int) -> int:
        while offset + HEADER_BYTES <= end:
            size = min(_RESYNC_WINDOW, end - offset)
            data, start = self._source.at(offset, size, end)
            types = data[start + _TYPE_AT : start + size : ALIGNMENT]
            for match in _KNOWN.finditer(types):
                candidate = offset + match.start() * ALIGNMENT
                if self._maybe_header_at(candidate, end):
                    return candidate
            if not types:  # the file is shorter than it should be
                return end
            offset += len(types) * ALIGNMENT
        return end


@dataclass(slots=True)
class Scan:
    """Everything a segment's frames say, up to the end that was scanned.

    `known_count` is the highest record index that any trusted header or COMMIT_MARK vouches for, `missing` those below
    it that no whole frame holds. `served` is the last whole record, `summary` covers those before the first gap.
    """

    end: int
    known_count: int
    gaps: list[tuple[int, int, int]] = field(default_factory=list)  # (offset, end, known_count at the offset)
    missing: list[IndexRange] = field(default_factory=list)
    durable_offset: int = 0
    footer: SegmentFooter | None = None
    remnant: Remnant | None = None
    summary: RecordSummary = field(default_factory=RecordSummary)
    served: int = 0

    def add(self, met: Frame | Gap) -> None:
        if isinstance(met, Gap):
            self._add_gap(met)
        elif met.header.kind == TYPE_RECORD:
            self.add_records([met.record])
        else:
            self._add_other(met)

    def missing_up_to(self, record_count: int) -> tuple[IndexRange, ...]:
        """Closed ranges of the record indexes 1..record_count that no whole frame holds."""
        held = [(first, min(last, record_count)) for first, last in self.missing if first <= record_count]
        if self.served < record_count:
            held.append((self.served + 1, record_count))
        return tuple(held)

    def add_records(self, records: Sequence[WholeRecord]) -> None:
        """Records whose indexes follow one another."""
        first_offset, first_sequence, *_ = records[0]
        self._note_missing_before(first_sequence & RECORD_INDEX_MAX, first_offset)
        self.served = records[-1][1] & RECORD_INDEX_MAX
        self.known_count = max(self.known_count, self.served)
        self.durable_offset = max(self.durable_offset, max([durable for _, _, durable, _, _, _ in records]))
        if not self.gaps:
            self.summary.add([record[0] for record in records], [record[4] for record in records])

    def _add_gap(self, gap: Gap) -> None:
        self.gaps.append((gap.offset, gap.end, self.known_count))
        if gap.header:
            self.durable_offset = max(self.durable_offset, gap.header.durable_offset)
            self.known_count = max(self.known_count, gap.header.sequence & RECORD_INDEX_MAX)

    def _add_other(self, frame: Frame) -> None:
        self.durable_offset = max(self.durable_offset, frame.header.durable_offset)
        if frame.header.kind == TYPE_COMMIT_MARK:
            self.known_count = max(self.known_count, maybe_mark(frame.payload) or 0)
        elif frame.header.kind == TYPE_FOOTER:
            self.footer = maybe_footer(frame.payload)

    def _note_missing_before(self, index: int, offset: int) -> None:
        if index > self.served + 1:
            self.missing.append((self.served + 1, index - 1))
            if not self.gaps:  # frames are gone and no bad byte is left to show it
                self.gaps.append((offset, offset, self.known_count))


def scan(walk: Walk, end: int) -> Scan:
    """Walks to `end`, or past the FOOTER: nothing behind one exists. Reads every byte up to there."""
    gathered = Scan(end, walk.last_index, served=walk.last_index)
    while gathered.footer is None:
        if records := walk.records(end):
            gathered.add_records(records)
        elif met := walk.step(end):
            gathered.add(met)
            gathered.remnant = walk.maybe_remnant(met, end) if isinstance(met, Gap) else None
        else:
            break
    return gathered
