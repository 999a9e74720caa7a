"""Pruning: what a sealed day held goes for good, its SEAL stays, and a half of it is never called damage."""

import errno
import shutil
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from ledger import Damage, Ledger, LedgerDamaged, LedgerFull, LedgerReader, LedgerUnavailable, NotSealed
from ledger import Pruned as PrunedAnswer
from ledger.checking.verify import Verified
from ledger.errors import LedgerClosed
from tests.ledger.conftest import OpenLedger
from tests.ledger.faults import (
    DUE,
    FIVE,
    LATE,
    NOON,
    TODAY,
    TOMORROW,
    Answers,
    Clock,
    FaultyDisk,
    append_each,
    crash_image,
    flip_byte,
    segment_of,
)
from tests.ledger.sealed_days import BEFORE, DAYS, seal_of, sealed_ledger


def pruned(ledger: Ledger, partition: str = TODAY) -> PrunedAnswer:
    told = list(ledger.prune(partition))[-1]
    assert isinstance(told, PrunedAnswer)
    return told


def payloads(ledger: Ledger, partition: str = TODAY) -> list[bytes]:
    return [record.payload for record in ledger.reader().records(partition)]


def assert_whole_or_pruned(directory: Path, open_ledger: OpenLedger) -> bool:
    """Whether the day is pruned, as a new process finds it, and a reader beside it."""
    ledger = open_ledger(Answers(), directory, now=lambda: DUE)
    info = ledger.partition(TODAY)
    assert (info.is_sealed, info.damaged, info.record_count) == (True, False, 5)
    assert ledger.recovered.damaged == ()
    outside = LedgerReader(directory)
    assert outside.partition(TODAY) == info
    assert [told for told in outside.verify(TODAY) if isinstance(told, Damage)] == []
    if not info.is_pruned:
        assert payloads(ledger) == FIVE
    assert pruned(ledger).partition == TODAY  # from wherever it stands
    ledger.close()
    assert [path.name for path in (directory / TODAY).iterdir()] == ["SEAL"]
    return info.is_pruned


def test_a_pruned_day_is_its_seal_and_its_place_in_the_chain(tmp_path: Path, open_ledger: OpenLedger) -> None:
    directory = sealed_ledger(tmp_path / "ledger")
    seal, answers = seal_of(directory), Answers()
    size = sum(path.stat().st_size for path in (directory / TODAY).glob("*.log"))
    ledger = open_ledger(answers, directory)
    assert ledger.prunable_bytes(TODAY) == size
    assert pruned(ledger).bytes_removed == size
    for held in (ledger, open_ledger(answers, crash_image(directory, tmp_path / "crashed"))):
        info = held.partition(TODAY)
        assert (info.is_pruned, info.damaged, info.record_count) == (True, False, 5)
        assert (info.seal and info.seal.sha256, info.highwater_sequence) == (seal.sha256, seal.highwater_sequence)
        assert list(held.reader().verify_chain()) == []
        assert payloads(held) == []
        assert [len(payloads(held, day)) for day in DAYS] == [5, 0, 5]
    assert [path.name for path in (directory / TODAY).iterdir()] == ["SEAL"]


def test_what_comes_for_a_pruned_day_goes_to_its_late_partition(
    due: Ledger, open_ledger: OpenLedger, directory: Path, clock: Clock
) -> None:
    due.seal(TODAY)
    pruned(due)
    due.close()
    answers = Answers()
    ledger = open_ledger(answers, now=clock)
    assert append_each(ledger, answers, [b"again"])[0].partition == LATE
    assert [info.name for info in ledger.partitions()] == [TODAY, LATE]


def test_what_is_not_sealed_is_refused(due: Ledger) -> None:
    for refused in (lambda: list(due.prune(TODAY)), lambda: due.prunable_bytes(TODAY)):
        with pytest.raises(NotSealed, match="may still grow"):
            refused()
    with pytest.raises(KeyError):
        pruned(due, TOMORROW)


