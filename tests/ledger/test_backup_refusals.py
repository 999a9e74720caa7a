"""What a backup does not touch: anything that is not, or no longer, a backup of this ledger."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from ledger import (
    BackupRefused,
    Ledger,
    LedgerLocked,
    backup,
)
from tests.ledger.backups import SETTINGS, files_of, taken
from tests.ledger.conftest import OpenLedger
from tests.ledger.faults import (
    TODAY,
    Answers,
    UnsyncedDisk,
    append_each,
    at_noon,
)
from tests.ledger.sealed_days import (
    BEFORE,
    LONG_AFTER,
)


def another_ledger(live: Ledger, target: Path) -> None:
    with Ledger.open(target, on_commit=Answers(), settings=SETTINGS, now=at_noon):
        pass


def partitions_of_nobody(live: Ledger, target: Path) -> None:
    (target / TODAY).mkdir(parents=True)


def unreadable_identity(live: Ledger, target: Path) -> None:
    target.mkdir(parents=True)
    (target / "ledger.json").write_bytes(b"{")


def written_to(live: Ledger, target: Path) -> None:
    taken(live.reader(), target)
    answers = Answers()
    with Ledger.open(target, on_commit=answers, settings=SETTINGS, now=at_noon) as copy:
        append_each(copy, answers, [b"on the copy"])


def written_to_both(live: Ledger, target: Path) -> None:
    written_to(live, target)
    append_each(live, cast(Answers, live._on_commit), [b"six", b"seven", b"eight"])


def a_new_day(live: Ledger, target: Path) -> None:
    taken(live.reader(), target)
    shutil.copytree(target / TODAY, target / BEFORE)


def sealed_there(live: Ledger, target: Path) -> None:
    taken(live.reader(), target)
    with Ledger.open(target, on_commit=Answers(), settings=SETTINGS, now=lambda: LONG_AFTER) as copy:
        copy.seal(TODAY)


REFUSED: dict[str, tuple[Callable[[Ledger, Path], None], str]] = {
    "another ledger": (another_ledger, "holds another ledger"),
    "partitions without ledger.json": (partitions_of_nobody, "nobody can tell of which ledger"),
    "an unreadable ledger.json": (unreadable_identity, "cannot be understood"),
    "a copy that was written to": (written_to, "no longer a backup .* has a segment 4 that the ledger has not"),
    "a copy and a ledger that went apart": (written_to_both, "no longer a backup .* has another segment 4"),
    "a day the ledger has not": (a_new_day, "no longer a backup .* 2026-01-28 has a segment 1"),
    "a partition sealed there": (sealed_there, "no longer a backup .* is sealed there"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_backup_of_this_ledger_is_refused_and_not_touched(live: Ledger, target: Path, name: str) -> None:
    prepare, expected = REFUSED[name]
    prepare(live, target)
    before = files_of(target)
    with pytest.raises(BackupRefused, match=f"^[^\n]*{expected}[^\n]*$"):
        taken(live.reader(), target)
    assert files_of(target) == before


def test_one_directory_within_the_other_is_refused(live: Ledger, directory: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(directory)
    for target in (directory, directory / "backup", directory / TODAY, tmp_path, tmp_path / "link" / "backup"):
        before = files_of(directory)
        with pytest.raises(BackupRefused, match="must not lie within each other"):
            taken(live.reader(), target)
        assert files_of(directory) == before


def test_a_target_on_which_somebody_runs_is_refused(live: Ledger, target: Path, open_ledger: OpenLedger) -> None:
    taken(live.reader(), target)
    restored = open_ledger(Answers(), target)
    with pytest.raises(LedgerLocked):
        taken(live.reader(), target)
    restored.close()
    taken(live.reader(), target)


def test_nobody_can_open_the_copy_while_it_is_made(live: Ledger, target: Path, open_ledger: OpenLedger) -> None:
    running = backup(live.reader(), target, disk=UnsyncedDisk())
    next(running)
    with pytest.raises(LedgerLocked):
        open_ledger(Answers(), target)
    list(running)
    open_ledger(Answers(), target)
