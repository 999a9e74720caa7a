"""Backup: a copy that opens as the ledger it was, or a refusal; never a surprise in the target."""

import errno
import os
import shutil
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from ledger import (
    BackedUp,
    BackupFailed,
    Ledger,
    LedgerFull,
    LedgerLocked,
    LedgerReader,
    SealState,
    backup,
)
from ledger.files.layout import seal_path
from tests.ledger.backups import SETTINGS, assert_whole, files_of, taken
from tests.ledger.conftest import OpenLedger
from tests.ledger.faults import (
    FIVE,
    TODAY,
    Answers,
    FaultyDisk,
    UnsyncedDisk,
    append_each,
    cut_tail,
    flip_byte,
    segment_of,
    served,
)
from tests.ledger.sealed_days import (
    AFTER,
    BEFORE,
    DAYS,
    LONG_AFTER,
    seal_of,
    sealed_ledger,
    starts,
    write_seal,
)
from tests.ledger.test_processes import acknowledged_until, payloads_of, writer_process


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    return sealed_ledger(tmp_path / "sealed", sealed=DAYS[:2])


def test_a_live_ledger_is_copied_up_to_its_durable_mark_and_verifies_clean(live: Ledger, target: Path) -> None:
    done, damage = taken(live.reader(), target)
    assert done == BackedUp(live.ledger_id, 1, 3, 0, 5, 0, False)
    assert damage == []
    assert served(target) == FIVE
    assert_whole(target)


def test_what_another_process_cannot_know_to_be_durable_is_left_out(
    live: Ledger, directory: Path, target: Path
) -> None:
    taken(LedgerReader(directory), target)
    assert served(target) == FIVE[:4]
    assert_whole(target)


def test_finished_files_are_the_same_and_nothing_else_comes_along(sealed: Path, target: Path) -> None:
    (sealed / TODAY / "segment-00000001.976.torn").write_bytes(b"torn")
    (sealed / "delivery.db").write_bytes(b"not ours")
    (sealed / "2026-01-31.tmp").write_bytes(b"never named")
    taken(LedgerReader(sealed), target)
    left_out = ("segment-00000001.976.torn", "delivery.db", "2026-01-31.tmp")
    assert files_of(target) == {name: data for name, data in files_of(sealed).items() if not name.endswith(left_out)}
    assert_whole(target)


def test_the_copy_opens_and_appends_go_on(live: Ledger, target: Path, open_ledger: OpenLedger) -> None:
    taken(live.reader(), target)
    answers = Answers()
    restored = open_ledger(answers, target, segment_records_max=2)
    assert restored.ledger_id == live.ledger_id
    assert restored.recovered.damaged == ()
    assert restored.recovered.torn_files == ()
    (position,) = append_each(restored, answers, [b"six"])
    assert position.sequence == 4 << 32 | 1
    restored.close()
    assert served(target) == [*FIVE, b"six"]
    assert_whole(target)


def test_the_next_backup_copies_what_is_new_and_replaces_what_was_live(
    live: Ledger, directory: Path, target: Path, open_ledger: OpenLedger
) -> None:
    taken(live.reader(), target)
    before = segment_of(target, 3).read_bytes()
    assert taken(live.reader(), target)[0] == BackedUp(live.ledger_id, 1, 0, 3, 5, 0, False)
    assert segment_of(target, 3).read_bytes() == before
    live.close()
    answers = Answers()
    ledger = open_ledger(answers, segment_records_max=2, idle_mark_s=3600)
    append_each(ledger, answers, [b"six", b"seven", b"eight"])
    assert taken(ledger.reader(), target)[0] == BackedUp(live.ledger_id, 1, 3, 2, 8, 0, False)
    append_each(ledger, answers, [b"nine"])
    assert taken(ledger.reader(), target)[0] == BackedUp(live.ledger_id, 1, 1, 4, 9, 0, False)
    assert served(target) == [*FIVE, b"six", b"seven", b"eight", b"nine"]
    assert_whole(target)


def test_a_copy_by_the_writer_is_not_shortened_by_one_that_knows_less(
    live: Ledger, directory: Path, target: Path
) -> None:
    taken(live.reader(), target)
    taken(LedgerReader(directory), target)
    assert served(target) == FIVE


def test_a_backup_beside_a_writer_under_load_holds_what_was_durable_when_it_began(
    directory: Path, target: Path
) -> None:
    with writer_process(directory, "live") as process:
        assert process.stdout
        process.stdout.readline()
        reader = LedgerReader(directory)
        for _ in range(5):
            least = sum(info.record_count for info in reader.partitions())
            done, damage = taken(reader, target)
            copied = payloads_of(LedgerReader(target))
            assert damage == []
            assert done.record_count == len(copied) >= least
            assert copied == payloads_of(reader)[: len(copied)]
        acknowledged_until(process, 1)
    assert_whole(target)