@pytest.mark.parametrize("file", ["segment-00000002.log", "SEAL"])
def test_damage_that_nobody_knew_of_is_found_and_nothing_is_removed(due: Ledger, directory: Path, file: str) -> None:
    due.seal(TODAY)
    path = directory / TODAY / file
    path.chmod(0o600)
    flip_byte(path, path.stat().st_size // 2)
    before = {each: each.read_bytes() for each in (directory / TODAY).iterdir()}
    for _ in ("found out", "known by now"):
        with pytest.raises(LedgerDamaged):
            pruned(due)
    assert {each: each.read_bytes() for each in (directory / TODAY).iterdir()} == before
    assert due.failure is None


def test_whoever_leaves_before_the_end_has_removed_nothing(due: Ledger) -> None:
    due.seal(TODAY)
    steps = due.prune(TODAY)
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    assert not due.partition(TODAY).is_pruned
    assert payloads(due) == FIVE


def test_appends_go_on_beside_it(due: Ledger) -> None:
    due.seal(TODAY)
    answers = due._on_commit
    assert isinstance(answers, Answers)
    for number, _ in enumerate(due.prune(TODAY)):
        append_each(due, answers, [b"beside %d" % number], DUE)
    assert len(payloads(due, TOMORROW)) == number + 1 >= 4


def test_a_closed_ledger_prunes_nothing(due: Ledger) -> None:
    due.seal(TODAY)
    due.close()
    with pytest.raises(LedgerClosed):
        pruned(due)


def test_after_its_lock_was_deleted_it_removes_nothing(due: Ledger, directory: Path) -> None:
    due.seal(TODAY)
    steps = due.prune(TODAY)
    while not isinstance(next(steps), Verified):
        pass
    (directory / "LOCK").unlink()
    before = {path: path.read_bytes() for path in (directory / TODAY).glob("*.log")}
    with pytest.raises(LedgerUnavailable):
        list(steps)
    assert {path: path.read_bytes() for path in (directory / TODAY).glob("*.log")} == before


def test_without_space_for_the_new_seal_nothing_is_changed_and_the_ledger_goes_on(
    open_ledger: OpenLedger, directory: Path, clock: Clock
) -> None:
    answers, disk = Answers(), FaultyDisk()
    ledger = open_ledger(answers, now=clock, disk=disk, segment_records_max=2)
    append_each(ledger, answers, FIVE)
    clock.moment = DUE
    ledger.seal(TODAY)
    for kind in ("create", "write", "fsync", "rename"):
        disk.events.clear()
        disk.fail(kind, at=disk.count_of(kind) + 1, with_=errno.ENOSPC)
        with pytest.raises(LedgerFull, match="no space for its new SEAL"):
            pruned(ledger)
        assert disk.has_failed
        assert payloads(ledger) == FIVE
    assert append_each(ledger, answers, [b"after"], DUE)
    pruned(ledger)


@pytest.mark.parametrize("is_for_good", [True, False], ids=["as a kill", "once"])
def test_whichever_operation_fails_the_day_is_whole_or_pruned_and_never_damaged(
    where: Path, open_ledger: OpenLedger, clock: Clock, is_for_good: bool
) -> None:
    outcomes = []
    for at in count(1):
        directory, disk, answers = where / str(at), FaultyDisk(), Answers()
        clock.moment = NOON
        ledger = open_ledger(answers, directory, disk, clock, segment_records_max=2, idle_mark_s=3600)
        append_each(ledger, answers, FIVE)
        clock.moment = DUE
        ledger.seal(TODAY)
        disk.fail("any", at=disk.count_of("any") + at, times=1000 if is_for_good else 1)
        with suppress(LedgerUnavailable):
            pruned(ledger)
        if is_for_good and disk.has_failed:  # nothing that follows is done, as after a kill
            image = crash_image(directory, where / f"{at} killed")
            outcomes.append(assert_whole_or_pruned(image, open_ledger))
        ledger.close()
        outcomes.append(assert_whole_or_pruned(directory, open_ledger))
        if not disk.has_failed:
            break
    assert at == 10  # after a name, its bytes, their sync, the rename, its sync, three files, their sync
    assert set(outcomes) == {True, False}
    assert outcomes == sorted(outcomes)


def test_what_cannot_be_removed_now_stops_nothing_and_goes_later(
    open_ledger: OpenLedger, directory: Path, clock: Clock
) -> None:
    answers, disk = Answers(), FaultyDisk()
    ledger = open_ledger(answers, now=clock, disk=disk, segment_records_max=2)
    append_each(ledger, answers, FIVE)
    clock.moment = DUE
    ledger.seal(TODAY)
    disk.fail("unlink", at=2, with_=errno.EPERM)
    with pytest.raises(LedgerUnavailable, match="is given up and cannot be removed"):
        pruned(ledger)
    assert ledger.failure is None
    assert ledger.partition(TODAY).is_pruned
    assert not segment_of(directory, 1).exists()
    assert ledger.prunable_bytes(TODAY) == sum(path.stat().st_size for path in (directory / TODAY).glob("*.log")) > 0
    assert append_each(ledger, answers, [b"after"], DUE)
    pruned(ledger)
    assert [path.name for path in (directory / TODAY).iterdir()] == ["SEAL"]


def test_files_left_of_a_pruned_day_are_no_part_of_it_whatever_they_hold(tmp_path: Path) -> None:
    directory = sealed_ledger(tmp_path / "ledger")
    kept = segment_of(directory, 2).read_bytes()
    with Ledger.open(directory, on_commit=Answers()) as ledger:
        pruned(ledger)
    segment_of(directory, 2).write_bytes(kept[: len(kept) // 2])
    with Ledger.open(directory, on_commit=Answers()) as ledger:
        assert not ledger.partition(TODAY).damaged
        assert not LedgerReader(directory).partition(TODAY).damaged
        assert pruned(ledger).bytes_removed == len(kept) // 2


def test_a_reader_beside_it_is_told(tmp_path: Path) -> None:
    directory = sealed_ledger(tmp_path / "ledger")
    reader = LedgerReader(directory)
    assert not reader.partition(TODAY).is_pruned
    with Ledger.open(directory, on_commit=Answers()) as ledger:
        cursors = [held.segment_cursor(TODAY, 1) for held in (reader, ledger.reader())]
        pruned(ledger)
        for held, cursor in zip((reader, ledger.reader()), cursors, strict=True):
            assert cursor.read(10, 1000) == []
            assert cursor.is_away
            assert held.partition(TODAY).is_pruned
            assert not held.partition(TODAY).damaged


def test_restored_from_a_backup_with_its_seal_the_day_is_whole_again(tmp_path: Path) -> None:
    directory = sealed_ledger(tmp_path / "ledger")
    shutil.copytree(directory / TODAY, tmp_path / "backup")
    with Ledger.open(directory, on_commit=Answers()) as ledger:
        pruned(ledger)
    shutil.rmtree(directory / TODAY)
    shutil.copytree(tmp_path / "backup", directory / TODAY)
    with Ledger.open(directory, on_commit=Answers()) as ledger:
        assert not ledger.partition(TODAY).is_pruned
        assert len(payloads(ledger)) == 5
        assert [*ledger.reader().verify_chain()] == []


def test_asked_what_may_be_new_since_a_seal_it_names_no_older_one(tmp_path: Path) -> None:
    directory = sealed_ledger(tmp_path / "ledger", DAYS[:2])
    with Ledger.open(directory, on_commit=Answers()) as ledger:
        for sealed_after, expected in enumerate([DAYS, DAYS[1:], DAYS[2:]]):
            assert ledger.listed(sealed_after) == [ledger.partition(name) for name in expected]
    assert DAYS[0] == BEFORE
