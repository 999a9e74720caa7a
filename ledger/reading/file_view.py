"""The durable view from another process than the writer's: what the files themselves vouch for.

A live segment is durable as far as the largest durable_offset in its frames says. That is at most one batch, or the
idle delay of the COMMIT_MARK, behind what the writer has acknowledged, and never ahead of it.
"""

from dataclasses import replace
from pathlib import Path

from ledger.disk import Disk
from ledger.files.bookends import maybe_mark
from ledger.files.layout import has_partition, partition_names, seal_path
from ledger.files.salvage import SalvagedReads
from ledger.files.scan import Frame, Walk, scan
from ledger.files.source import Source
from ledger.files.survey import PartitionSurvey, Surveyed
from ledger.format import TYPE_COMMIT_MARK, TYPE_RECORD, seed_of
from ledger.opening.inspection import inspect
from ledger.positions import SEGMENT_ID_UNKNOWN, IndexRange, PartitionInfo, SegmentInfo, SegmentState
from ledger.reading.damage import DamageNotes


class FileView:
    """Not for two threads at once."""

    def __init__(self, directory: Path, ledger_id: str, disk: Disk) -> None:
        self._directory = directory
        self._ledger_id = ledger_id
        self._disk = disk
        self._notes = DamageNotes()
        self._followed: dict[tuple[str, int, bytes], _Followed] = {}
        self._judged: dict[tuple[str, int, bytes], SegmentInfo] = {}
        self._sealed: dict[str, tuple[tuple[int, int], PartitionSurvey]] = {}  # with the identity of the SEAL file

    def partitions(self) -> list[PartitionInfo]:
        return [self.partition(name) for name in partition_names(self._disk, self._directory)]

    def partition(self, name: str) -> PartitionInfo:
        survey = self._survey(name)
        segments = tuple(self._segment(survey, ordinal) for ordinal in survey.ordinals())
        return self._notes.applied_to_seal(survey.partition(segments))

    def segment(self, partition: str, ordinal: int) -> SegmentInfo:
        survey = self._survey(partition)
        if ordinal not in survey.ordinals():
            raise KeyError((partition, ordinal))
        return self._segment(survey, ordinal)

    def maybe_offset(self, partition: str, ordinal: int, index: int) -> tuple[int, int] | None:
        """The files tell nothing but what is in a FOOTER."""
        return None

    def note_damage(self, partition: str, ordinal: int, damaged: tuple[IndexRange, ...]) -> None:
        self._notes.add(partition, ordinal, damaged)

    def _survey(self, partition: str) -> PartitionSurvey:
        if not has_partition(self._disk, self._directory, partition):
            raise KeyError(partition)
        identity = self._maybe_identity(partition)
        known = self._sealed.get(partition)
        if known and known[0] == identity:
            return known[1]
        survey = PartitionSurvey(self._disk, self._directory, partition, self._ledger_id)
        if identity and survey.has_intact_seal:
            self._sealed[partition] = (identity, survey)
        return survey

    def _maybe_identity(self, partition: str) -> tuple[int, int] | None:
        """Of the SEAL: whoever changes it publishes a new file."""
        try:
            return self._disk.identity(seal_path(self._directory, partition))
        except FileNotFoundError:
            return None

    def _segment(self, survey: PartitionSurvey, ordinal: int) -> SegmentInfo:
        surveyed = survey.segment(ordinal)
        if survey.is_pruned:
            return surveyed.pruned()
        if info := surveyed.trusted():
            return self._notes.applied_to(info)
        if not surveyed.is_present:
            return surveyed.lost()
        return self._notes.applied_to(self._unfrozen(surveyed))

    def _unfrozen(self, surveyed: Surveyed) -> SegmentInfo:
        key = (surveyed.partition, surveyed.ordinal, surveyed.segment_id)
        if key not in self._judged:
            if not surveyed.pin and surveyed.segment_id != SEGMENT_ID_UNKNOWN and not self._has_ended(key, surveyed):
                return self._followed[key].info
            self._followed.pop(key, None)
            self._judged[key] = inspect(self._disk, surveyed)[0]  # its end is settled: judging it once reads all of it
        return self._judged[key]

    def _has_ended(self, key: tuple[str, int, bytes], surveyed: Surveyed) -> bool:
        """Whether following its frames has come to a FOOTER, or to what is left of one."""
        if key not in self._followed:
            self._followed[key] = _Followed(SalvagedReads(self._disk), surveyed)
        self._followed[key].advance()
        return self._followed[key].has_ended


class _Followed:
    """How far a live segment is known to be durable, and what lies up to there. Each advance() reads what is new."""

    def __init__(self, disk: Disk, surveyed: Surveyed) -> None:
        self._disk = disk
        self._path = surveyed.path
        self._seed = seed_of(surveyed.segment_id)
        self._uncounted_bytes = 0  # before byte_length, bad: records that nobody has counted may have lain there
        self.has_ended = False
        state = SegmentState.DAMAGED if surveyed.head.damaged else SegmentState.OPEN
        self.info = SegmentInfo(
            surveyed.partition, surveyed.ordinal, surveyed.segment_id, 0, surveyed.head.end, (), state
        )

    def advance(self) -> None:
        size = self._disk.size(self._path)
        known = scan(self._walk(), size)
        self.has_ended = known.footer is not None or known.remnant is not None
        mark = known.durable_offset
        if self.has_ended or mark <= self.info.byte_length:
            return
        walk = self._walk()
        found = scan(walk, mark)
        self._uncounted_bytes = walk.bad_bytes
        count = max(found.known_count, self._count_behind(walk, size))
        self.info = replace(
            self.info,
            record_count=count,
            byte_length=mark,
            damaged=(*self.info.damaged, *found.missing_up_to(count)),
            state=SegmentState.DAMAGED if found.gaps else self.info.state,
        )

    def _walk(self) -> Walk:
        info = self.info
        source = Source(self._disk, self._path)
        return Walk(
            source, self._seed, info.ordinal, info.byte_length, info.record_count, bad_bytes=self._uncounted_bytes
        )

    def _count_behind(self, walk: Walk, size: int) -> int:
        """What the next frame says of the records before it: counts the last ones when they are damaged."""
        met = walk.step(size)
        if isinstance(met, Frame) and met.header.kind == TYPE_RECORD:
            return met.record_index - 1
        if isinstance(met, Frame) and met.header.kind == TYPE_COMMIT_MARK:
            return maybe_mark(met.payload) or 0
        return 0