def test_appends_during_the_backup_are_not_held_up_and_not_half_copied(open_ledger: OpenLedger, target: Path) -> None:
    answers = Answers()
    ledger = open_ledger(answers, segment_records_max=7, idle_mark_s=0.0)
    append_each(ledger, answers, [f"before-{number}".encode() for number in range(20)])
    during = 0
    for _ in backup(ledger.reader(), target, disk=UnsyncedDisk()):
        append_each(ledger, answers, [f"during-{during}-{number}".encode() for number in range(5)])
        during += 5
    assert during
    assert served(target) == [f"before-{number}".encode() for number in range(20)]
    assert_whole(target)


def assert_earlier_state(target: Path, least: int) -> None:
    """An interrupted backup can be read as far as it goes, and never holds less than the one before it."""
    if (target / TODAY).exists():
        held = served(target)
        assert held == FIVE[: len(held)]
        assert len(held) >= least


def interrupted(live: Ledger, target: Path, disk: FaultyDisk, error: int) -> None:
    expected = LedgerFull if error == errno.ENOSPC else BackupFailed
    with suppress(expected):
        taken(live.reader(), target, disk)


@pytest.mark.parametrize("kind", ["create", "write", "fsync", "fsync_dir", "rename", "mkdir", "fdatasync", "unlink"])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("earlier", [0, 3, 5])
def test_cut_off_anywhere_it_leaves_an_earlier_state_and_goes_on_when_repeated(
    open_ledger: OpenLedger, tmp_path: Path, kind: str, error: int, earlier: int
) -> None:
    answers = Answers()
    ledger = open_ledger(answers, segment_records_max=2, idle_mark_s=3600)
    append_each(ledger, answers, FIVE[:earlier])
    previous = tmp_path / "previous"
    if earlier:
        taken(ledger.reader(), previous)
        (previous / TODAY / "segment-00000001.log.tmp").write_bytes(b"left by a crash")
    append_each(ledger, answers, FIVE[earlier:])
    taken(ledger.reader(), whole := tmp_path / "whole")
    for at in count(1):
        target = tmp_path / f"target-{at}"
        if earlier:
            shutil.copytree(previous, target)
        disk = FaultyDisk().fail(kind, at=at, with_=error)
        interrupted(ledger, target, disk, error)
        if not disk.has_failed:
            break
        assert_earlier_state(target, earlier)
        taken(ledger.reader(), target)
        assert served(target) == FIVE
        assert files_of(target).keys() == files_of(whole).keys()
        assert_whole(target)


def test_abandoned_after_any_step_it_lets_go_of_the_target_and_can_be_repeated(live: Ledger, tmp_path: Path) -> None:
    steps = len(list(backup(live.reader(), tmp_path / "whole", disk=UnsyncedDisk())))
    for stop in range(1, steps + 1):
        target = tmp_path / f"target-{stop}"
        running = backup(live.reader(), target, disk=UnsyncedDisk())
        for _ in range(stop):
            next(running)
        with pytest.raises(LedgerLocked):
            taken(live.reader(), target)
        running.close()
        assert_earlier_state(target, 0)
        taken(live.reader(), target)
        assert_whole(target)
        assert served(target) == FIVE


def test_sealed_partitions_come_with_their_seal_and_a_seal_made_meanwhile_waits_for_the_next_backup(
    tmp_path: Path, sealed: Path, target: Path
) -> None:
    with Ledger.open(sealed, on_commit=Answers(), settings=SETTINGS, now=lambda: LONG_AFTER) as ledger:
        running = backup(ledger.reader(), target, disk=UnsyncedDisk())
        next(running)
        ledger.seal(AFTER)
        assert isinstance(list(running)[-1], BackedUp)
        assert [seal_path(target, day).exists() for day in DAYS] == [True, True, False]
        assert_whole(target)
        assert taken(ledger.reader(), target)[0].segments_kept == 9
    assert files_of(target) == files_of(sealed)
    assert_whole(target)


def test_a_pruned_partition_is_its_seal_and_a_fuller_copy_is_left_alone(sealed: Path, tmp_path: Path) -> None:
    full, late = tmp_path / "full", tmp_path / "late"
    taken(LedgerReader(sealed), full)
    before = files_of(full)
    write_seal(sealed, replace(seal_of(sealed), state=SealState.PRUNED))
    for path in (sealed / TODAY).glob("*.log"):
        path.unlink()
    for target in (full, late):
        assert taken(LedgerReader(sealed), target)[1] == []
        assert_whole(target)
    assert files_of(full) == before
    assert [path.name for path in (late / TODAY).iterdir()] == ["SEAL"]
    assert LedgerReader(late).partition(TODAY).is_pruned


