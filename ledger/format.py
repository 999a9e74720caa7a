"""Frames, byte by byte (FORMAT.md says the same in prose). A segment is MAGIC, then frames, little-endian.

off size                                            off size
 0   4  header_crc32c (seeded with segment_id)      16   8  sequence
 4   1  type                                        24   8  durable_offset
 5   1  flags                                       32   8  written_at   microseconds since the epoch
 6   2  reserved, 0                                 40   8  emitted_at   microseconds since the epoch
 8   4  payload_len                                 48      payload, then zeros to a multiple of 8
12   4  payload_crc32c
"""

from dataclasses import dataclass
from struct import Struct

from google_crc32c import extend, value

FORMAT_VERSION = 1
MAGIC = b"\x89OMNL\r\n\x1a"
HEADER_BYTES = 48
PAYLOAD_BYTES_MAX = 4 * 1024 * 1024  # gRPC's own message limit: nothing larger can arrive
ALIGNMENT = 8  # resynchronisation steps over damage in these

TYPE_RECORD = 0x01
TYPE_COMMIT_MARK = 0x02
TYPE_HEADER = 0x80
TYPE_FOOTER = 0x81
TYPES_KNOWN = bytes((TYPE_RECORD, TYPE_COMMIT_MARK, TYPE_HEADER, TYPE_FOOTER))
TYPES_CRITICAL = 0x80  # an unknown type from here on must not be skipped

FLAG_BATCH_END = 0x01

WholeRecord = tuple[int, int, int, int, int, bytes]
"""offset, sequence, durable_offset, written_at, emitted_at, payload. A plain tuple: a scan meets millions of them."""

UNSEEDED = 0  # the CRC register before any byte: HEADER frames have no segment_id to start from

_HEADER = Struct("<IBBHIIQQqq")
_BODY = Struct("<BBHIIQQqq")  # bytes 4..48, what header_crc32c covers
_CRC = Struct("<I")


def seed_of(segment_id: bytes) -> int:
    """The CRC register after the 16 bytes of the segment id: where every frame of that file starts."""
    return int(value(segment_id))


def frame_bytes(payload_len: int) -> int:
    return HEADER_BYTES + payload_len + (-payload_len % ALIGNMENT)


def encode_frame(
    kind: int,
    payload: bytes,
    *,
    seed: int,
    durable_offset: int,
    written_at: int,
    emitted_at: int = 0,
    sequence: int = 0,
    flags: int = 0,
) -> bytes:
    """`seed` is seed_of(segment_id), or UNSEEDED for HEADER frames."""
    length = len(payload)
    body = _BODY.pack(kind, flags, 0, length, value(payload), sequence, durable_offset, written_at, emitted_at)
    return _CRC.pack(extend(seed, body)) + body + payload + bytes(-length % ALIGNMENT)


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """A header whose CRC holds, so each of its fields can be trusted; its payload may still be damaged."""

    kind: int
    flags: int
    payload_len: int
    payload_crc32c: int
    sequence: int
    durable_offset: int
    written_at: int
    emitted_at: int

    @property
    def frame_bytes(self) -> int:
        return frame_bytes(self.payload_len)


def maybe_header(data: bytes, start: int, offset: int, seed: int) -> FrameHeader | None:
    """The header at data[start:], which lies at `offset` of its segment; None unless every check holds."""
    if start + HEADER_BYTES > len(data):
        return None
    crc, kind, flags, reserved, length, payload_crc, sequence, durable, written_at, emitted_at = _HEADER.unpack_from(
        data, start
    )
    if kind == 0 or reserved or length > PAYLOAD_BYTES_MAX or durable > offset:
        return None
    if extend(seed, data[start + 4 : start + HEADER_BYTES]) != crc:
        return None
    return FrameHeader(kind, flags, length, payload_crc, sequence, durable, written_at, emitted_at)


def maybe_payload(data: bytes, start: int, header: FrameHeader) -> bytes | None:
    """The payload of the frame at data[start:]; None when it is cut short, its CRC fails or its padding is not zero."""
    payload_start = start + HEADER_BYTES
    payload_end = payload_start + header.payload_len
    end = start + header.frame_bytes
    if end > len(data):
        return None
    payload = data[payload_start:payload_end]
    if value(payload) != header.payload_crc32c or any(data[payload_end:end]):
        return None
    return payload


def whole_records(data: bytes, start: int, stop: int, offset: int, seed: int, sequences: range) -> list[WholeRecord]:
    """The RECORD frames at data[start:stop] with `sequences` one after another, until one has another or is not whole.

    What maybe_header() and maybe_payload() find, as one loop over the bytes: reading a ledger costs this per record.
    `offset` is where data[0:] lies in its segment.
    """
    unpack = _HEADER.unpack_from
    found: list[WholeRecord] = []
    for expected in sequences:
        payload_start = start + HEADER_BYTES
        if payload_start > stop:
            break
        crc, kind, _, reserved, length, payload_crc, sequence, durable, written_at, emitted_at = unpack(data, start)
        if kind != TYPE_RECORD or sequence != expected or reserved or length > PAYLOAD_BYTES_MAX:
            break
        if durable > offset + start or extend(seed, data[start + 4 : payload_start]) != crc:
            break
        payload_end = payload_start + length
        end = payload_end + (-length % ALIGNMENT)
        payload = data[payload_start:payload_end]
        if end > stop or value(payload) != payload_crc or (end > payload_end and any(data[payload_end:end])):
            break
        found.append((offset + start, sequence, durable, written_at, emitted_at, payload))
        start = end
    return found
