"""Sealing when something goes wrong: a full or failing disk, a crash at any moment."""

import errno
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from hashlib import sha256
from itertools import count
from pathlib import Path
from threading import Event
from time import monotonic

import pytest

from ledger import (
    Damage,
    Disk,
    Ledger,
    LedgerDamaged,
    LedgerFull,
    LedgerReader,
    LedgerUnavailable,
    Recovered,
    Seal,
)
from ledger.disk import write_all
from ledger.files.bookends import SegmentFooter
from ledger.files.head import footer_at
from ledger.files.segment import write_footer
from tests.ledger.conftest import OpenLedger
from tests.ledger.decoder import decode_seal
from tests.ledger.faults import (
    DEADLINE_S,
    DUE,
    FIVE,
    NOON,
    TODAY,
    Answers,
    Clock,
    FaultyDisk,
    append_each,
    crash_image,
    cut_tail,
    flip_byte,
    reopened,
    seal_path,
    segment_of,
    served,
)

DAY = timedelta(days=1)


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk()


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
def test_whichever_operation_fails_the_day_is_sealed_whole_or_not_at_all_and_can_be_sealed_again(
    tmp_path: Path, open_ledger: OpenLedger, clock: Clock, error: int
) -> None:
    for at in count(1):
        clock.moment = NOON
        directory, disk, answers = tmp_path / str(at), FaultyDisk(), Answers()
        ledger = open_ledger(answers, directory, disk, clock, segment_records_max=2, idle_mark_s=3600)
        append_each(ledger, answers, FIVE)
        clock.moment = DUE
        disk.fail("any", at=disk._counts["any"] + at, with_=error)
        told = seal_or_failure(ledger)
        if ("failed", "chmod") not in disk.events and disk.has_failed:
            assert isinstance(told, LedgerUnavailable), at
            assert "outcome unknown" in str(told)
            with pytest.raises(LedgerUnavailable):
                ledger.append(b"after", DUE, "after")
        else:
            assert isinstance(told, Seal), at
        ledger.close()
        before = seal_path(directory).exists()
        again = open_ledger(Answers(), directory, now=clock)
        assert again.partition(TODAY).is_sealed == before
        assert again.seal(TODAY).seal_number == 1
        assert again.recovered == Recovered((), ())
        assert [record.payload for record in again.reader().records(TODAY)] == FIVE, at
        decode_seal(seal_path(directory))
        if not disk.has_failed:
            assert at > 10
            return


def seal_or_failure(ledger: Ledger) -> Seal | LedgerUnavailable:
    try:
        return ledger.seal(TODAY)
    except LedgerUnavailable as error:
        return error


def test_a_footer_that_cannot_be_read_now_stops_nothing(open_ledger: OpenLedger, clock: Clock) -> None:
    class UnreadableDisk(FaultyDisk):
        unreadable = ""

        def read(self, path: Path, offset: int, size: int) -> bytes:
            if path.name == self.unreadable:
                raise OSError(errno.EIO, "cannot be read")
            return super().read(path, offset, size)

    answers, disk = Answers(), UnreadableDisk()
    ledger = open_ledger(answers, now=clock, disk=disk, segment_records_max=2)
    append_each(ledger, answers, FIVE)
    clock.moment = DUE
    for disk.unreadable in ("segment-00000001.log", "segment-00000003.log"):
        with pytest.raises(LedgerUnavailable, match="is not sealed, it cannot be read"):
            ledger.seal(TODAY)
        assert ledger.failure is None
    disk.unreadable = ""
    assert ledger.seal(TODAY).total_records == 5


def test_below_the_free_space_floor_nothing_is_changed(
    open_ledger: OpenLedger, directory: Path, clock: Clock, disk: FaultyDisk
) -> None:
    answers = Answers()
    ledger = open_ledger(answers, now=clock, disk=disk, free_bytes_min=1000, idle_mark_s=3600)
    append_each(ledger, answers, FIVE)
    clock.moment = DUE
    before = segment_of(directory).read_bytes()
    disk.free = 999
    with pytest.raises(LedgerFull, match="2026-01-29 is not sealed"):
        ledger.seal(TODAY)
    assert segment_of(directory).read_bytes() == before
    assert not ledger.partition(TODAY).is_sealed
    disk.free = 1 << 40
    assert ledger.seal(TODAY).total_records == 5


def test_a_segment_that_recovery_had_no_space_to_finish_is_sealed_once_there_is_space(
    crashed: Path, open_ledger: OpenLedger, clock: Clock, disk: FaultyDisk
) -> None:
    clock.moment = DUE
    disk.free = 10
    ledger = open_ledger(Answers(), crashed, disk, clock, free_bytes_min=1000)
    disk.free = 1 << 40
    with pytest.raises(LedgerFull, match="segment 1 has no FOOTER"):
        ledger.seal(TODAY)
    ledger.close()
    assert not seal_path(crashed).exists()
    assert open_ledger(Answers(), crashed, now=clock).seal(TODAY).total_records == 5
    decode_seal(seal_path(crashed))


