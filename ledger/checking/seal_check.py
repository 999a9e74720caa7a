"""Re-reading SEALs: each by itself, and the chain they make."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ledger.disk import Disk
from ledger.files.layout import has_partition, partition_names, seal_path
from ledger.files.salvage import is_lost
from ledger.positions import sequence_of
from ledger.routing import is_late
from ledger.seal import SEAL_BYTES_MAX, Seal, maybe_decoded


@dataclass(frozen=True, slots=True)
class SealFile:
    """`seal` is None when it cannot be read."""

    file_bytes: int
    seal: Seal | None


def maybe_seal_file(disk: Disk, directory: Path, partition: str) -> SealFile | None:
    """None when there is no such file."""
    try:
        data = disk.read(seal_path(directory, partition), 0, SEAL_BYTES_MAX + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        if not is_lost(error):
            raise
        return SealFile(0, None)
    return SealFile(len(data), maybe_decoded(data) if len(data) <= SEAL_BYTES_MAX else None)


def contradictions(seal: Seal, ledger_id: str, partition: str) -> Iterator[str]:
    """What a SEAL that decodes says wrongly of itself."""
    if seal.ledger_id != ledger_id:
        yield f"the SEAL is of ledger {seal.ledger_id}"
    if seal.partition != partition:
        yield f"the SEAL is of {seal.partition}"
    if seal.is_late != is_late(partition):
        yield f"the SEAL says is_late {seal.is_late}"
    if [segment.ordinal for segment in seal.segments] != list(range(1, len(seal.segments) + 1)):
        yield "the SEAL does not list the segments 1, 2, 3 … one after another"
    counts = [segment.record_count for segment in seal.segments]
    if seal.total_records != sum(counts):
        yield f"the SEAL says {seal.total_records} records and lists {sum(counts)}"
    held = [segment for segment in seal.segments if segment.record_count]
    highwater = sequence_of(held[-1].ordinal, held[-1].record_count) if held else 0
    if seal.highwater_sequence != highwater:
        yield f"the SEAL says {seal.highwater_sequence} is the last sequence and lists segments up to {highwater}"


def link_contradictions(disk: Disk, directory: Path, seal: Seal) -> Iterator[str]:
    """What is wrong between a SEAL and the one that it names as the one before it. None named: none could be read."""
    link = seal.previous
    if link is None:
        return
    if link.seal_number >= seal.seal_number:
        yield f"the SEAL has number {seal.seal_number} and names number {link.seal_number} as the one before it"
    file = None
    if has_partition(disk, directory, link.partition):
        file = maybe_seal_file(disk, directory, link.partition)
    if file is None:
        yield f"the SEAL before it, number {link.seal_number} of {link.partition}, is missing"
    elif file.seal is None:
        yield f"the SEAL before it, number {link.seal_number} of {link.partition}, is damaged"
    elif file.seal.link != link:
        told = f"number {file.seal.seal_number} with sha256 {file.seal.sha256}"
        yield f"the SEAL before it, of {link.partition}, is {told}, not number {link.seal_number} with {link.sha256}"


def chain_contradictions(disk: Disk, directory: Path, ledger_id: str) -> Iterator[tuple[str, str]]:
    """(partition, what is wrong there), for the SEALs of the whole ledger: 1, 2, 3 …, each once, each link right.

    A SEAL that was made while the one before it was damaged names the last one that could be read, or none: that is
    right. The number of one that cannot be read is not missing.
    That the last ones of all are missing cannot be seen: nothing names them.
    """
    last = max((seal.seal_number for _, seal in _seals(disk, directory) if seal), default=0)
    numbers: list[tuple[int, str]] = []
    unreadable_count = 0
    for partition, seal in _seals(disk, directory):
        if seal is None:
            unreadable_count += 1
            yield partition, "the SEAL cannot be read"
        elif seal.seal_number <= last:  # or made while these are read: then the one before it may have been passed over
            yield from ((partition, text) for text in contradictions(seal, ledger_id, partition))
            yield from ((partition, text) for text in link_contradictions(disk, directory, seal))
            numbers.append((seal.seal_number, partition))
    for (before, other), (number, partition) in pairwise([(0, ""), *sorted(numbers)]):
        if number == before:
            yield partition, f"the SEAL has number {number}, and so has that of {other}"
        elif number - before - 1 > unreadable_count:
            yield partition, f"the SEAL has number {number}, and {number - before - 1} before it are missing"
        else:
            unreadable_count -= number - before - 1


def _seals(disk: Disk, directory: Path) -> Iterator[tuple[str, Seal | None]]:
    for partition in partition_names(disk, directory):
        if file := maybe_seal_file(disk, directory, partition):
            yield partition, file.seal
