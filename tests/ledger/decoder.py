"""A second reader of segments, SEALs and ledger.json, written from FORMAT.md alone. Imports nothing of the ledger."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAGIC = bytes.fromhex("894f4d4e4c0d0a1a")
NAMES = {0x01: "RECORD", 0x02: "COMMIT_MARK", 0x80: "HEADER", 0x81: "FOOTER"}


def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


TABLE = _table()


def crc32c(data: bytes) -> int:
    register = 0xFFFFFFFF
    for byte in data:
        register = register >> 8 ^ TABLE[(register ^ byte) & 0xFF]
    return register ^ 0xFFFFFFFF


@dataclass
class Frame:
    offset: int
    type: str
    flags: int
    sequence: int
    durable_offset: int
    written_at: int
    emitted_at: int
    payload: bytes

    @property
    def told(self) -> Any:
        return json.loads(self.payload)


def decode(path: Path) -> list[Frame]:
    """All frames of an undamaged segment, every rule of the format asserted."""
    data = path.read_bytes()
    assert data[:8] == MAGIC
    offset, segment_id, frames = 8, b"", []
    while offset < len(data):
        field = {at: int.from_bytes(data[offset + at : offset + at + size], "little") for at, size in
                 ((0, 4), (4, 1), (5, 1), (6, 2), (8, 4), (12, 4), (16, 8), (24, 8))}  # fmt: skip
        times = [int.from_bytes(data[offset + at : offset + at + 8], "little", signed=True) for at in (32, 40)]
        payload = data[offset + 48 : offset + 48 + field[8]]
        end = offset + 48 + (field[8] + 7) // 8 * 8
        seed = b"" if NAMES[field[4]] == "HEADER" else segment_id
        assert crc32c(seed + data[offset + 4 : offset + 48]) == field[0]
        assert crc32c(payload) == field[12]
        assert field[5] in (0, 1)
        assert field[6] == 0
        assert not any(data[offset + 48 + field[8] : end])
        assert field[24] <= offset
        frames.append(Frame(offset, NAMES[field[4]], field[5], field[16], field[24], times[0], times[1], payload))
        segment_id = segment_id or bytes.fromhex(frames[0].told["segment_id"])
        offset = end
    assert offset == len(data)
    assert data[8 : frames[1].offset] == data[frames[1].offset : 2 * frames[1].offset - 8]
    return frames


def decode_identity(path: Path) -> dict[str, Any]:
    """What ledger.json says, its checksum asserted."""
    told: dict[str, Any] = json.loads(path.read_bytes())
    checksum = told.pop("crc32c")
    canonical = json.dumps(told, sort_keys=True, separators=(",", ":")).encode()
    assert checksum == f"{crc32c(canonical):08x}"
    assert path.read_bytes() == b'{"crc32c":"' + checksum.encode() + b'",' + canonical[1:]
    return told


def decode_seal(path: Path) -> dict[str, Any]:
    """The manifest of a SEAL, its digests asserted; of every segment that is still there, those of the segment too."""
    told = json.loads(path.read_bytes())
    manifest: dict[str, Any] = told["manifest"]
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    assert hashlib.sha256(canonical).hexdigest() == told["sha256"]
    assert set(told) == {"manifest", "sha256", "state"}
    assert told["state"] in ("SEALED", "PRUNED")
    assert manifest["partition"] == path.parent.name
    segments = manifest["segments"]
    assert [segment["ordinal"] for segment in segments] == list(range(1, len(segments) + 1))
    assert manifest["total_records"] == sum(segment["record_count"] for segment in segments)
    held = [segment["ordinal"] << 32 | segment["record_count"] for segment in segments if segment["record_count"]]
    assert manifest["highwater_sequence"] == (held[-1] if held else 0)
    for segment in segments if told["state"] == "SEALED" else []:
        file = path.parent / segment["file"]
        frames = decode(file)
        assert frames[0].told["segment_id"] == segment["segment_id"]
        assert sum(frame.type == "RECORD" for frame in frames) == segment["record_count"]
        assert hashlib.sha256(file.read_bytes()[: segment["byte_length"]]).hexdigest() == segment["sha256"]
    return manifest