def test_a_torn_segment_that_its_successor_pins_is_sealed_as_far_as_it_is_pinned(
    crashed: Path, open_ledger: OpenLedger, clock: Clock, disk: FaultyDisk
) -> None:
    cut_tail(segment_of(crashed), 1)
    disk.free = 10
    answers = Answers()
    ledger = open_ledger(answers, crashed, disk, clock, free_bytes_min=1000)
    disk.free = 1 << 40
    append_each(ledger, answers, [b"six"])
    clock.moment = DUE
    torn = segment_of(crashed).read_bytes()
    seal = ledger.seal(TODAY)
    assert segment_of(crashed).read_bytes() == torn
    assert [segment.record_count for segment in seal.segments] == [4, 1]
    assert seal.segments[0].sha256 == sha256(torn[: seal.segments[0].byte_length]).hexdigest()
    ledger.close()
    assert not reopened(crashed).damaged
    assert served(crashed) == [*FIVE[:4], b"six"]


def test_rot_that_sealing_comes_upon_is_damage(due: Ledger, directory: Path) -> None:
    flip_byte(segment_of(directory), segment_of(directory).read_bytes().index(FIVE[1]))
    flip_byte(segment_of(directory), segment_of(directory).stat().st_size - 60)  # its FOOTER, so that all of it is read
    with pytest.raises(LedgerDamaged, match=f"segment 1, sequences {1 << 32 | 2} to {1 << 32 | 2}"):
        due.seal(TODAY)
    assert due.partition(TODAY).damaged


def test_a_seal_is_not_told_of_when_the_lock_went_while_it_was_published(
    open_ledger: OpenLedger, directory: Path, clock: Clock
) -> None:
    class UnlockingDisk(FaultyDisk):
        def rename(self, source: Path, target: Path) -> None:
            super().rename(source, target)
            if target.name == "SEAL":
                (directory / "LOCK").unlink()

    answers = Answers()
    ledger = open_ledger(answers, disk=UnlockingDisk(), now=clock)
    append_each(ledger, answers, FIVE)
    clock.moment = DUE
    with pytest.raises(LedgerUnavailable, match="outcome unknown"):
        ledger.seal(TODAY)


def test_a_footer_of_any_size_is_read_back(tmp_path: Path) -> None:
    sparse = tuple((index * 256 + 1, index) for index in range(40_000))
    footer = SegmentFooter(b"x" * 16, 40_000 * 256, 64, 1, 2, sparse, "digest")
    path = tmp_path / "segment"
    fd = Disk().create(path)
    write_all(Disk(), fd, bytes(64))
    write_footer(Disk(), fd, footer, 0)
    Disk().close(fd)
    assert path.stat().st_size > 500_000
    assert footer_at(Disk(), path, 64) == footer


