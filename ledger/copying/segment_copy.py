"""One segment from the ledger into a backup: copied in pieces, read back, and only then given its name."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from ledger.checking.segment_check import Claims, Finding, SegmentCheck
from ledger.disk import Disk, sha256_of, write_all
from ledger.errors import BackupFailed
from ledger.files.bookends import encode_mark
from ledger.files.salvage import STRIDE_BYTES, SalvagedReads
from ledger.files.segment import write_footer
from ledger.format import TYPE_COMMIT_MARK, encode_frame, seed_of
from ledger.positions import SEGMENT_ID_UNKNOWN, SegmentInfo


class SegmentCopy:
    """written(), checked(), publish(): in this order, each to its end.

    A finished segment is copied whole, a live one up to its byte_length.
    """

    def __init__(self, disk: Disk, source: Path, target: Path, info: SegmentInfo, claims: Claims) -> None:
        self._disk = disk
        self._reads = SalvagedReads(disk)
        self._source = source
        self._target = target
        self._temporary = target.with_name(target.name + ".tmp")
        self._info = info
        self._claims = claims
        self._sha256 = hashlib.sha256()
        self._file_bytes = 0

    def written(self) -> Iterator[int]:
        """How many bytes are copied, MiB by MiB. They are durable in the end, under a temporary name."""
        end = self._reads.size(self._source) if self._claims.is_finished else self._info.byte_length
        fd = self._disk.create(self._temporary)
        try:
            while data := self._reads.read(self._source, self._file_bytes, min(STRIDE_BYTES, end - self._file_bytes)):
                write_all(self._disk, fd, data)
                self._sha256.update(data)
                self._file_bytes += len(data)
                yield self._file_bytes
            self._disk.fsync(fd)
            self._disk.drop_cache(fd)
        finally:
            self._disk.close(fd)

    def checked(self, now: int) -> Iterator[list[Finding]]:
        """The damage that was copied. BackupFailed when the copy is not what was copied."""
        if sha256_of(self._disk, self._temporary, self._file_bytes) != self._sha256.hexdigest():
            raise BackupFailed(f"{self._target} does not hold what was written to it")
        check = SegmentCheck(self._disk, self._temporary, self._info, self._claims)
        yield from check.strides()
        if unreadable := self._reads.unreadable:
            yield [Finding(0, 0, "some of bytes {} to {} cannot be read: the copy has zeros there".format(*unreadable))]
        is_short = self._file_bytes < self._info.byte_length
        if not self._claims.is_finished and not is_short and self._info.segment_id != SEGMENT_ID_UNKNOWN:
            self._finish(check, now)

    def publish(self) -> None:
        """From now on the copy has its name, in place of the one that had it before."""
        self._disk.rename(self._temporary, self._target)
        self._disk.fsync_dir(self._target.parent)

    def _finish(self, check: SegmentCheck, now: int) -> None:
        """The end of a copy of a live segment: what shows whoever opens it that all of it was durable.

        A FOOTER would be trusted when the copy is opened. So a damaged one gets a mark, and is looked through then.
        """
        fd = self._disk.open_existing(self._temporary)
        try:
            if check.is_clean:
                footer = check.summary.footer(self._info.segment_id, self._file_bytes, check.sha256)
                write_footer(self._disk, fd, footer, now)
            else:
                write_all(self._disk, fd, self._mark(now))
                self._disk.fdatasync(fd)
        finally:
            self._disk.close(fd)

    def _mark(self, now: int) -> bytes:
        payload = encode_mark(self._info.record_count)
        seed = seed_of(self._info.segment_id)
        return encode_frame(TYPE_COMMIT_MARK, payload, seed=seed, durable_offset=self._file_bytes, written_at=now)
