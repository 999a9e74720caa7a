"""A writer whose disk fails, or is taken from it: it stops, everybody is told, nothing more is written."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ledger import Ledger, LedgerError, LedgerReader, LedgerSettings, LedgerUnavailable, Position
from tests.ledger.conftest import OpenLedger
from tests.ledger.faults import (
    DEADLINE_S,
    NOON,
    TODAY,
    Answers,
    FaultyDisk,
    append_each,
    at_noon,
    segment_of,
)

GIVEN = [b"signal-0", b"signal-1"]


def test_after_a_failed_fsync_every_waiter_fails_with_outcome_unknown(tmp_path: Path) -> None:
    disk = FaultyDisk()
    answers = Answers(disk.events)
    settings = LedgerSettings(free_bytes_min=0, idle_mark_s=3600)
    with Ledger.open(tmp_path / "ledger", on_commit=answers, settings=settings, disk=disk, now=at_noon) as ledger:
        append_each(ledger, answers, [b"durable"])
        disk.fail("fdatasync", at=2)
        for number in range(10):
            try:
                ledger.append(b"x", NOON, number)
            except LedgerUnavailable:
                answers([(number, LedgerUnavailable("refused at once"))], 0)
        told = answers.of(*range(10))
        assert {type(answer) for answer in told} == {LedgerUnavailable}
        assert "outcome unknown" in str(ledger.failure)
        assert [record.payload for record in ledger.reader().records(TODAY)] == [b"durable"]


def test_a_failed_idle_mark_is_told_though_nobody_waits_for_it(tmp_path: Path) -> None:
    disk = FaultyDisk().fail("fdatasync", at=2)
    answers = Answers(disk.events)
    settings = LedgerSettings(free_bytes_min=0, idle_mark_s=0.0)
    with Ledger.open(tmp_path / "ledger", on_commit=answers, settings=settings, disk=disk, now=at_noon) as ledger:
        append_each(ledger, answers, [b"durable"])
        with answers.changed:
            assert answers.changed.wait_for(lambda: len(answers.batches) == 2, DEADLINE_S)
        assert answers.batches[1] == []
        assert isinstance(ledger.failure, LedgerUnavailable)


def test_a_clock_that_answers_nonsense_stops_the_ledger_and_leaves_nobody_waiting(tmp_path: Path) -> None:
    moments = [NOON]
    answers = Answers()
    settings = LedgerSettings(free_bytes_min=0)
    with Ledger.open(tmp_path / "ledger", on_commit=answers, settings=settings, now=lambda: moments[-1]) as ledger:
        moments.append(NOON.replace(tzinfo=None))
        ledger.append(b"x", NOON, "waiter")
        assert isinstance(answers.of("waiter")[0], LedgerUnavailable)


def test_a_directory_that_cannot_be_made_is_refused_in_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LedgerUnavailable, match=r"^[^\n]*cannot open the ledger: [^\n]*$"):
        Ledger.open(tmp_path / "file" / "ledger", on_commit=Answers())


def test_reading_continues_after_the_writer_has_failed(tmp_path: Path) -> None:
    disk = FaultyDisk()
    answers = Answers(disk.events)
    settings = LedgerSettings(free_bytes_min=0, idle_mark_s=3600)
    with Ledger.open(tmp_path / "ledger", on_commit=answers, settings=settings, disk=disk, now=at_noon) as ledger:
        append_each(ledger, answers, [b"one", b"two"])
        disk.fail_write(at=sum(kind == "write" for kind, _ in disk.events) + 1)
        ledger.append(b"x", NOON, "lost")
        answers.of("lost")
        assert [record.payload for record in ledger.reader().records(TODAY)] == [b"one", b"two"]
    # From outside the second record is not proved durable: its mark was never written.
    assert [record.payload for record in LedgerReader(tmp_path / "ledger").records(TODAY)] == [b"one"]


def replace_lock(directory: Path) -> None:
    (directory / "LOCK").unlink()
    (directory / "LOCK").touch()


def replace_segment(directory: Path) -> None:
    shutil.copy(segment_of(directory), directory / "copy")
    (directory / "copy").replace(segment_of(directory))


TAKEN_AWAY: dict[str, Callable[[Path], object]] = {
    "lock deleted": lambda directory: (directory / "LOCK").unlink(),
    "lock replaced": replace_lock,
    "live segment deleted": lambda directory: segment_of(directory).unlink(),
    "live segment moved": lambda directory: segment_of(directory).rename(directory / "moved.log"),
    "live segment replaced": replace_segment,
    "partition renamed": lambda directory: (directory / TODAY).rename(directory / "moved"),
}


@pytest.mark.parametrize("take_away", TAKEN_AWAY.values(), ids=TAKEN_AWAY)
def test_nothing_is_acknowledged_once_the_lock_or_the_live_segment_was_taken_away(
    open_ledger: OpenLedger, directory: Path, take_away: Callable[[Path], object]
) -> None:
    answers = Answers()
    ledger = open_ledger(answers, idle_mark_s=3600)
    append_each(ledger, answers, GIVEN[:1])
    take_away(directory)
    ledger.append(GIVEN[1], NOON, "after")
    assert isinstance(answers.of("after")[0], LedgerUnavailable)
    assert isinstance(ledger.failure, LedgerUnavailable)


def test_an_idle_writer_whose_lock_was_deleted_stops_and_leaves_its_segment_to_the_next(
    open_ledger: OpenLedger, directory: Path
) -> None:
    answers = Answers()
    ledger = open_ledger(answers, idle_mark_s=3600)
    append_each(ledger, answers, GIVEN[:1])
    (directory / "LOCK").unlink()
    next_answers = Answers()
    next_ledger = open_ledger(next_answers)
    frozen = segment_of(directory).read_bytes()
    ledger.close()
    assert isinstance(ledger.failure, LedgerUnavailable)
    assert segment_of(directory).read_bytes() == frozen
    append_each(next_ledger, next_answers, GIVEN[1:2])
    assert [record.payload for record in next_ledger.reader().records(TODAY)] == GIVEN[:2]


def test_after_its_lock_was_deleted_a_writer_writes_nothing_more(open_ledger: OpenLedger, directory: Path) -> None:
    answers = Answers()
    ledger = open_ledger(answers, idle_mark_s=3600, segment_records_max=1)
    append_each(ledger, answers, GIVEN[:1])
    before = segment_of(directory).read_bytes()
    (directory / "LOCK").unlink()
    ledger.append(GIVEN[1], NOON, "after")
    assert isinstance(answers.of("after")[0], LedgerUnavailable)
    assert segment_of(directory).read_bytes() == before
    assert not segment_of(directory, 2).exists()


def test_a_batch_during_whose_fsync_the_lock_was_deleted_is_not_acknowledged(
    open_ledger: OpenLedger, directory: Path
) -> None:
    class UnlockingDisk(FaultyDisk):
        def fdatasync(self, fd: int) -> None:
            (directory / "LOCK").unlink()
            super().fdatasync(fd)

    answers = Answers()
    open_ledger(answers, disk=UnlockingDisk()).append(GIVEN[0], NOON, "during")
    assert isinstance(answers.of("during")[0], LedgerUnavailable)


def test_no_idle_mark_is_written_after_the_lock_was_deleted(open_ledger: OpenLedger, directory: Path) -> None:
    class UnlockingAnswers(Answers):
        def __call__(self, results: Sequence[tuple[object, Position | LedgerError]], written_at: int) -> None:
            (directory / "LOCK").unlink(missing_ok=True)
            super().__call__(results, written_at)

    answers = UnlockingAnswers()
    disk = FaultyDisk()
    ledger = open_ledger(answers, disk=disk, idle_mark_s=0.0)
    append_each(ledger, answers, GIVEN[:1])
    with answers.changed:
        assert answers.changed.wait_for(lambda: len(answers.batches) == 2, DEADLINE_S)
    assert isinstance(ledger.failure, LedgerUnavailable)
    assert disk.events[-1] == ("fdatasync", "segment-00000001.log")
    assert disk.events.count(disk.events[-1]) == 1
