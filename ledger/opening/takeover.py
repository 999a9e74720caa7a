"""Opening what an earlier process left: a pinned segment is trusted by its FOOTER, any other scanned and judged."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from ledger.disk import Disk, pieces_of, protect, publish_pieces, sha256_of, space_permitting
from ledger.files.bookends import RecordSummary
from ledger.files.layout import partition_names, remove_temporaries, segment_path
from ledger.files.segment import write_footer
from ledger.files.survey import PartitionSurvey, Surveyed
from ledger.opening.inspection import inspect
from ledger.opening.recovery import Action, Decision
from ledger.positions import PartitionInfo, SegmentInfo


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
            with space_permitting():
                remove_temporaries(self.disk, path)
        info = survey.partition(tuple(self._segment(survey, survey.segment(ordinal)) for ordinal in survey.ordinals()))
        if info.is_sealed:  # whoever sealed it may have died in between
            protect(self.disk, (segment_path(self.directory, name, segment.ordinal) for segment in info.segments))
        return info

    def _segment(self, survey: PartitionSurvey, surveyed: Surveyed) -> SegmentInfo:
        if survey.is_pruned:
            return surveyed.pruned()
        if info := surveyed.trusted():
            return info
        if not surveyed.is_present:
            return surveyed.lost()
        if survey.is_sealed:
            return inspect(self.disk, surveyed)[0]
        return self._recover(surveyed)

    def _recover(self, surveyed: Surveyed) -> SegmentInfo:
        disk = self.disk
        fd = disk.open_existing(surveyed.path)
        try:
            # What the page cache holds is not what a power cut would leave: make them the same, then read. A FOOTER
            # too may not be durable yet, its writer died right then; a SEAL will rely on it.
            disk.fsync(fd)
            disk.fsync_dir(surveyed.path.parent)
            disk.drop_cache(fd)
            info, decision, found = inspect(disk, surveyed)
            if disk.free_bytes(surveyed.path) >= self.free_bytes_min:
                with space_permitting():  # what is left out or half done changes nothing that was decided
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
            digest = sha256_of(self.disk, surveyed.path, decision.byte_length)
            footer = summary.footer(surveyed.segment_id, decision.byte_length, digest)
            write_footer(self.disk, fd, footer, self.now)


def _copied_aside(disk: Disk, path: Path, offset: int) -> Path:
    """The copy of the tail, `<name>.<offset>.torn`, made once: a crash before the truncation brings us here again."""
    end = disk.size(path)
    for candidate in _torn_names(path, offset):
        if not disk.exists(candidate):
            disk.close(publish_pieces(disk, candidate, pieces_of(disk, path, offset, end)))
            break
        if _is_copy(disk, candidate, path, offset, end):
            break
    return candidate


def _is_copy(disk: Disk, candidate: Path, path: Path, offset: int, end: int) -> bool:
    if (size := disk.size(candidate)) != end - offset:
        return False
    pairs = zip(pieces_of(disk, candidate, 0, size), pieces_of(disk, path, offset, end), strict=True)
    return all(copied == original for copied, original in pairs)


def _torn_names(path: Path, offset: int) -> Iterator[Path]:
    yield path.with_name(f"{path.stem}.{offset}.torn")
    for number in count(2):
        yield path.with_name(f"{path.stem}.{offset}-{number}.torn")
