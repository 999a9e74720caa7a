"""The JSON payloads of HEADER and FOOTER, and the count in a COMMIT_MARK."""

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from struct import Struct
from typing import Any

from ledger.errors import FormatUnsupported
from ledger.format import ALIGNMENT, FORMAT_VERSION, HEADER_BYTES
from ledger.seal import SealedSegment

SPARSE_STEP = 256  # records between two entries of the sparse index: one entry a quarter of a MiB of 1 KiB records
_HEADERS_KNOWN_MAX = 64  # the segments that are read now are begun at again and again
_COUNT = Struct("<Q")
_FOOTER_BEGINS = re.compile(
    rb'\{"segment_id":"([0-9a-f]{32})","record_count":([0-9]{1,10}),"byte_length":([0-9]{1,19}),'
)


@dataclass(frozen=True, slots=True)
class Pin:
    """What a successor's HEADER, or a SEAL, says of a finished segment. Frames beyond `byte_length` do not exist."""

    ordinal: int
    segment_id: bytes
    record_count: int
    byte_length: int


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    ledger_id: str
    partition: str
    ordinal: int
    segment_id: bytes
    created_at: int
    writer_version: str
    prev: Pin | None


@dataclass(frozen=True, slots=True)
class SegmentFooter:
    """`byte_length` and `sha256` cover the bytes before the FOOTER. `sparse` holds (record_index, offset)."""

    segment_id: bytes
    record_count: int
    byte_length: int
    emitted_at_min: int | None
    emitted_at_max: int | None
    sparse: tuple[tuple[int, int], ...]
    sha256: str

    def seek(self, record_index: int) -> tuple[int, int] | None:
        """(index, offset) of the nearest indexed record at or before `record_index`."""
        at = bisect_right(self.sparse, (record_index, self.byte_length))
        return self.sparse[at - 1] if at else None


@dataclass(slots=True)
class RecordSummary:
    """What a FOOTER says of records, gathered as they go by."""

    record_count: int = 0
    emitted_at_min: int | None = None
    emitted_at_max: int | None = None
    sparse: list[tuple[int, int]] = field(default_factory=list)

    def add(self, offsets: Sequence[int], emitted_at: Sequence[int]) -> None:
        """The next records, one after another: where each begins, and when it was emitted."""
        for at in range(-self.record_count % SPARSE_STEP, len(offsets), SPARSE_STEP):
            self.sparse.append((self.record_count + at + 1, offsets[at]))
        self.record_count += len(offsets)
        known = [moment for moment in (self.emitted_at_min, self.emitted_at_max) if moment is not None]
        self.emitted_at_min = min((*known, *emitted_at), default=None)
        self.emitted_at_max = max((*known, *emitted_at), default=None)

    def footer(self, segment_id: bytes, byte_length: int, sha256: str) -> SegmentFooter:
        return SegmentFooter(
            segment_id,
            self.record_count,
            byte_length,
            self.emitted_at_min,
            self.emitted_at_max,
            tuple(self.sparse),
            sha256,
        )


def encode_header(header: SegmentHeader) -> bytes:
    return _dump({"format_version": FORMAT_VERSION, **asdict(header)})


@lru_cache(maxsize=_HEADERS_KNOWN_MAX)
def decode_header(payload: bytes) -> SegmentHeader:
    """FormatUnsupported for a format this program does not know. Call it on payloads whose CRC holds."""
    told = json.loads(payload)
    if told["format_version"] != FORMAT_VERSION:
        raise FormatUnsupported(f"segment format version {told['format_version']}; this program knows {FORMAT_VERSION}")
    return SegmentHeader(
        told["ledger_id"],
        told["partition"],
        told["ordinal"],
        bytes.fromhex(told["segment_id"]),
        told["created_at"],
        told["writer_version"],
        pin_of(told["prev"]) if told["prev"] else None,
    )


def pin_of_sealed(segment: SealedSegment) -> Pin:
    return Pin(segment.ordinal, segment.segment_id, segment.record_count, segment.byte_length)


def pin_of(told: dict[str, Any]) -> Pin:
    return Pin(told["ordinal"], bytes.fromhex(told["segment_id"]), told["record_count"], told["byte_length"])


def encode_footer(footer: SegmentFooter) -> bytes:
    return _dump(asdict(footer))


def maybe_footer(payload: bytes) -> SegmentFooter | None:
    """None when the payload is no FOOTER: its segment id is needed before any CRC of the frame can be checked."""
    try:
        told = json.loads(payload)
        return SegmentFooter(
            bytes.fromhex(told["segment_id"]),
            told["record_count"],
            told["byte_length"],
            told["emitted_at_min"],
            told["emitted_at_max"],
            tuple((index, offset) for index, offset in told["sparse"]),
            told["sha256"],
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def footer_remnants(data: bytes, offset: int) -> Iterator[tuple[bytes, int, int]]:
    """(segment id, record_count, byte_length) of each FOOTER whose first words lie in `data` where they say they do.

    `offset` is where `data` lies in the file. The rest of the FOOTER may be anything.
    """
    for begin in _FOOTER_BEGINS.finditer(data):
        told = int(begin[3])
        if told == offset + begin.start() - HEADER_BYTES and told % ALIGNMENT == 0:
            yield bytes.fromhex(begin[1].decode()), int(begin[2]), told


def encode_mark(record_count: int) -> bytes:
    return _COUNT.pack(record_count)


def maybe_mark(payload: bytes) -> int | None:
    return int(_COUNT.unpack(payload)[0]) if len(payload) == _COUNT.size else None


def _dump(told: dict[str, Any]) -> bytes:
    return json.dumps(told, separators=(",", ":"), default=bytes.hex).encode()
