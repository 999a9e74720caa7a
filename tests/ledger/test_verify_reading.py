"""Verify beside a writer, over tails that never were durable, on a disk that fails, in bounded memory."""

import errno
import os
import random
import shutil
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from ledger import (
    Disk,
    Ledger,
    LedgerReader,
    LedgerSettings,
    Progress,
)
from ledger.files.head import read_head
from ledger.files.layout import seal_path
from ledger.format import TYPE_COMMIT_MARK, encode_frame, seed_of
from tests.ledger.conftest import OpenLedger
from tests.ledger.faults import (
    FIVE,
    NOON,
    TODAY,
    Answers,
    append_each,
    cut_tail,
    flip_byte,
    frame_starts,
    one_batch,
    overwrite,
    segment_of,
    zero_tail,
)
from tests.ledger.sealed_days import (
    AFTER,
    DAYS,
    add_bytes,
    found,
    rewrite_footer,
    sealed_ledger,
    starts,
    texts,
    verified,
)
from tests.ledger.test_processes import acknowledged_until, writer_process


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    return sealed_ledger(tmp_path / "sealed")


def test_a_mark_that_counts_wrongly_is_named(marked: Path, open_ledger: OpenLedger) -> None:
    open_ledger(Answers(), marked).close()
    path = segment_of(marked)
    header = read_head(Disk(), path).header
    assert header
    at = starts(path)[7]
    seed = seed_of(header.segment_id)
    for count, expected in ((4, "counts 4 records, before it are 5"), (6, "are no frame; no record was there")):
        mark = encode_frame(TYPE_COMMIT_MARK, count.to_bytes(8, "little"), seed=seed, durable_offset=0, written_at=0)
        overwrite(path, at, mark)
        assert expected in texts(found(LedgerReader(marked)))


def test_what_lies_behind_a_pin_and_never_was_anything_is_no_damage(sealed: Path) -> None:
    """Left by a crash when there was no space to cut it off; the successor pins what counts."""
    for partition in DAYS:
        seal_path(sealed, partition).unlink()
    path = segment_of(sealed)
    os.truncate(path, starts(path)[-1])
    assert found(LedgerReader(sealed)) == []
    whole = path.read_bytes()
    for tail in (bytes(64), b"garbage" * 99, random.Random(5).randbytes(1000)):
        path.write_bytes(whole + tail)
        assert found(LedgerReader(sealed)) == [], tail


def test_a_torn_tail_is_no_damage_and_neither_is_a_mark_that_never_came(crashed: Path, marked: Path) -> None:
    for directory in (crashed, marked):
        for change in (cut_tail, zero_tail):
            image = shutil.copytree(directory, directory.parent / "image")
            assert found(LedgerReader(image)) == []
            change(segment_of(image), 20)
            assert found(LedgerReader(image)) == []
            shutil.rmtree(image)


def test_no_byte_of_a_ledger_that_was_closed_can_be_flipped_without_being_told(
    open_ledger: OpenLedger, directory: Path
) -> None:
    answers = Answers()
    with open_ledger(answers, idle_mark_s=3600) as ledger:
        append_each(ledger, answers, FIVE)
    for at in range(segment_of(directory).stat().st_size):
        flip_byte(segment_of(directory), at)
        reader = LedgerReader(directory)
        assert found(reader), f"byte {at}"
        assert verified(reader).intact_record_count >= 4
        assert reader.partition(TODAY).record_count == 5
        flip_byte(segment_of(directory), at)
    assert found(LedgerReader(directory)) == []


def test_a_footer_that_is_not_written_to_its_end_is_no_damage(open_ledger: OpenLedger, directory: Path) -> None:
    answers = Answers()
    with open_ledger(answers, idle_mark_s=3600) as ledger:
        append_each(ledger, answers, FIVE)
    for _ in range(3):
        cut_tail(segment_of(directory), 60)
        assert found(LedgerReader(directory)) == []
        assert verified(LedgerReader(directory)).intact_record_count == 5