class HeldDisk(FaultyDisk):
    """Holds the flusher in the fdatasync of one batch until `release` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.is_held = Event()
        self.release = Event()
        self.holds = False

    def fdatasync(self, fd: int) -> None:
        if self.holds:
            self.is_held.set()
            assert self.release.wait(DEADLINE_S)
        super().fdatasync(fd)


def wait_until(has_come: Callable[[], bool]) -> None:
    deadline = monotonic() + DEADLINE_S
    while not has_come():
        assert monotonic() < deadline


def while_an_errand_waits(
    open_ledger: OpenLedger, clock: Clock, disk: HeldDisk, then: Callable[[Ledger], None]
) -> Seal:
    """Calls `then` when a seal waits behind a batch that is on its way to the disk; what comes of the seal."""
    answers = Answers()
    ledger = open_ledger(answers, disk=disk, now=clock, idle_mark_s=3600)
    append_each(ledger, answers, FIVE)
    clock.moment = DUE
    disk.holds = True
    ledger.append(b"held", DUE, "held")
    assert disk.is_held.wait(DEADLINE_S)
    with ThreadPoolExecutor(2) as threads:
        sealing = threads.submit(ledger.seal, TODAY)
        wait_until(lambda: bool(ledger._queue._errands))
        ending = threads.submit(then, ledger)
        wait_until(lambda: then is not Ledger.close or ledger._queue._refusal is not None)
        disk.holds = False
        disk.release.set()
        ending.result(DEADLINE_S)
        return sealing.result(DEADLINE_S)


def test_whoever_waits_for_a_seal_is_told_when_the_ledger_fails(open_ledger: OpenLedger, clock: Clock) -> None:
    disk = HeldDisk()
    disk.fail("fdatasync", at=6)
    with pytest.raises(LedgerUnavailable, match="outcome unknown"):
        while_an_errand_waits(open_ledger, clock, disk, lambda ledger: None)


def test_whoever_waits_for_a_seal_gets_it_though_the_ledger_closes(open_ledger: OpenLedger, clock: Clock) -> None:
    assert while_an_errand_waits(open_ledger, clock, HeldDisk(), Ledger.close).total_records == 5


@pytest.mark.parametrize("has_temporary", [True, False], ids=["SEAL.tmp", "no SEAL.tmp"])
def test_a_crash_before_the_seal_leaves_a_day_that_can_be_sealed(
    sealed: Path, open_ledger: OpenLedger, clock: Clock, has_temporary: bool
) -> None:
    temporary = seal_path(sealed).with_name("SEAL.tmp")
    seal_path(sealed).rename(temporary)
    if not has_temporary:
        temporary.unlink()
    ledger = open_ledger(Answers(), now=clock)
    assert ledger.due_partitions(DUE) == [TODAY]
    assert ledger.seal(TODAY).total_records == 5
    assert not temporary.exists()
    decode_seal(seal_path(sealed))


def test_a_crash_before_the_segments_were_made_read_only_is_made_up_for(sealed: Path, open_ledger: OpenLedger) -> None:
    segment_of(sealed, 2).chmod(0o644)
    open_ledger(Answers())
    assert {file.stat().st_mode & 0o777 for file in (sealed / TODAY).glob("*.log")} == {0o400}


def test_the_last_seal_is_durable_before_anything_follows_from_it(sealed: Path, open_ledger: OpenLedger) -> None:
    disk = FaultyDisk()
    open_ledger(Answers(), disk=disk)
    assert ("fsync_dir", TODAY) in disk.events


def unsupported_by_anything(directory: Path) -> None:
    flip_byte(seal_path(directory), 70)
    cut_tail(segment_of(directory, 3), 300)


HURT: dict[str, Callable[[Path], object]] = {
    "whole": lambda directory: None,
    "record damaged": lambda directory: flip_byte(segment_of(directory, 2), 700),
    "FOOTER cut off": lambda directory: cut_tail(segment_of(directory, 3), 300),
    "records cut off": lambda directory: segment_of(directory, 3).write_bytes(b""),
    "temporary left": lambda directory: seal_path(directory).with_name("SEAL.tmp").touch(),
    "SEAL damaged": lambda directory: flip_byte(seal_path(directory), 70),
    "SEAL damaged, FOOTER cut off": unsupported_by_anything,
}


@pytest.mark.parametrize("hurt", HURT.values(), ids=HURT)
def test_opening_changes_nothing_in_a_sealed_partition(
    sealed: Path, open_ledger: OpenLedger, hurt: Callable[[Path], None]
) -> None:
    for file in (sealed / TODAY).iterdir():
        file.chmod(0o644)
    hurt(sealed)
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in (sealed / TODAY).iterdir()}
    with open_ledger(Answers()) as ledger:
        assert ledger.partition(TODAY).is_sealed
    assert {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in (sealed / TODAY).iterdir()} == before


@pytest.mark.parametrize("content", ["empty", "foreign", "a copy"])
def test_a_file_beyond_what_the_seal_lists_is_no_part_of_the_partition(
    sealed: Path, open_ledger: OpenLedger, content: str
) -> None:
    stray = segment_of(sealed, 4)
    stray.write_bytes({"empty": b"", "foreign": b"x" * 999, "a copy": segment_of(sealed, 3).read_bytes()}[content])
    for info in (open_ledger(Answers()).partition(TODAY), LedgerReader(sealed).partition(TODAY)):
        assert (len(info.segments), info.record_count, info.damaged) == (3, 5, False)
    assert served(sealed) == FIVE
    with pytest.raises(KeyError):
        LedgerReader(sealed).segment_cursor(TODAY, 4)


def test_a_crash_in_the_middle_of_a_seal_loses_nothing(due: Ledger, directory: Path, tmp_path: Path) -> None:
    image = crash_image(directory, tmp_path / "before")
    due.seal(TODAY)
    shutil.copy(segment_of(directory, 3), segment_of(image, 3))  # the FOOTER was written, the SEAL was not
    info = reopened(image)
    assert (info.is_sealed, info.record_count, info.damaged) == (False, 5, False)
    assert served(image) == FIVE


@pytest.mark.parametrize("ordinal", [1, 2])
def test_rot_in_a_finished_segment_that_nobody_has_read_is_not_sealed_in(
    due: Ledger, directory: Path, ordinal: int
) -> None:
    segment = segment_of(directory, ordinal)
    flip_byte(segment, segment.read_bytes().index(FIVE[2 * ordinal - 1]))
    with pytest.raises(LedgerDamaged, match=f"segment {ordinal} does not have the sha256 of its FOOTER"):
        due.seal(TODAY)
    assert due.partition(TODAY).damaged  # whoever asks again is refused without reading it all again
    assert not seal_path(directory).exists()
    assert due.failure is None
    assert any(isinstance(each, Damage) and each.sequence for each in due.reader().verify(TODAY))
    with pytest.raises(LedgerDamaged, match=f"segment {ordinal}, sequences {ordinal << 32 | 2} to"):
        due.seal(TODAY)
