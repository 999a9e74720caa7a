"""The first bytes of a segment: magic and two copies of HEADER. And its last ones: FOOTER."""

from dataclasses import dataclass, replace
from pathlib import Path

from ledger.disk import Disk
from ledger.files.bookends import SegmentFooter, SegmentHeader, decode_header, maybe_footer
from ledger.format import (
    ALIGNMENT,
    HEADER_BYTES,
    MAGIC,
    PAYLOAD_BYTES_MAX,
    TYPE_FOOTER,
    TYPE_HEADER,
    TYPE_RECORD,
    UNSEEDED,
    frame_bytes,
    maybe_header,
    maybe_payload,
    seed_of,
)

_HEAD_BYTES_MAX = 16 * 1024  # a HEADER is about 400 bytes
_FOOT_BYTES_MAX = 256 * 1024  # a FOOTER of 65,536 records is about 5 KiB; a larger one than this is found by scanning
_TYPE_AT = 4
_FOOTER_BEGINS = b'{"segment_id":"'

Span = tuple[int, int]  # byte offsets [start, end)


@dataclass(frozen=True, slots=True)
class Head:
    """`end` is where the frames after both copies begin; without a readable copy, the offset of the first copy.

    `is_foreign`: it could be read, and spoke of another segment.
    """

    header: SegmentHeader | None
    end: int
    damaged: tuple[Span, ...]
    is_foreign: bool = False


HEAD_MISSING = Head(None, len(MAGIC), ((0, len(MAGIC)),))
HEAD_FOREIGN = replace(HEAD_MISSING, is_foreign=True)


def read_head(disk: Disk, path: Path) -> Head:
    """FormatUnsupported when a copy was written in a format this program does not know."""
    return parse_head(disk.read(path, 0, _HEAD_BYTES_MAX))


def parse_head(data: bytes) -> Head:
    damaged: list[Span] = [] if data.startswith(MAGIC) else [(0, len(MAGIC))]
    first = len(MAGIC)
    header, end = _copy_at(data, first)
    if header:
        twin_end = 2 * end - first
        if data[end:twin_end] == data[first:end]:
            return Head(header, twin_end, tuple(damaged))
        return Head(header, twin_end, (*damaged, (end, twin_end)))
    for second in range(first + ALIGNMENT, len(data), ALIGNMENT):
        header, end = _copy_at(data, second)
        if header:
            return Head(header, end, (*damaged, (first, second)))
    return Head(None, first, (*damaged, (first, first + HEADER_BYTES)))


def _copy_at(data: bytes, offset: int) -> tuple[SegmentHeader | None, int]:
    frame = maybe_header(data, offset, offset, UNSEEDED)
    if frame is None or frame.kind != TYPE_HEADER:
        return None, offset
    payload = maybe_payload(data, offset, frame)
    return (decode_header(payload), offset + frame.frame_bytes) if payload else (None, offset)


def footer_at(disk: Disk, path: Path, offset: int) -> SegmentFooter | None:
    """The FOOTER that begins at `offset`, when it is whole and speaks of exactly the bytes before it."""
    data = disk.read(path, offset, _FOOT_BYTES_MAX)
    missing = frame_bytes(min(_payload_len(data, 0), PAYLOAD_BYTES_MAX)) - len(data)
    if missing > 0 and len(data) == _FOOT_BYTES_MAX:
        data += disk.read(path, offset + len(data), missing)
    return _whole_footer(data, 0, offset)


def footer_at_end(disk: Disk, path: Path) -> SegmentFooter | None:
    """The FOOTER that seems to end exactly where the file ends. A payload can hold one: it is no evidence of an end.

    None does not prove that there is none.
    """
    size = disk.size(path)
    base = max(0, (size - _FOOT_BYTES_MAX) // ALIGNMENT * ALIGNMENT)
    data = disk.read(path, base, size - base)
    types = data[_TYPE_AT::ALIGNMENT]
    at = types.rfind(TYPE_FOOTER)
    while at >= 0:
        start = at * ALIGNMENT
        is_last = start + frame_bytes(_payload_len(data, start)) == len(data)
        if is_last and (footer := _whole_footer(data, start, base + start)):
            return footer
        at = types.rfind(TYPE_FOOTER, 0, at)
    return None


def footer_ordinal(disk: Disk, path: Path, footer: SegmentFooter) -> int | None:
    """The segment ordinal in the first RECORD that can be read where `footer` says one is; None when none can."""
    seed = seed_of(footer.segment_id)
    for _, offset in footer.sparse:
        frame = maybe_header(disk.read(path, offset, HEADER_BYTES), 0, offset, seed)
        if frame and frame.kind == TYPE_RECORD:
            return frame.sequence >> 32
    return None


def _whole_footer(data: bytes, start: int, offset: int) -> SegmentFooter | None:
    """Parses nothing before the CRCs hold: payloads are made by others, and may look like anything."""
    segment_id = _maybe_segment_id(data, start + HEADER_BYTES)
    frame = maybe_header(data, start, offset, seed_of(segment_id)) if segment_id else None
    if frame is None or frame.kind != TYPE_FOOTER:
        return None
    payload = maybe_payload(data, start, frame)
    footer = maybe_footer(payload) if payload else None
    return footer if footer and footer.byte_length == offset else None


def _maybe_segment_id(data: bytes, start: int) -> bytes | None:
    """The first member of a FOOTER: the CRC of its frame begins with it."""
    if not data.startswith(_FOOTER_BEGINS, start):
        return None
    digits = data[start + len(_FOOTER_BEGINS) : start + len(_FOOTER_BEGINS) + 32]
    try:
        return bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        return None


def _payload_len(data: bytes, start: int) -> int:
    return int.from_bytes(data[start + 8 : start + 12], "little")