def test_beside_the_writer_bytes_that_were_never_synced_are_nobodys_damage(
    open_ledger: OpenLedger, directory: Path
) -> None:
    answers = Answers()
    ledger = open_ledger(answers, idle_mark_s=3600)
    append_each(ledger, answers, FIVE)
    durable = segment_of(directory).stat().st_size
    for garbage in (bytes(999), random.Random(3).randbytes(2000), segment_of(directory).read_bytes()[-56:-7]):
        os.truncate(segment_of(directory), durable)
        add_bytes(segment_of(directory), garbage)
        for reader, least in ((ledger.reader(), 5), (LedgerReader(directory), 4)):
            assert found(reader) == []
            assert verified(reader).intact_record_count >= least
            assert not reader.partition(TODAY).damaged
    os.truncate(segment_of(directory), durable)


def test_damage_below_the_durable_mark_of_a_live_segment_is_named_and_the_segment_grows_on(
    open_ledger: OpenLedger, directory: Path
) -> None:
    answers = Answers()
    ledger = open_ledger(answers, idle_mark_s=3600)
    append_each(ledger, answers, FIVE)
    flip_byte(segment_of(directory), frame_starts(directory)[1] + 48)
    for reader in (ledger.reader(), LedgerReader(directory)):
        assert [each.sequence for each in found(reader)] == [1 << 32 | 2]
        assert reader.partition(TODAY).segments[0].damaged == ((2, 2),)
    append_each(ledger, answers, [b"six"])
    assert [each.sequence for each in found(ledger.reader())] == [1 << 32 | 2]
    assert verified(ledger.reader()).intact_record_count == 5


def test_beside_a_writer_under_load_in_another_process_nothing_is_ever_called_damage(directory: Path) -> None:
    with writer_process(directory, "live") as process:
        assert process.stdout
        process.stdout.readline()
        reader = LedgerReader(directory)
        counts = [0]
        while counts[-1] < 1500:  # three segments
            infos = reader.partitions()
            assert [damage for info in infos for damage in found(reader, info.name)] == []
            counts.append(sum(verified(reader, info.name).intact_record_count for info in infos))
        assert counts == sorted(counts)
        acknowledged_until(process, 1)


def test_beside_a_writer_of_the_same_process_everything_acknowledged_is_verified(
    open_ledger: OpenLedger, directory: Path
) -> None:
    answers = Answers()
    ledger = open_ledger(answers, segment_records_max=40, idle_mark_s=0.0)
    for number in range(30):
        given = [f"{number}-{each}".encode() for each in range(20)]
        for payload in given:
            ledger.append(payload, NOON, payload)
        assert found(ledger.reader()) == [] if ledger.partitions() else True
        answers.positions(*given)
        assert verified(ledger.reader()).intact_record_count == 20 * (number + 1)


def test_what_is_found_twice_is_told_twice_and_known_once(sealed: Path, open_ledger: OpenLedger) -> None:
    flip_byte(segment_of(sealed, 2), starts(segment_of(sealed, 2))[-1] + 60)
    reader = open_ledger(Answers(), sealed).reader()
    assert texts(found(reader)) == texts(found(reader)) != ""
    (info,) = [segment for segment in reader.partition(TODAY).segments if segment.ordinal == 2]
    assert info.damaged == ()


def test_damage_that_is_gone_when_it_is_read_again_is_still_told(sealed: Path) -> None:
    path = segment_of(sealed)
    whole = path.read_bytes()
    flip_byte(path, starts(path)[2] + 48)
    reader = LedgerReader(sealed)
    assert found(reader)
    path.write_bytes(whole)
    assert texts(found(reader)) == "1 0: it was found damaged earlier; every byte of it is whole now"
    assert found(LedgerReader(sealed)) == []


class FailingDisk(Disk):
    """Every read that touches one byte fails."""

    def __init__(self, path: Path, offset: int, error: int) -> None:
        self._failing, self.offset, self._error = path, offset, error

    def read(self, path: Path, offset: int, size: int) -> bytes:
        if path == self._failing and offset <= self.offset < offset + size:
            raise OSError(self._error, os.strerror(self._error))
        return super().read(path, offset, size)


