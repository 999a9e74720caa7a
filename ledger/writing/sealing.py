"""Sealing: what a partition holds is gathered beside the appends, then one errand of the flusher thread makes it final.

What is gathered stays true: finished segments do not change. So the flusher has the same few things to do for a day of
any size: freeze the live segment, publish the SEAL.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from ledger.disk import Disk, protect, publish, sha256_of
from ledger.errors import LedgerDamaged, LedgerFull, LedgerUnavailable, NotDue
from ledger.files.head import footer_at
from ledger.files.layout import seal_path, segment_path
from ledger.files.survey import PartitionSurvey
from ledger.opening.house import House
from ledger.opening.inspection import inspect
from ledger.opening.recovery import Action, Outcome
from ledger.positions import PartitionInfo, SegmentInfo, SegmentState, sequence_of
from ledger.routing import due_at
from ledger.seal import MANIFEST_REVISION, Seal, SealedSegment, SealLink, encode_seal
from ledger.settings import LedgerSettings
from ledger.times import bounded_moment_of
from ledger.writing.catalog import Catalog
from ledger.writing.commit import Committer

_TEXTS_MAX = 5  # of what can be thousands


class Sealer:
    """gather() and protect() belong to the caller's thread, seal() to the flusher's."""

    def __init__(
        self, disk: Disk, house: House, catalog: Catalog, committer: Committer, settings: LedgerSettings
    ) -> None:
        self._disk = disk
        self._house = house
        self._catalog = catalog
        self._committer = committer
        self._settings = settings
        self._last_number, self._previous = chain_end(house.partitions)

    def gather(self, partition: str, now: int) -> list[SealedSegment]:
        """What the SEAL is to say of every segment that is finished already, each of its bytes read again: rot is
        never sealed in."""
        info = self._catalog.partition(partition)
        self._check(info, now)
        finished = [segment for segment in info.segments if segment.state is not SegmentState.OPEN]
        with _reading(partition):
            self._check_space(partition)
            gathered = [self._maybe_sealed(segment) or self._without_footer(segment) for segment in finished]
            for row in gathered:
                self._check_bytes(partition, row)
        return gathered

    def seal(self, partition: str, gathered: list[SealedSegment], now: int) -> Seal:
        """Durable on return. An OSError ends the use of the ledger; a LedgerError has changed nothing that counts."""
        info = self._catalog.partition(partition)
        if info.seal:
            return info.seal
        self._check(info, now)
        self._check_space(partition)
        self._committer.freeze(partition, now)
        info = self._catalog.partition(partition)
        since = [self._just_finished(segment) for segment in info.segments[len(gathered) :]]
        seal = self._next_seal(info, (*gathered, *since), now)
        self._disk.close(publish(self._disk, seal_path(self._house.directory, partition), encode_seal(seal)))
        self._house.lock.check()
        self._catalog.seal(seal)
        self._last_number, self._previous = seal.seal_number, seal.link
        return seal

    def protect(self, seal: Seal) -> None:
        """From now on nobody changes the segments by accident. Every opening does it again."""
        directory = self._house.directory
        protect(self._disk, (segment_path(directory, seal.partition, segment.ordinal) for segment in seal.segments))

    def _check(self, info: PartitionInfo, now: int) -> None:
        if info.is_seal_damaged:
            raise LedgerDamaged(f"{info.name} is sealed, but its SEAL cannot be read: restore that file from a backup")
        due = due_at(info.name, self._settings)
        if now < due:
            raise NotDue(f"{info.name} takes records until {bounded_moment_of(due).isoformat()}", due)
        if info.damaged:
            raise _damaged(info)

    def _check_space(self, partition: str) -> None:
        if self._disk.free_bytes(self._house.directory) < self._settings.free_bytes_min:
            raise LedgerFull(f"{partition} is not sealed: less than {self._settings.free_bytes_min} bytes are free")

    def _check_bytes(self, partition: str, row: SealedSegment) -> None:
        path = segment_path(self._house.directory, partition, row.ordinal)
        if sha256_of(self._disk, path, row.byte_length) != row.sha256:
            self._catalog.note_damage(partition, row.ordinal, ())
            raise LedgerDamaged(
                f"{partition} is not sealed: segment {row.ordinal} does not have the sha256 of its FOOTER: "
                "verify names what is damaged"
            )

    def _next_seal(self, info: PartitionInfo, segments: tuple[SealedSegment, ...], now: int) -> Seal:
        return Seal(
            ledger_id=self._house.ledger_id,
            partition=info.name,
            is_late=info.is_late,
            sealed_at=now,
            total_records=info.record_count,
            highwater_sequence=info.highwater_sequence,
            manifest_revision=MANIFEST_REVISION,
            seal_number=self._last_number + 1,
            previous=self._previous,
            segments=segments,
        )

    def _maybe_sealed(self, info: SegmentInfo) -> SealedSegment | None:
        """By its FOOTER, at the cost of one read; None when there is none to be read."""
        path = segment_path(self._house.directory, info.partition, info.ordinal)
        footer = footer_at(self._disk, path, info.byte_length)
        if footer is None or (footer.segment_id, footer.record_count) != (info.segment_id, info.record_count):
            return None
        return _sealed(info, path.name, footer.sha256)

    def _just_finished(self, info: SegmentInfo) -> SealedSegment:
        with _reading(info.partition):
            sealed = self._maybe_sealed(info)
        if sealed is None:  # asked again, gather() looks into it, where it holds up nobody
            raise LedgerUnavailable(f"{info.partition} is not sealed: segment {info.ordinal} gives no FOOTER")
        return sealed

    def _without_footer(self, info: SegmentInfo) -> SealedSegment:
        """A segment that ends where its successor says needs no FOOTER of its own; any other has to be given one."""
        survey = PartitionSurvey(self._disk, self._house.directory, info.partition, self._house.ledger_id)
        surveyed = survey.segment(info.ordinal)
        found, decision, _ = inspect(self._disk, surveyed)
        is_known = (found.segment_id, found.record_count) == (info.segment_id, info.record_count)
        if decision.outcome is Outcome.DAMAGED or not is_known:
            self._catalog.note_damage(info.partition, info.ordinal, found.damaged)
            raise _damaged(self._catalog.partition(info.partition))
        if decision.action is not Action.LEAVE:
            raise LedgerFull(
                f"{info.partition} is not sealed: segment {info.ordinal} has no FOOTER, there was no space for it. "
                f"Open the ledger again with more than {self._settings.free_bytes_min} bytes free"
            )
        return _sealed(info, surveyed.path.name, sha256_of(self._disk, surveyed.path, info.byte_length))


def chain_end(partitions: Iterable[PartitionInfo]) -> tuple[int, SealLink | None]:
    """The number of the last seal there was, and the last SEAL that can be read. SEALs are never removed, so their
    count gives the number also when the last one is damaged."""
    sealed = [info for info in partitions if info.is_sealed]
    last = max((info.seal for info in sealed if info.seal), key=lambda seal: seal.seal_number, default=None)
    return (max(last.seal_number, len(sealed)), last.link) if last else (len(sealed), None)


def _sealed(info: SegmentInfo, file: str, sha256: str) -> SealedSegment:
    return SealedSegment(file, info.ordinal, info.segment_id, info.record_count, info.byte_length, sha256)


def _damaged(info: PartitionInfo) -> LedgerDamaged:
    return LedgerDamaged(f"{info.name} is damaged and is not sealed: {_first('; ', list(_damage_texts(info)))}")


def _damage_texts(info: PartitionInfo) -> Iterator[str]:
    for segment in info.segments:
        if segment.state is SegmentState.DAMAGED:
            runs = [
                f"{sequence_of(segment.ordinal, first)} to {sequence_of(segment.ordinal, last)}"
                for first, last in segment.damaged
            ]
            yield f"segment {segment.ordinal}, " + (f"sequences {_first(', ', runs)}" if runs else "no record known")


def _first(separator: str, texts: list[str]) -> str:
    more = [f"and {len(texts) - _TEXTS_MAX} more"] if len(texts) > _TEXTS_MAX else []
    return separator.join([*texts[:_TEXTS_MAX], *more])


@contextmanager
def _reading(partition: str) -> Iterator[None]:
    """A read that fails is told and stops nothing: nothing was written."""
    try:
        yield
    except FileNotFoundError as error:
        raise LedgerDamaged(f"{partition} is not sealed: {error.filename} is gone") from error
    except OSError as error:
        raise LedgerUnavailable(f"{partition} is not sealed, it cannot be read: {error}") from error
