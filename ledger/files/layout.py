"""Which file is what inside a ledger directory, and ledger.json."""

import json
import re
import uuid
from functools import lru_cache
from pathlib import Path
from typing import Any

from google_crc32c import value

from ledger.disk import Disk, publish
from ledger.errors import FormatUnsupported, LedgerDamaged
from ledger.format import FORMAT_VERSION
from ledger.positions import LATE_SUFFIX, ORDINAL_MAX
from ledger.times import date_text, day_of_date

LEDGER_FILE = "ledger.json"
LOCK_FILE = "LOCK"
SEAL_FILE = "SEAL"

_SEGMENT = re.compile(r"segment-([0-9]{8,10})\.log")
_WHOLE_FILE_BYTES = 64 * 1024  # ledger.json has about 130
_NAMES_KNOWN_MAX = 4096  # ten years of days; a reader asks about the same ones again and again


def partition_names(disk: Disk, directory: Path) -> list[str]:
    return [name for name in disk.directory_names(directory) if _is_partition(name)]


def has_partition(disk: Disk, directory: Path, name: str) -> bool:
    """Whether partition_names() tells of it, however many others there are."""
    return _is_partition(name) and disk.is_directory(directory / name)


@lru_cache(maxsize=_NAMES_KNOWN_MAX)
def _is_partition(name: str) -> bool:
    date = name.removesuffix(LATE_SUFFIX)
    try:
        return date_text(day_of_date(date)) == date  # there are other ways to write a date, and dates that are none
    except ValueError:
        return False


def segment_path(directory: Path, partition: str, ordinal: int) -> Path:
    return directory / f"{partition}/{_segment_name(ordinal)}"


def segment_ordinals(disk: Disk, partition_path: Path) -> list[int]:
    return sorted(ordinal for name in disk.names(partition_path) if (ordinal := _maybe_ordinal(name)))


def _segment_name(ordinal: int) -> str:
    return f"segment-{ordinal:08d}.log"


def _maybe_ordinal(name: str) -> int | None:
    """None for a name that segment_path() does not give: other digits or too many, 0, more than a sequence has."""
    match = _SEGMENT.fullmatch(name)
    ordinal = int(match[1]) if match else 0
    return ordinal if 1 <= ordinal <= ORDINAL_MAX and _segment_name(ordinal) == name else None


def torn_paths(disk: Disk, directory: Path) -> list[Path]:
    """Tails that recovery copied aside. Never deleted by this program."""
    partitions = [directory / name for name in partition_names(disk, directory)]
    return [path / name for path in partitions for name in disk.names(path) if name.endswith(".torn")]


def remove_temporaries(disk: Disk, path: Path) -> None:
    """Files that never got their name: nothing in them was acknowledged."""
    for name in disk.names(path):
        if name.endswith(".tmp") and not disk.is_directory(path / name):  # a directory is none of ours
            disk.unlink(path / name)


def seal_path(directory: Path, partition: str) -> Path:
    return directory / f"{partition}/{SEAL_FILE}"


def read_ledger_id(disk: Disk, directory: Path) -> str:
    """LedgerDamaged when ledger.json is missing or not as it was written; FormatUnsupported when it is too new."""
    path = directory / LEDGER_FILE
    try:
        data = disk.read(path, 0, _WHOLE_FILE_BYTES)
        told = json.loads(data)
        told.pop("crc32c")
        is_whole = encode_identity(told) == data
        version, ledger_id = told["format_version"], told["ledger_id"]
    except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _unidentified(path, str(error)) from error
    if not is_whole:
        raise _unidentified(path, "its checksum does not hold")
    if version != FORMAT_VERSION:
        raise FormatUnsupported(f"{path}: format version {version}; this program knows {FORMAT_VERSION}")
    if not _is_uuid(ledger_id):
        raise _unidentified(path, "its ledger_id is no UUID")
    return str(ledger_id)


def encode_identity(told: dict[str, Any]) -> bytes:
    """ledger.json: `told`, and the CRC32C of that. A flipped bit must not make one ledger into another."""
    return _canonical({**told, "crc32c": f"{value(_canonical(told)):08x}"})


def establish_ledger_id(disk: Disk, directory: Path, created_at: int) -> str:
    """The identity of this ledger, written once. LedgerDamaged when partitions exist without it."""
    if (known := maybe_ledger_id(disk, directory)) is None:
        path = directory / LEDGER_FILE
        told = {"format_version": FORMAT_VERSION, "ledger_id": str(uuid.uuid4()), "created_at": created_at}
        disk.close(publish(disk, path, encode_identity(told)))
    return known or read_ledger_id(disk, directory)


def maybe_ledger_id(disk: Disk, directory: Path) -> str | None:
    """None where there is no ledger yet. LedgerDamaged when partitions exist without it."""
    path = directory / LEDGER_FILE
    if disk.exists(path):
        return read_ledger_id(disk, directory)
    if partition_names(disk, directory):
        raise LedgerDamaged(f"{path} is missing beside existing partitions: restore it, never invent a new one")
    return None


def _is_uuid(told: object) -> bool:
    try:
        return str(uuid.UUID(str(told))) == told
    except ValueError:
        return False


def _canonical(told: dict[str, Any]) -> bytes:
    return json.dumps(told, separators=(",", ":"), sort_keys=True).encode()


def _unidentified(path: Path, reason: str) -> LedgerDamaged:
    return LedgerDamaged(f"{path} cannot be read as the identity of a ledger: {reason:.200}. Restore it from a backup")
