"""What a SEAL says: one JSON file per sealed partition, written once and whole. FORMAT.md, "SEAL".

Its digest covers the manifest alone, so that pruning a partition can change `state` without breaking the chain: each
SEAL names the digest of the one before it.
"""

import hashlib
import json
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ledger.errors import FormatUnsupported
from ledger.format import FORMAT_VERSION

SEAL_BYTES_MAX = 16 * 1024 * 1024  # a row for each segment of a day, in about 250 bytes
MANIFEST_REVISION = 1  # how often the manifest was written: once. For audit; nothing is ever decided by it


class SealState(Enum):
    SEALED = "SEALED"
    PRUNED = "PRUNED"  # the segments were removed on purpose; what they held stays listed


@dataclass(frozen=True, slots=True)
class SealedSegment:
    """`byte_length` and `sha256` are those of its FOOTER: of the bytes before it."""

    file: str
    ordinal: int
    segment_id: bytes
    record_count: int
    byte_length: int
    sha256: str


@dataclass(frozen=True, slots=True)
class SealLink:
    """The SEAL before this one, in the order of sealing."""

    partition: str
    seal_number: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Seal:
    """`sealed_at` in microseconds. `seal_number` counts the seals of a ledger from 1. `highwater_sequence` is 0 when
    the partition holds no record."""

    ledger_id: str
    partition: str
    is_late: bool
    sealed_at: int
    total_records: int
    highwater_sequence: int
    manifest_revision: int
    seal_number: int
    previous: SealLink | None
    segments: tuple[SealedSegment, ...]
    state: SealState = SealState.SEALED

    @property
    def sha256(self) -> str:
        """The digest of the manifest: `jq -cS .manifest SEAL | tr -d '\\n' | sha256sum`."""
        return _digest(_manifest(self))

    @property
    def link(self) -> SealLink:
        """What the next SEAL is to say of this one."""
        return SealLink(self.partition, self.seal_number, self.sha256)


def encode_seal(seal: Seal) -> bytes:
    return _canonical({"manifest": _manifest(seal), "sha256": seal.sha256, "state": seal.state.value})


def maybe_decoded(data: bytes) -> Seal | None:
    """None unless every byte is what encode_seal() gives: a flipped bit anywhere is damage.

    FormatUnsupported when a newer program wrote it: the digest says so in every version, not a flipped bit.
    """
    try:
        told = json.loads(data)
        manifest = told["manifest"]
        if manifest["format_version"] > FORMAT_VERSION and told["sha256"] == _digest(manifest):
            raise FormatUnsupported(
                f"SEAL format version {manifest['format_version']}; this program knows {FORMAT_VERSION}"
            )
        seal = _seal_of(manifest, SealState(told["state"]))
        is_whole = encode_seal(seal) == data
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return seal if is_whole else None


def _seal_of(manifest: dict[str, Any], state: SealState) -> Seal:
    previous = manifest["previous"]
    return Seal(
        manifest["ledger_id"],
        manifest["partition"],
        manifest["is_late"],
        manifest["sealed_at"],
        manifest["total_records"],
        manifest["highwater_sequence"],
        manifest["manifest_revision"],
        manifest["seal_number"],
        SealLink(previous["partition"], previous["seal_number"], previous["sha256"]) if previous else None,
        tuple(_segment_of(told) for told in manifest["segments"]),
        state,
    )


def _segment_of(told: dict[str, Any]) -> SealedSegment:
    return SealedSegment(
        told["file"],
        told["ordinal"],
        bytes.fromhex(told["segment_id"]),
        told["record_count"],
        told["byte_length"],
        told["sha256"],
    )


def _manifest(seal: Seal) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "ledger_id": seal.ledger_id,
        "partition": seal.partition,
        "is_late": seal.is_late,
        "sealed_at": seal.sealed_at,
        "total_records": seal.total_records,
        "highwater_sequence": seal.highwater_sequence,
        "manifest_revision": seal.manifest_revision,
        "seal_number": seal.seal_number,
        "previous": _link(seal.previous) if seal.previous else None,
        "segments": [_segment(segment) for segment in seal.segments],
    }


def _link(link: SealLink) -> dict[str, Any]:
    return {"partition": link.partition, "seal_number": link.seal_number, "sha256": link.sha256}


def _segment(segment: SealedSegment) -> dict[str, Any]:
    return {
        "file": segment.file,
        "ordinal": segment.ordinal,
        "segment_id": segment.segment_id.hex(),
        "record_count": segment.record_count,
        "byte_length": segment.byte_length,
        "sha256": segment.sha256,
    }


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical(manifest)).hexdigest()


def _canonical(told: dict[str, Any]) -> bytes:
    return json.dumps(told, separators=(",", ":"), sort_keys=True).encode()