def long_segment(directory: Path, records: int = 700, payload_bytes: int = 4096) -> Path:
    """One segment of a few MiB, frozen."""
    answers = Answers()
    settings = LedgerSettings(free_bytes_min=0, idle_mark_s=3600)
    with Ledger.open(directory, on_commit=answers, settings=settings, now=lambda: NOON) as ledger:
        with one_batch(ledger):
            for number in range(records):
                ledger.append(number.to_bytes(4, "little") + bytes(payload_bytes), NOON, number)
        answers.positions(*range(records))
    return segment_of(directory)


def test_a_sector_that_cannot_be_read_costs_what_lies_in_it(directory: Path) -> None:
    path = long_segment(directory)
    at = starts(path)[2 + 300]
    told = texts(found(reader := LedgerReader(directory, disk=FailingDisk(path, at + 100, errno.EIO))))
    assert "1 0: some of bytes " in told
    assert "cannot be read: Input/output error" in told
    damaged = {each.sequence & 0xFFFF_FFFF for each in found(reader) if each.sequence}
    assert damaged in ({301}, {300, 301}, {301, 302})
    assert verified(reader).intact_record_count == 700 - len(damaged)


def test_zeros_that_cannot_be_read_are_not_taken_for_zeros_that_were_written(directory: Path) -> None:
    path = long_segment(directory, payload_bytes=16_384)
    at = starts(path)[2 + 300]
    reader = LedgerReader(directory, disk=FailingDisk(path, at + 9_000, errno.EIO))
    assert "cannot be read: Input/output error" in texts(found(reader))
    assert reader.partition(TODAY).damaged


def test_a_seal_that_cannot_be_read_is_damaged(sealed: Path) -> None:
    disk = FailingDisk(seal_path(sealed, TODAY), 5, errno.EIO)
    assert "is damaged" in texts(found(LedgerReader(sealed, disk=disk), AFTER))


def test_an_error_that_says_nothing_about_the_bytes_ends_it_and_is_no_damage(directory: Path) -> None:
    path = long_segment(directory)
    disk = FailingDisk(path, 2_000_000, errno.EMFILE)
    reader = LedgerReader(directory, disk=disk)
    with pytest.raises(OSError, match="Too many open files"):
        list(reader.verify(TODAY))
    disk.offset = -1
    assert not reader.partition(TODAY).damaged


def test_progress_comes_about_once_a_mebibyte_and_every_byte_is_read_about_once(directory: Path) -> None:
    class Counting(Disk):
        count = 0

        def read(self, path: Path, offset: int, size: int) -> bytes:
            data = super().read(path, offset, size)
            self.count += len(data)
            return data

    size = long_segment(directory, 3000).stat().st_size
    disk = Counting()
    reader = LedgerReader(directory, disk=disk)
    reader.partitions()
    disk.count = 0
    progress = [each.bytes_read for each in reader.verify(TODAY) if isinstance(each, Progress)]
    assert disk.count < size * 1.1 + 300_000
    assert progress[-1] == size
    assert all(after - before <= 6 << 20 for before, after in pairwise([0, *progress]))
    assert size / (2 << 20) < len(progress) < size / (1 << 20) + 4


def test_memory_does_not_follow_the_size_of_a_hostile_file(directory: Path) -> None:
    """A quarter of a GiB of nothing, sparse, behind and inside a segment; and a length field that promises 4 GiB."""
    path = long_segment(directory, 50)
    whole, at = path.read_bytes(), starts(path)
    changes: list[Callable[[], None]] = [
        lambda: os.truncate(path, 1 << 28),
        lambda: overwrite(path, at[5] + 8, b"\xff\xff\xff\xff"),
        lambda: rewrite_footer(path, byte_length=1 << 28),
    ]
    for change in changes:
        path.write_bytes(whole)
        change()
        tracemalloc.start()
        list(LedgerReader(directory).verify(TODAY))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 24 << 20
