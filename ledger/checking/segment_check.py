"""Re-reading one segment against everything that speaks of it. Every byte is read once: hashed and walked together."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ledger.disk import Disk
from ledger.files.bookends import (
    Pin,
    RecordSummary,
    SegmentFooter,
    encode_footer,
    footer_remnants,
    maybe_footer,
    maybe_mark,
    pin_of_sealed,
)
from ledger.files.head import Head, footer_at_end, parse_head
from ledger.files.layout import segment_path
from ledger.files.salvage import STRIDE_BYTES, HashedReads, SalvagedReads
from ledger.files.scan import Frame, Gap, Walk
from ledger.files.segment import pin_of_segment
from ledger.files.source import Source
from ledger.format import (
    MAGIC,
    PAYLOAD_BYTES_MAX,
    TYPE_COMMIT_MARK,
    TYPE_FOOTER,
    TYPE_RECORD,
    WholeRecord,
    frame_bytes,
    seed_of,
)
from ledger.positions import RECORD_INDEX_MAX, SEGMENT_ID_UNKNOWN, SegmentInfo, SegmentState
from ledger.seal import SealedSegment

_HEAD_BYTES = 16 * 1024
_FOOTER_BEGIN_BYTES = 256
_FOOTER_BYTES_MAX = frame_bytes(PAYLOAD_BYTES_MAX)


@dataclass(frozen=True, slots=True)
class Finding:
    """`first` to `last` are the record indexes that it hits; both 0 when it hits none."""

    first: int
    last: int
    description: str


@dataclass(frozen=True, slots=True)
class Claims:
    """What the neighbours say of a segment.

    `before` is what its HEADER is to pin. `is_finished`: nothing is appended to it, so what lies behind `byte_length`
    can be judged. `sealed` is its row of the SEAL, in a sealed partition.
    """

    ledger_id: str
    before: Pin | None
    is_finished: bool
    is_sealed: bool
    sealed: SealedSegment | None


class SegmentCheck:
    """`info` says how far the segment goes: what lies behind its byte_length is read only for the FOOTER."""

    def __init__(self, disk: Disk, path: Path, info: SegmentInfo, claims: Claims) -> None:
        self._disk = SalvagedReads(disk)
        self._path = path
        self._info = info
        self._claims = claims
        self._reads = HashedReads(self._disk, info.byte_length)
        self._found: list[Finding] = []
        self._has_found = False
        self._are_bytes_hit = False
        self._expected = 1
        self._span: tuple[int, int] | None = None  # bytes that are no frame, until it is known what they held
        self._file_bytes = 0
        self._foot_bytes = 0
        self.intact_count = 0
        self.damaged_count = 0
        self.summary = RecordSummary()

    @property
    def bytes_read(self) -> int:
        return self._reads.bytes_read + self._foot_bytes

    @property
    def sha256(self) -> str:
        """Of the bytes up to byte_length, once strides() has ended."""
        return self._reads.sha256

    @property
    def is_clean(self) -> bool:
        return not self._has_found

    def strides(self) -> Iterator[list[Finding]]:
        """What is found, MiB by MiB; maybe nothing. FileNotFoundError: see lost(). OSError when nothing can be said."""
        self._file_bytes = self._disk.size(self._path)
        head = parse_head(self._reads.read(self._path, 0, _HEAD_BYTES))
        self._check_head(head)
        yield self._taken()
        if self._info.segment_id == SEGMENT_ID_UNKNOWN:
            self._find(0, 0, "nothing is left that says which segment this is")
        else:
            yield from self._walked(head.end)
        self._end_records()
        self._reads.read_to(self._path, self._info.byte_length)
        if self._claims.is_finished:
            self._check_foot()
        if self._claims.sealed:
            self._check_seal(self._claims.sealed)
        if self._disk.unreadable:
            self._hit(0, 0, "some of bytes {} to {} cannot be read: Input/output error".format(*self._disk.unreadable))
        if self.is_clean and self._info.state is SegmentState.DAMAGED:
            self._find(0, 0, "it was found damaged earlier; every byte of it is whole now")
        yield self._taken()

    def lost(self, reason: str) -> list[Finding]:
        """In place of the rest of strides(): every record that was not met yet."""
        self._span = None
        self._find(0, 0, reason)
        if self._expected <= self._info.record_count:
            self._find(self._expected, self._info.record_count, reason)
            self._expected = self._info.record_count + 1
        return self._taken()

    def _walked(self, offset: int) -> Iterator[list[Finding]]:
        walk = Walk(Source(self._reads, self._path), seed_of(self._info.segment_id), self._info.ordinal, offset)
        end, told = self._info.byte_length, 0
        while True:
            if records := walk.records(end):
                self._meet_records(records)
            elif met := walk.step(end):
                self._meet(met)
            else:
                return
            if self._reads.bytes_read - told >= STRIDE_BYTES:
                told = self._reads.bytes_read
                yield self._taken()

    def _taken(self) -> list[Finding]:
        taken, self._found = self._found, []
        return taken

    def _find(self, first: int, last: int, description: str) -> None:
        self._has_found = True
        if first:
            self.damaged_count += last - first + 1
        self._found.append(Finding(first, last, description))

    def _hit(self, first: int, last: int, description: str) -> None:
        self._are_bytes_hit = True
        self._find(first, last, description)

    def _check_head(self, head: Head) -> None:
        told, info = head.header, self._info
        for start, end in head.damaged:
            what = "the magic bytes are damaged" if start == 0 else f"a HEADER is damaged, bytes {start} to {end}"
            if told or start == 0:
                self._hit(0, 0, what)
        if told is None:
            self._hit(0, 0, f"neither HEADER can be read, from byte {len(MAGIC)} on")
            return
        named = (told.ledger_id, told.partition, told.ordinal, told.segment_id)
        if named != (self._claims.ledger_id, info.partition, info.ordinal, info.segment_id):
            where = f"segment {told.ordinal} of {told.partition} in ledger {told.ledger_id}"
            self._hit(0, 0, f"another file lies under this name: {where}, id {told.segment_id.hex()}")
        elif told.prev != self._claims.before and not _pins_nobody(told.prev):
            self._find(
                0, 0, f"its HEADER pins {_pin_text(told.prev)} before it, which is {_pin_text(self._claims.before)}"
            )

    def _meet(self, met: Frame | Gap) -> None:
        header = met.header
        if header is None or (isinstance(met, Gap) and header.kind != TYPE_RECORD):
            self._span = (self._span[0] if self._span else met.offset, met.end)
        elif isinstance(met, Gap):
            index = header.sequence & RECORD_INDEX_MAX
            self._pass_to(index)
            self._hit(index, index, f"its payload or padding is damaged, bytes {met.offset} to {met.end}")
            self._expected = index + 1
        elif header.kind == TYPE_RECORD:
            self._meet_records([met.record])
        elif header.kind == TYPE_COMMIT_MARK:
            self._meet_mark(met)
        elif header.kind == TYPE_FOOTER:
            self._hit(0, 0, f"a FOOTER lies at byte {met.offset}, and more behind it")

    def _meet_records(self, records: list[WholeRecord]) -> None:
        """Whole ones, their indexes one after another."""
        first = records[0][1] & RECORD_INDEX_MAX
        self._pass_to(first)
        self._expected = first + len(records)
        self.intact_count += len(records)
        self.summary.add([record[0] for record in records], [record[4] for record in records])

    def _meet_mark(self, mark: Frame) -> None:
        before = self._expected - 1
        count = maybe_mark(mark.payload)
        if count is None or count < before:
            self._hit(0, 0, f"the COMMIT_MARK at byte {mark.offset} counts {count} records, before it are {before}")
        else:
            self._pass_to(count + 1)

    def _pass_to(self, index: int) -> None:
        """Every index from the expected one up to here, exclusive, was given to a record that no frame holds."""
        span, self._span = self._span, None
        where = f"bytes {span[0]} to {span[1]} are no frame" if span else "it is in none of the frames"
        if span and span[1] > self._file_bytes:
            where += f": the file ends at {self._file_bytes}"
        if index > self._expected:
            self._hit(self._expected, index - 1, where)
            self._expected = index
        elif span:
            self._hit(0, 0, f"{where}; no record was there")

    def _end_records(self) -> None:
        told, met = self._info.record_count, self._expected - 1
        self._pass_to(max(told, met) + 1)
        if met > told:
            self._find(0, 0, f"it holds {met} records and is said to hold {told}")

    def _check_foot(self) -> None:
        met = self._foot()
        footer = maybe_footer(met.payload) if isinstance(met, Frame) and met.header.kind == TYPE_FOOTER else None
        if met and footer:
            self._foot_bytes = met.end - met.offset
            self._check_footer(footer)
            if self._claims.is_sealed and met.end < self._file_bytes:
                self._find(0, 0, f"bytes {met.end} to {self._file_bytes} lie behind the FOOTER")
        elif self._file_bytes > self._info.byte_length:
            self._check_tail(met)
        elif self._claims.is_sealed:
            self._find(0, 0, "it has no FOOTER")

    def _foot(self) -> Frame | Gap | None:
        start = self._info.byte_length
        walk = Walk(Source(self._disk, self._path), seed_of(self._info.segment_id), self._info.ordinal, start)
        return walk.step(min(self._file_bytes, start + _FOOTER_BYTES_MAX))

    def _check_tail(self, met: Frame | Gap | None) -> None:
        """No FOOTER begins at byte_length. What lies there may be un-synced leftovers, which never were anything."""
        start = self._info.byte_length
        if other := footer_at_end(self._disk, self._path):
            told = f"{other.record_count} records in {other.byte_length} bytes"
            self._find(0, 0, f"its FOOTER says {told}, others say {self._info.record_count} in {start}")
        elif self._has_been_footer(met):
            self._find(0, 0, f"its FOOTER is damaged, bytes {start} to {self._file_bytes}")

    def _has_been_footer(self, met: Frame | Gap | None) -> bool:
        """Its frame's header, the first words of its payload or its length still tell."""
        if met and met.header:
            return met.header.kind == TYPE_FOOTER
        start, segment_id = self._info.byte_length, self._info.segment_id
        tail = self._disk.read(self._path, start, _FOOTER_BEGIN_BYTES)
        if any((told_id, at) == (segment_id, start) for told_id, _, at in footer_remnants(tail, start)):
            return True
        whole = encode_footer(self.summary.footer(segment_id, start, self.sha256))
        return self._file_bytes - start == frame_bytes(len(whole))

    def _check_footer(self, footer: SegmentFooter) -> None:
        sealed = self._claims.sealed
        if sealed and sealed.sha256 != footer.sha256:
            self._find(0, 0, f"its FOOTER says sha256 {footer.sha256}, the SEAL {sealed.sha256}")
        if self._are_bytes_hit:  # then it speaks of bytes that are no more
            return
        expected = self.summary.footer(self._info.segment_id, self._info.byte_length, self.sha256)
        for name in SegmentFooter.__slots__:
            told, found = getattr(footer, name), getattr(expected, name)
            if told != found:
                self._find(0, 0, f"its FOOTER says {name} {_text(told)}, the bytes say {_text(found)}")

    def _check_seal(self, sealed: SealedSegment) -> None:
        told, held = pin_of_sealed(sealed), pin_of_segment(self._info)
        if told != held:
            self._find(0, 0, f"the SEAL lists {_pin_text(told)}, it is {_pin_text(held)}")
        if sealed.file != segment_path(Path(), self._info.partition, self._info.ordinal).name:
            self._find(0, 0, f"the SEAL lists it as {sealed.file}")
        if not self._are_bytes_hit and sealed.sha256 != self.sha256:
            self._find(0, 0, f"the SEAL says sha256 {sealed.sha256}, the bytes say {self.sha256}")


def _pins_nobody(pin: Pin | None) -> bool:
    """Nobody could identify the segment before any more: what lies there now may be good again."""
    return pin is not None and pin.segment_id == SEGMENT_ID_UNKNOWN


def _pin_text(pin: Pin | None) -> str:
    if pin is None:
        return "nothing"
    held = f"{pin.record_count} records in {pin.byte_length} bytes"
    return f"segment {pin.ordinal} with {held}, id {pin.segment_id.hex()}"


def _text(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else f"{value!s:.100}"
