"""Opening what an earlier process left: each segment is trusted by its FOOTER, or scanned, judged and frozen."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from ledger.bookends import RecordSummary
from ledger.disk import Disk, publish
from ledger.inspection import inspect
from ledger.layout import partition_names, remove_temporaries
from ledger.positions import PartitionInfo, SegmentInfo
from ledger.recovery import Action, Decision
from ledger.routing import is_late
from ledger.segment import write_footer
from ledger.survey import PartitionSurvey, Surveyed

_COPY_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Opening:
    """What recovery needs to know. `now` is stamped on the FOOTERs it appends, in microseconds.

    `torn_files` gathers the copies of the tails that were cut off.
    """

    disk: Disk
    directory: Path
    ledger_id: str
    now: int
    free_bytes_min: int
    torn_files: list[Path] = field(default_factory=list)

    def partitions(self) -> list[PartitionInfo]:
        """Recovers every partition. OSError when the disk fails. Without free space files stay as they are."""
        return [self._partition(name) for name in partition_names(self.disk, self.directory)]

    def _partition(self, name: str) -> PartitionInfo:
        path = self.directory / name
        survey = PartitionSurvey(self.disk, self.directory, name, self.ledger_id)
        if not survey.is_sealed:
            remove_temporaries(self.disk, path)
        segments = tuple(self._segment(survey, survey.segment(ordinal)) for ordinal in survey.ordinals())
        return PartitionInfo(name, segments, survey.is_sealed, is_late(name), survey.is_pruned)

    def _segment(self, survey: PartitionSurvey, surveyed: Surveyed) -> SegmentInfo:
        if info := surveyed.trusted():
            return info
        if not surveyed.is_present:
            return surveyed.pruned() if survey.is_pruned else surveyed.lost()
        if survey.is_sealed:
            return inspect(self.disk, surveyed)[0]
        return self._recover(surveyed)

    def _recover(self, surveyed: Surveyed) -> SegmentInfo:
        disk = self.disk
        fd = disk.open_existing(surveyed.path)
        try:
            # What the page cache holds is not what a power cut would leave: make them the same, then read.
            disk.fsync(fd)
            disk.fsync_dir(surveyed.path.parent)
            disk.drop_cache(fd)
            info, decision, found = inspect(disk, surveyed)
            if disk.free_bytes(surveyed.path) >= self.free_bytes_min:
                self._apply(decision, fd, surveyed, found.summary)
        finally:
            disk.close(fd)
        return info

    def _apply(self, decision: Decision, fd: int, surveyed: Surveyed, summary: RecordSummary) -> None:
        """May be cut off anywhere, and left out: the next opening decides the same again."""
        if decision.action is Action.TRUNCATE_AND_FREEZE:
            self.torn_files.append(_copied_aside(self.disk, surveyed.path, decision.byte_length))
            self.disk.truncate(fd, decision.byte_length)
            self.disk.fsync(fd)
        if decision.action is not Action.LEAVE:
            digest = _sha256(self.disk, surveyed.path, decision.byte_length)
            footer = summary.footer(surveyed.segment_id, decision.byte_length, digest)
            write_footer(self.disk, fd, footer, self.now)


def _copied_aside(disk: Disk, path: Path, offset: int) -> Path:
    """The copy of the tail, `<name>.<offset>.torn`, made once: a crash before the truncation brings us here again."""
    tail = disk.read(path, offset, disk.size(path) - offset)
    for candidate in _torn_names(path, offset):
        if not disk.exists(candidate):
            disk.close(publish(disk, candidate, tail))
            break
        if disk.read(candidate, 0, len(tail) + 1) == tail:
            break
    return candidate


def _torn_names(path: Path, offset: int) -> Iterator[Path]:
    yield path.with_name(f"{path.stem}.{offset}.torn")
    for number in count(2):
        yield path.with_name(f"{path.stem}.{offset}-{number}.torn")


def _sha256(disk: Disk, path: Path, size: int) -> str:
    digest = hashlib.sha256()
    for offset in range(0, size, _COPY_BYTES):
        digest.update(disk.read(path, offset, min(_COPY_BYTES, size - offset)))
    return digest.hexdigest()
