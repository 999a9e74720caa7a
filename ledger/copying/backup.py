"""A live ledger copied up to its durable mark, into a directory that opens as a ledger.

ledger.json first, then each partition: its segments in order, its SEAL last. Each file appears whole or not at all
(temporary name, fsync, read back and compared, rename, fsync of the directory). So what is there when a backup is cut
off is an earlier state of the ledger, and running it again goes on from there. Nothing is ever deleted from a backup.

A finished segment is copied whole. A live one is copied as far as it is durable and given a FOOTER, as a clean close
would have done. Damage is copied as it is and told. `*.torn` files, LOCK and whatever lies beside the partitions stay
behind.

A copy that is there already is kept when its FOOTER is whole, lies where the file ends and speaks of the segment as it
is now: it was compared byte for byte before it got its name. So a good copy is never replaced by a source that has
rotted since. Whether the copy itself has rotted, `verify` tells.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ledger.checking.segment_check import Claims, Finding
from ledger.checking.verify import Damage, damages
from ledger.copying.segment_copy import SegmentCopy
from ledger.copying.target import refuse_unless_backup
from ledger.disk import Disk, is_no_space, make_directory, publish
from ledger.errors import BackupFailed, LedgerFull
from ledger.files.bookends import Pin
from ledger.files.head import footer_at, footer_at_end
from ledger.files.layout import LEDGER_FILE, remove_temporaries, seal_path, segment_path
from ledger.files.segment import pin_of_segment
from ledger.opening.lock import DirectoryLock
from ledger.positions import PartitionInfo, SegmentInfo, SegmentState
from ledger.reader import LedgerReader
from ledger.seal import SEAL_BYTES_MAX, encode_seal, maybe_decoded
from ledger.times import microseconds_of, utc_now

_DEFAULT_DISK = Disk()


@dataclass(frozen=True, slots=True)
class Copying:
    """About once per MiB. What is kept of an earlier run counts as copied."""

    bytes_copied: int
    bytes_total: int


@dataclass(frozen=True, slots=True)
class BackedUp:
    """The last word. `record_count` counts what the ledger held when the backup began, damaged records included."""

    ledger_id: str
    partition_count: int
    segments_copied: int
    segments_kept: int
    record_count: int
    damaged_record_count: int
    is_damaged: bool


def backup(
    reader: LedgerReader, target: Path, *, disk: Disk = _DEFAULT_DISK
) -> Generator[Copying | Damage | BackedUp, None, None]:
    """Copies what is durable when it begins; ends with BackedUp. Runs beside the writer, with either kind of reader.

    The copy is the ledger as it was at that moment: what came later is not in it. Whoever opens it in place of the
    original goes on from there under the same ledger_id; a receiver that has seen more sees a ledger that went back.
    Never run the original and a copy at the same time.

    BackupRefused before anything is changed: another ledger lies there, or one that was written to since, or one
    directory lies within the other. LedgerLocked: somebody writes there, or another backup runs. LedgerFull: `target`
    is. BackupFailed: run it again.
    """
    with _translated(target):
        infos = reader.partitions()
        refuse_unless_backup(disk, target, reader, infos)
        make_directory(disk, target)
        lock = DirectoryLock(disk, target)
        try:
            refuse_unless_backup(disk, target, reader, infos)  # by now nobody else can write there
            yield from _Backup(reader, target, disk, infos).run()
        finally:
            lock.release()


class _Backup:
    def __init__(self, reader: LedgerReader, target: Path, disk: Disk, infos: list[PartitionInfo]) -> None:
        self._reader = reader
        self._target = target
        self._disk = disk
        self._infos = infos
        self._now = microseconds_of(utc_now())
        self._bytes_done = 0
        self._bytes_total = sum(segment.byte_length for info in infos for segment in _segments(info))
        self._copied = 0
        self._kept = 0
        self._damaged_count = 0
        self._is_damaged = False

    def run(self) -> Iterator[Copying | Damage | BackedUp]:
        remove_temporaries(self._disk, self._target)
        self._copy_small(self._reader.directory / LEDGER_FILE, self._target / LEDGER_FILE)
        for info in self._infos:
            yield from self._partition(info)
        yield BackedUp(
            self._reader.ledger_id,
            len(self._infos),
            self._copied,
            self._kept,
            sum(info.record_count for info in self._infos),
            self._damaged_count,
            self._is_damaged,
        )

    def _partition(self, info: PartitionInfo) -> Iterator[Copying | Damage]:
        make_directory(self._disk, self._target / info.name)
        remove_temporaries(self._disk, self._target / info.name)
        before: Pin | None = None
        for segment in _segments(info):
            yield from self._segment(info, segment, before)
            before = pin_of_segment(segment)
            self._bytes_done += segment.byte_length
            yield Copying(self._bytes_done, self._bytes_total)
        yield from self._seal(info)

    def _segment(self, info: PartitionInfo, segment: SegmentInfo, before: Pin | None) -> Iterator[Copying | Damage]:
        source = segment_path(self._reader.directory, info.name, segment.ordinal)
        target = segment_path(self._target, info.name, segment.ordinal)
        if self._is_kept(segment, source, target):
            self._kept += 1
            yield from self._tell_known(segment)
        elif self._disk.exists(source):
            copy = SegmentCopy(self._disk, source, target, segment, self._claims(info, segment, before, source))
            for copied in copy.written():
                yield Copying(self._bytes_done + min(copied, segment.byte_length), self._bytes_total)
            for findings in copy.checked(self._now):
                yield from self._tell(segment, findings)
            copy.publish()
            self._copied += 1
        elif not self._reader.partition(info.name).is_pruned:
            yield from self._tell_missing(segment)

    def _claims(self, info: PartitionInfo, segment: SegmentInfo, before: Pin | None, source: Path) -> Claims:
        rows = {row.ordinal: row for row in info.seal.segments} if info.seal else {}
        is_finished = (
            info.is_sealed
            or segment is not info.segments[-1]
            or segment.state is SegmentState.FROZEN
            or footer_at(self._disk, source, segment.byte_length) is not None
        )
        return Claims(self._reader.ledger_id, before, is_finished, info.is_sealed, rows.get(segment.ordinal))

    def _is_kept(self, info: SegmentInfo, source: Path, target: Path) -> bool:
        copied = footer_at_end(self._disk, target) if self._disk.exists(target) else None
        if copied is None or copied.segment_id != info.segment_id:
            return False
        if info.state is SegmentState.OPEN:  # a copy made by a reader that knew of more is the better one
            return copied.byte_length >= info.byte_length
        if (copied.byte_length, copied.record_count) != (info.byte_length, info.record_count):
            return False
        footer = footer_at(self._disk, source, info.byte_length) if self._disk.exists(source) else None
        return footer in (None, copied)

    def _tell_known(self, info: SegmentInfo) -> Iterator[Damage]:
        """Of a segment that was not read now."""
        if info.state is SegmentState.DAMAGED:
            text = "known to be damaged; an earlier copy of it is kept"
            yield from self._tell(info, [Finding(first, last, text) for first, last in info.damaged or ((0, 0),)])

    def _tell_missing(self, info: SegmentInfo) -> Iterator[Damage]:
        lost = [Finding(1, info.record_count, "its file is gone")] if info.record_count else []
        yield from self._tell(info, [Finding(0, 0, "its file is gone, there is nothing to copy"), *lost])

    def _tell(self, info: SegmentInfo, findings: list[Finding]) -> Iterator[Damage]:
        if not findings:
            return
        hit = tuple((finding.first, finding.last) for finding in findings if finding.first)
        self._is_damaged = True
        self._damaged_count += sum(last - first + 1 for first, last in hit)
        self._reader.note_damage(info.partition, info.ordinal, hit)
        for finding in findings:
            yield from damages(info, finding)

    def _seal(self, info: PartitionInfo) -> Iterator[Damage]:
        """Only of a partition that was sealed when the backup began: a later SEAL may list more than was copied."""
        if not info.is_sealed:
            return
        source, target = (seal_path(directory, info.name) for directory in (self._reader.directory, self._target))
        if info.is_seal_damaged:
            self._is_damaged = True
            yield Damage(info.name, 0, 0, "the SEAL is damaged; it is copied as it is where no good copy lies already")
        if self._disk.exists(target) and maybe_decoded(self._disk.read(target, 0, SEAL_BYTES_MAX)):
            return
        current = self._reader.partition(info.name).seal  # it may say by now that the segments were pruned
        if current:
            self._publish_small(target, encode_seal(current))
        else:
            self._copy_small(source, target)

    def _copy_small(self, source: Path, target: Path) -> None:
        data = self._disk.read(source, 0, SEAL_BYTES_MAX)
        if not self._disk.exists(target) or self._disk.read(target, 0, SEAL_BYTES_MAX) != data:
            self._publish_small(target, data)

    def _publish_small(self, target: Path, data: bytes) -> None:
        self._disk.close(publish(self._disk, target, data))
        if self._disk.read(target, 0, len(data) + 1) != data:
            raise BackupFailed(f"{target} does not hold what was written to it")


def _segments(info: PartitionInfo) -> tuple[SegmentInfo, ...]:
    return () if info.is_pruned else info.segments


@contextmanager
def _translated(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if is_no_space(error):
            raise LedgerFull(f"{target}: no space for the backup: {error.strerror}") from error
        raise BackupFailed(f"{error.filename or target}: {error.strerror or error}") from error
