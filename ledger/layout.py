"""Which file is what inside a ledger directory, and ledger.json."""

import json
import re
import uuid
from pathlib import Path
from typing import Any

from ledger.bookends import Pin, pin_of
from ledger.disk import Disk, publish
from ledger.errors import FormatUnsupported, LedgerDamaged
from ledger.format import FORMAT_VERSION
from ledger.positions import LATE_SUFFIX
from ledger.times import date_text, day_of_date

LEDGER_FILE = "ledger.json"
LOCK_FILE = "LOCK"
SEAL_FILE = "SEAL"

_SEGMENT = re.compile(r"segment-(\d{8,})\.log")
_WHOLE_FILE_BYTES = 16 * 1024 * 1024  # a SEAL lists every segment of a day in about 200 bytes each


def partition_names(disk: Disk, directory: Path) -> list[str]:
    return [name for name in disk.names(directory) if _is_partition(name)]


def _is_partition(name: str) -> bool:
    date = name.removesuffix(LATE_SUFFIX)
    try:
        return date_text(day_of_date(date)) == date  # there are other ways to write a date, and dates that are none
    except ValueError:
        return False


def segment_path(directory: Path, partition: str, ordinal: int) -> Path:
    return directory / partition / f"segment-{ordinal:08d}.log"


def segment_ordinals(disk: Disk, partition_path: Path) -> list[int]:
    found = (_SEGMENT.fullmatch(name) for name in disk.names(partition_path))
    return sorted(int(match[1]) for match in found if match)


def torn_paths(disk: Disk, directory: Path) -> list[Path]:
    """Tails that recovery copied aside. Never deleted by this program."""
    partitions = [directory / name for name in partition_names(disk, directory)]
    return [path / name for path in partitions for name in disk.names(path) if name.endswith(".torn")]


def remove_temporaries(disk: Disk, path: Path) -> None:
    """Files that never got their name: nothing in them was acknowledged."""
    for name in disk.names(path):
        if name.endswith(".tmp"):
            disk.unlink(path / name)


def maybe_seal(disk: Disk, partition_path: Path) -> dict[str, Any] | None:
    """What SEAL says, or None when the partition is not sealed. LedgerDamaged when it exists and cannot be read."""
    path = partition_path / SEAL_FILE
    if not disk.exists(path):
        return None
    try:
        told = json.loads(disk.read(path, 0, _WHOLE_FILE_BYTES))
    except ValueError as error:
        raise LedgerDamaged(f"{path} is not JSON: {error}") from error
    if not isinstance(told, dict):
        raise LedgerDamaged(f"{path} is not a JSON object")
    return told


def seal_pins(seal: dict[str, Any] | None) -> dict[int, Pin]:
    """What a SEAL pins of each segment, by ordinal."""
    return {pin.ordinal: pin for pin in map(pin_of, (seal or {}).get("segments", []))}


def read_ledger_id(disk: Disk, directory: Path) -> str:
    """LedgerDamaged when ledger.json is missing or unreadable; FormatUnsupported when it is too new."""
    path = directory / LEDGER_FILE
    try:
        told = json.loads(disk.read(path, 0, _WHOLE_FILE_BYTES))
        version, ledger_id = told["format_version"], str(uuid.UUID(told["ledger_id"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise LedgerDamaged(f"{path} cannot be read as the identity of a ledger: {error}") from error
    if version != FORMAT_VERSION:
        raise FormatUnsupported(f"{path}: format version {version}; this program knows {FORMAT_VERSION}")
    return ledger_id


def establish_ledger_id(disk: Disk, directory: Path, created_at: int) -> str:
    """The identity of this ledger, written once. LedgerDamaged when partitions exist without it."""
    path = directory / LEDGER_FILE
    if not disk.exists(path):
        if partition_names(disk, directory):
            raise LedgerDamaged(f"{path} is missing beside existing partitions: restore it, never invent a new one")
        told = {"format_version": FORMAT_VERSION, "ledger_id": str(uuid.uuid4()), "created_at": created_at}
        disk.close(publish(disk, path, json.dumps(told).encode()))
    return read_ledger_id(disk, directory)
