"""The live segment: the one file of a partition that this process created and appends to."""

import errno
import hashlib
import secrets
from collections.abc import Sequence
from pathlib import Path

from ledger.disk import Disk, publish, write_all
from ledger.files.bookends import (
    SPARSE_STEP,
    Pin,
    RecordSummary,
    SegmentFooter,
    SegmentHeader,
    encode_footer,
    encode_header,
    encode_mark,
)
from ledger.format import (
    FLAG_BATCH_END,
    MAGIC,
    TYPE_COMMIT_MARK,
    TYPE_FOOTER,
    TYPE_HEADER,
    TYPE_RECORD,
    UNSEEDED,
    encode_frame,
    seed_of,
)
from ledger.positions import SegmentInfo, SegmentState, sequence_of

WRITER_VERSION = "omen-ledger/1"
Entry = tuple[bytes, int]  # payload, emitted_at in microseconds


class LiveSegment:
    """Used by the flusher thread alone, except `info` and `seek`, which any thread may ask.

    Every OSError leaves the file as it is: the caller must not use the segment again.
    """

    def __init__(self, disk: Disk, path: Path, header: SegmentHeader) -> None:
        """Creates the file, durable under its name, with both copies of its HEADER."""
        head = encode_frame(
            TYPE_HEADER, encode_header(header), seed=UNSEEDED, durable_offset=0, written_at=header.created_at
        )
        data = MAGIC + head + head
        self._disk = disk
        self._path = path
        self._header = header
        self._seed = seed_of(header.segment_id)
        self._sha256 = hashlib.sha256(data)
        self._summary = RecordSummary()
        self._end = len(data)
        self._durable_end = len(data)
        self.has_unmarked_batch = False
        self.info = self._info(SegmentState.OPEN)
        self._fd = publish(disk, path, data)

    @property
    def record_count(self) -> int:
        """Written so far, durable or not."""
        return self._summary.record_count

    @property
    def byte_length(self) -> int:
        """Written so far, durable or not."""
        return self._end

    def append(self, entries: Sequence[Entry], written_at: int) -> int:
        """Writes one batch and returns the sequence of its first record. Nothing is durable before sync()."""
        first = sequence_of(self._header.ordinal, self.record_count + 1)
        frames: list[bytes] = []
        offsets: list[int] = []
        offset = self._end
        for sequence, (payload, emitted_at) in enumerate(entries, first):
            frame = encode_frame(
                TYPE_RECORD,
                payload,
                seed=self._seed,
                durable_offset=self._durable_end,
                written_at=written_at,
                emitted_at=emitted_at,
                sequence=sequence,
                flags=FLAG_BATCH_END if sequence - first == len(entries) - 1 else 0,
            )
            frames.append(frame)
            offsets.append(offset)
            offset += len(frame)
        self._summary.add(offsets, [emitted_at for _, emitted_at in entries])
        self._write(b"".join(frames))
        self.has_unmarked_batch = True
        return first

    def seek(self, record_index: int) -> tuple[int, int] | None:
        """(index, offset) of a record that is near, and not behind it; None before the first. Any thread."""
        sparse = self._summary.sparse
        return sparse[min((record_index - 1) // SPARSE_STEP, len(sparse) - 1)] if sparse else None

    def sync(self) -> None:
        """Moves the durable mark to everything written. OSError too when somebody has moved or deleted the file."""
        if self._durable_end == self._end:
            return
        self._disk.fdatasync(self._fd)
        if not self._disk.is_named(self._fd, self._path):
            raise OSError(errno.ENOENT, f"{self._path} was moved or deleted while it was written to")
        self._durable_end = self._end
        self.info = self._info(SegmentState.OPEN)

    def mark(self, written_at: int) -> None:
        """Writes down that the last batch was durable, so that a reader of the file can know."""
        self._write_bare(TYPE_COMMIT_MARK, encode_mark(self.record_count), written_at)
        self.has_unmarked_batch = False
        self.sync()

    def freeze(self, written_at: int) -> SegmentInfo:
        """Appends the FOOTER after everything before it is durable, and closes the file.

        The mark before it says the same of the last batch, should the FOOTER rot.
        """
        self.sync()
        if self.has_unmarked_batch:
            self.mark(written_at)
        footer = self._summary.footer(self._header.segment_id, self._end, self._sha256.hexdigest())
        write_footer(self._disk, self._fd, footer, written_at)
        self.info = self._info(SegmentState.FROZEN)
        self.close()
        return self.info

    def close(self) -> None:
        """Without a FOOTER: what recovery will find after a failure."""
        self._disk.close(self._fd)

    def _write_bare(self, kind: int, payload: bytes, written_at: int) -> None:
        self._write(
            encode_frame(kind, payload, seed=self._seed, durable_offset=self._durable_end, written_at=written_at)
        )

    def _write(self, data: bytes) -> None:
        write_all(self._disk, self._fd, data)
        self._sha256.update(data)
        self._end += len(data)

    def _info(self, state: SegmentState) -> SegmentInfo:
        header = self._header
        return SegmentInfo(header.partition, header.ordinal, header.segment_id, self.record_count, self._end, (), state)


def pin_of_segment(info: SegmentInfo) -> Pin:
    """What the successor's HEADER is to say of a finished segment."""
    return Pin(info.ordinal, info.segment_id, info.record_count, info.byte_length)


def create_segment(
    disk: Disk, path: Path, *, ledger_id: str, partition: str, prev: Pin | None, created_at: int
) -> LiveSegment:
    """The segment after `prev`, or the first of its partition. FileExistsError when that ordinal was ever used."""
    if disk.exists(path):
        raise FileExistsError(f"{path} exists: an ordinal is never used twice")
    ordinal = prev.ordinal + 1 if prev else 1
    header = SegmentHeader(ledger_id, partition, ordinal, secrets.token_bytes(16), created_at, WRITER_VERSION, prev)
    return LiveSegment(disk, path, header)


def write_footer(disk: Disk, fd: int, footer: SegmentFooter, written_at: int) -> None:
    """Appends a FOOTER at footer.byte_length, which is durable already, and makes it durable too."""
    frame = encode_frame(
        TYPE_FOOTER,
        encode_footer(footer),
        seed=seed_of(footer.segment_id),
        durable_offset=footer.byte_length,
        written_at=written_at,
    )
    write_all(disk, fd, frame)
    disk.fdatasync(fd)
