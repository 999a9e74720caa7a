"""Re-reading every byte of a partition: frames against their CRCs, segments against FOOTERs, pins and the SEAL, and
the SEAL against the one before it. Nothing is trusted that was read earlier, nothing behind the durable mark is looked
at, and memory does not grow with what is read. What is found is told to the view, which says so from then on.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ledger.checking.seal_check import chain_contradictions, contradictions, link_contradictions, maybe_seal_file
from ledger.checking.segment_check import Claims, Finding, SegmentCheck
from ledger.disk import Disk
from ledger.files.bookends import Pin
from ledger.files.layout import seal_path, segment_ordinals, segment_path
from ledger.files.salvage import is_lost
from ledger.files.segment import pin_of_segment
from ledger.positions import IndexRange, PartitionInfo, SegmentInfo, SegmentState, sequence_of
from ledger.seal import Seal, SealState


@dataclass(frozen=True, slots=True)
class Progress:
    """About once per MiB. The total is what there was at the start."""

    bytes_read: int
    bytes_total: int


@dataclass(frozen=True, slots=True)
class Damage:
    """`ordinal` is 0 when it is in the SEAL, `sequence` when it is in no record."""

    partition: str
    ordinal: int
    sequence: int
    description: str


@dataclass(frozen=True, slots=True)
class Verified:
    """The records that are whole, and those that were there once and are not."""

    partition: str
    intact_record_count: int
    damaged_record_count: int
    bytes_read: int


class Told(Protocol):
    """The part of a view that verifying needs."""

    def partition(self, name: str) -> PartitionInfo: ...

    def note_damage(self, partition: str, ordinal: int, damaged: tuple[IndexRange, ...]) -> None: ...


def verify_partition(
    view: Told, disk: Disk, directory: Path, ledger_id: str, partition: str
) -> Iterator[Progress | Damage | Verified]:
    """What is durable when it is called. KeyError at once when there is no such partition."""
    return _Verification(view, disk, directory, ledger_id, view.partition(partition)).run()


def verify_chain(view: Told, disk: Disk, directory: Path, ledger_id: str) -> Iterator[Damage]:
    """The SEALs alone, of the whole ledger. Damage that concerns two of them is told of the later one."""
    for partition, description in chain_contradictions(disk, directory, ledger_id):
        view.note_damage(partition, 0, ())
        yield Damage(partition, 0, 0, description)


class _Verification:
    def __init__(self, view: Told, disk: Disk, directory: Path, ledger_id: str, info: PartitionInfo) -> None:
        self._view = view
        self._disk = disk
        self._directory = directory
        self._ledger_id = ledger_id
        self._info = info
        self._seal: Seal | None = None
        self._bytes_read = 0
        self._bytes_total = 0
        self._intact_count = 0
        self._damaged_count = 0

    def run(self) -> Iterator[Progress | Damage | Verified]:
        self._bytes_total = self._total()
        yield from self._verify_seal()
        if not self._is_pruned():
            before: Pin | None = None
            for info in self._info.segments:
                yield from self._verify_segment(info, before)
                before = pin_of_segment(info)
            yield from self._unlisted()
        yield Verified(self._info.name, self._intact_count, self._damaged_count, self._bytes_read)

    def _total(self) -> int:
        total = self._size(seal_path(self._directory, self._info.name)) if self._info.is_sealed else 0
        for info in () if self._info.is_pruned else self._info.segments:
            total += self._size(self._path(info)) if self._is_finished(info) else info.byte_length
        return total

    def _size(self, path: Path) -> int:
        try:
            return self._disk.size(path)
        except OSError as error:
            if not is_lost(error):
                raise
            return 0

    def _path(self, info: SegmentInfo) -> Path:
        return segment_path(self._directory, info.partition, info.ordinal)

    def _is_finished(self, info: SegmentInfo) -> bool:
        is_last = info.ordinal == len(self._info.segments)
        return self._info.is_sealed or not is_last or info.state is SegmentState.FROZEN

    def _is_pruned(self) -> bool:
        """Asked anew: it may be pruned while it is read."""
        file = maybe_seal_file(self._disk, self._directory, self._info.name)
        return bool(file and file.seal and file.seal.state is SealState.PRUNED)

    def _verify_seal(self) -> Iterator[Damage]:
        for description in self._seal_contradictions():
            self._view.note_damage(self._info.name, 0, ())
            yield Damage(self._info.name, 0, 0, description)

    def _seal_contradictions(self) -> Iterator[str]:
        if not self._info.is_sealed:  # or sealed since: then the SEAL is no part of what is verified
            return
        file = maybe_seal_file(self._disk, self._directory, self._info.name)
        if file is None:
            yield "the SEAL is gone"
            return
        self._bytes_read += file.file_bytes
        if file.seal is None:
            yield "the SEAL cannot be read"
            return
        self._seal = file.seal
        yield from contradictions(file.seal, self._ledger_id, self._info.name)
        if self._info.seal and self._info.seal.sha256 != file.seal.sha256:
            yield f"the SEAL has sha256 {file.seal.sha256}, when it was read first {self._info.seal.sha256}"
        yield from link_contradictions(self._disk, self._directory, file.seal)

    def _verify_segment(self, info: SegmentInfo, before: Pin | None) -> Iterator[Progress | Damage]:
        rows = {segment.ordinal: segment for segment in self._seal.segments} if self._seal else {}
        is_finished, is_sealed = self._is_finished(info), self._info.is_sealed
        claims = Claims(self._ledger_id, before, is_finished, is_sealed, rows.get(info.ordinal))
        check = SegmentCheck(self._disk, self._path(info), info, claims)
        strides = check.strides()
        while True:
            try:
                findings = next(strides, None)
            except OSError as error:
                if not is_lost(error):
                    raise
                is_gone = isinstance(error, FileNotFoundError)
                if is_gone and self._is_pruned():
                    return
                findings = check.lost("its file is gone" if is_gone else f"it cannot be read: {error.strerror}")
            if findings is None:
                break
            yield from self._tell(info, findings)
            yield Progress(self._bytes_read + check.bytes_read, self._bytes_total)
        self._bytes_read += check.bytes_read
        self._intact_count += check.intact_count
        self._damaged_count += check.damaged_count

    def _tell(self, info: SegmentInfo, findings: Iterable[Finding]) -> Iterator[Damage]:
        found = list(findings)
        if found:
            hit = tuple((finding.first, finding.last) for finding in found if finding.first)
            self._view.note_damage(info.partition, info.ordinal, hit)
        for finding in found:
            yield from damages(info, finding)

    def _unlisted(self) -> Iterator[Damage]:
        """Segments of which the SEAL and the rest do not both know."""
        if self._seal is None:
            return
        known = {info.ordinal for info in self._info.segments}
        present = known | set(segment_ordinals(self._disk, self._directory / self._info.name))
        listed = {segment.ordinal for segment in self._seal.segments}
        for ordinal in sorted((listed - known) | (present - listed)):
            self._view.note_damage(self._info.name, 0, ())
            text = "the SEAL lists it, nothing else knows of it" if ordinal in listed else "the SEAL does not list it"
            yield Damage(self._info.name, ordinal, 0, text)


def damages(info: SegmentInfo, finding: Finding) -> Iterator[Damage]:
    """One for each sequence that the finding hits, or one without a sequence."""
    if not finding.first:
        yield Damage(info.partition, info.ordinal, 0, finding.description)
        return
    for index in range(finding.first, finding.last + 1):
        yield Damage(info.partition, info.ordinal, sequence_of(info.ordinal, index), finding.description)
