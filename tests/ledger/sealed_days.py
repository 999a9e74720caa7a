"""Three days, sealed, to be damaged and verified."""

import os
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ledger import (
    Damage,
    Disk,
    Ledger,
    LedgerReader,
    LedgerSettings,
    Progress,
    Seal,
    Verified,
)
from ledger.files.head import footer_at_end
from ledger.files.layout import seal_path
from ledger.files.segment import write_footer
from ledger.seal import encode_seal, maybe_decoded
from tests.ledger.faults import (
    FIVE,
    NOON,
    TODAY,
    Answers,
    Clock,
    append_each,
)

BEFORE, AFTER = "2026-01-28", "2026-01-30"
DAYS = (BEFORE, TODAY, AFTER)
LONG_AFTER = datetime(2026, 2, 9, tzinfo=UTC)


def sealed_ledger(
    directory: Path, sealed: Iterable[str] = DAYS, payloads: Iterable[bytes] = FIVE, segment_records_max: int = 2
) -> Path:
    """Three sealed days of five records in three segments each."""
    clock, answers = Clock(), Answers()
    settings = LedgerSettings(free_bytes_min=0, segment_records_max=segment_records_max, idle_mark_s=3600)
    with Ledger.open(directory, on_commit=answers, settings=settings, now=clock) as ledger:
        for days, partition in enumerate(DAYS, -1):
            clock.moment = NOON + timedelta(days=days)
            append_each(ledger, answers, [partition.encode() + payload for payload in payloads], clock.moment)
        clock.moment = LONG_AFTER
        for partition in sealed:
            ledger.seal(partition)
    for path in directory.rglob("*.log"):
        path.chmod(0o644)  # root may write anyway; others cannot damage what they are to damage
    return directory


def found(reader: LedgerReader, partition: str = TODAY) -> list[Damage]:
    """The damage that verify tells; holds what it promises about its order."""
    told = list(reader.verify(partition))
    assert isinstance(told[-1], Verified)
    assert not any(isinstance(each, Verified) for each in told[:-1])
    progress = [each.bytes_read for each in told if isinstance(each, Progress)]
    assert progress == sorted(progress)
    damage = [each for each in told if isinstance(each, Damage)]
    sequences = [each.sequence for each in damage if each.sequence]
    assert len(sequences) == len(set(sequences)) == told[-1].damaged_record_count
    assert {each.partition for each in damage} <= {partition}
    return damage


def texts(damage: Iterable[Damage]) -> str:
    return "\n".join(f"{each.ordinal} {each.sequence & 0xFFFF_FFFF}: {each.description}" for each in damage)


def verified(reader: LedgerReader, partition: str = TODAY) -> Verified:
    told = list(reader.verify(partition))[-1]
    assert isinstance(told, Verified)
    return told


def seal_of(directory: Path, partition: str = TODAY) -> Seal:
    seal = maybe_decoded(seal_path(directory, partition).read_bytes())
    assert seal
    return seal


def write_seal(directory: Path, seal: Seal, partition: str = TODAY) -> None:
    seal_path(directory, partition).write_bytes(encode_seal(seal))


def starts(path: Path) -> list[int]:
    """Where the frames of an undamaged segment begin, both HEADERs and FOOTER included."""
    data, at, found = path.read_bytes(), 8, []
    while at < len(data):
        found.append(at)
        at += 48 + -(-int.from_bytes(data[at + 8 : at + 12], "little") // 8) * 8
    return found


def rewrite_footer(path: Path, **changes: object) -> None:
    footer = footer_at_end(Disk(), path)
    assert footer
    os.truncate(path, footer.byte_length)
    fd = Disk().open_existing(path)
    write_footer(Disk(), fd, replace(footer, **changes), 0)  # type: ignore[arg-type]
    os.close(fd)


def add_bytes(path: Path, data: bytes) -> None:
    path.write_bytes(path.read_bytes() + data)