def test_damage_is_copied_as_it_is_and_named(sealed: Path, target: Path) -> None:
    flip_byte(segment_of(sealed), starts(segment_of(sealed))[2] + 48)
    segment_of(sealed, 2, AFTER).unlink()
    flip_byte(seal_path(sealed, BEFORE), 30)
    reader = LedgerReader(sealed)
    done, damage = taken(reader, target)
    named = [(each.partition, each.ordinal, each.sequence & 0xFFFF_FFFF) for each in damage]
    assert (BEFORE, 0, 0) in named
    assert (TODAY, 1, 1) in named
    assert {(AFTER, 2, 0), (AFTER, 2, 1), (AFTER, 2, 2)} <= set(named)
    assert done.damaged_record_count == 3
    assert files_of(target) == files_of(sealed)
    assert reader.partition(TODAY).segments[0].damaged == ((1, 1),)


def test_damage_in_what_is_live_is_still_damage_when_the_copy_is_opened(
    live: Ledger, directory: Path, target: Path, open_ledger: OpenLedger
) -> None:
    """It hit the last record: without a word about what was durable it would pass for a torn tail."""
    flip_byte(segment_of(directory, 3), starts(segment_of(directory, 3))[2] + 48)
    done, damage = taken(live.reader(), target)
    assert [each.sequence for each in damage] == [3 << 32 | 1]
    assert done.damaged_record_count == 1
    restored = open_ledger(Answers(), target)
    (hurt,) = restored.recovered.damaged
    assert (hurt.ordinal, hurt.record_count, hurt.damaged) == (3, 1, ((1, 1),))


def test_a_good_copy_is_not_replaced_by_a_source_that_has_rotted_since(sealed: Path, target: Path) -> None:
    taken(LedgerReader(sealed), target)
    before = files_of(target)
    for ordinal in (1, 2, 3):
        flip_byte(segment_of(sealed, ordinal, AFTER), starts(segment_of(sealed, ordinal, AFTER))[ordinal] + 1)
    flip_byte(segment_of(sealed, 1), segment_of(sealed).stat().st_size - 20)
    segment_of(sealed, 2).unlink()
    flip_byte(seal_path(sealed, TODAY), 30)
    _, damage = taken(LedgerReader(sealed), target)
    assert files_of(target) == before
    assert damage


def test_a_short_copy_is_replaced_though_the_footer_of_the_source_is_damaged(
    open_ledger: OpenLedger, directory: Path, target: Path
) -> None:
    answers = Answers()
    ledger = open_ledger(answers, segment_records_max=2, idle_mark_s=3600)
    append_each(ledger, answers, FIVE[:1])
    taken(ledger.reader(), target)
    append_each(ledger, answers, FIVE[1:])
    flip_byte(segment_of(directory), segment_of(directory).stat().st_size - 20)
    _, damage = taken(ledger.reader(), target)
    assert [(each.ordinal, each.sequence) for each in damage] == [(1, 0)]
    assert segment_of(target).read_bytes() == segment_of(directory).read_bytes()
    assert served(target) == FIVE


def test_each_file_is_durable_before_it_has_its_name_and_the_seal_comes_last(sealed: Path, target: Path) -> None:
    disk = FaultyDisk()
    taken(LedgerReader(sealed), target, disk)
    names = [name for kind, name in disk.events if kind == "rename"]
    day = [*(f"segment-0000000{ordinal}.log" for ordinal in (1, 2, 3)), "SEAL"]
    assert names == ["ledger.json", *day, *day, *day[:3]]
    kinds = [kind for kind, _ in disk.events if kind not in ("mkdir", "write")]
    ends = [at for at, kind in enumerate(kinds) if kind == "rename"]
    assert all(kinds[at - 1] == "fsync" and kinds[at + 1] == "fsync_dir" for at in ends)


def test_a_copy_that_is_not_whole_is_replaced(sealed: Path, target: Path) -> None:
    taken(LedgerReader(sealed), target)
    before = files_of(target)
    cut_tail(segment_of(target, 1), 8)
    os.truncate(segment_of(target, 2), 0)
    flip_byte(segment_of(target, 3), segment_of(target, 3).stat().st_size - 20)
    flip_byte(seal_path(target, TODAY), 30)
    (target / TODAY / "segment-00000009.log.tmp").write_bytes(b"left by a crash")
    assert taken(LedgerReader(sealed), target)[0].segments_copied == 3
    assert files_of(target) == before


def test_a_disk_that_does_not_keep_what_it_is_given_is_found_out(live: Ledger, tmp_path: Path) -> None:
    class Forgetful(UnsyncedDisk):
        def __init__(self, at: int) -> None:
            self._left = at

        def write(self, fd: int, data: bytes) -> int:
            self._left -= 1
            return super().write(fd, data if self._left else data[:-1] + bytes([data[-1] ^ 1]))

    for at in range(1, 5):  # ledger.json and three segments
        target = tmp_path / str(at)
        with pytest.raises(BackupFailed, match="does not hold what was written"):
            taken(live.reader(), target, Forgetful(at))
