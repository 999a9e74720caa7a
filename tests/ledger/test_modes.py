"""The library makes files for their owner alone, whatever the process around it allows to others."""

import os
import stat
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from ledger import Ledger, LedgerReader
from tests.ledger.backups import SETTINGS, taken
from tests.ledger.conftest import OpenLedger
from tests.ledger.faults import DUE, FIVE, TODAY, Answers, append_each, cut_tail, segment_of
from tests.ledger.indexing import caught_up, index_of, payload
from tests.ledger.modes import exposed


@pytest.fixture(autouse=True)
def _anything_goes() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def test_whatever_a_ledger_its_index_and_its_backup_make_is_for_their_owner_alone(
    tmp_path: Path, open_ledger: OpenLedger
) -> None:
    directory, answers = tmp_path / "new" / "ledger", Answers()
    with Ledger.open(directory, on_commit=answers, settings=SETTINGS, now=lambda: DUE - timedelta(days=1)) as ledger:
        append_each(ledger, answers, [payload(f"OMEN-{number}") for number in range(5)], DUE - timedelta(days=1))
    cut_tail(segment_of(directory, 3, next(iter(LedgerReader(directory).partitions())).name), 20)
    with Ledger.open(directory, on_commit=answers, settings=SETTINGS, now=lambda: DUE) as ledger:
        append_each(ledger, answers, FIVE, DUE)
        with index_of(directory, ledger.reader()) as index:
            caught_up(index)
            assert exposed(tmp_path / "new") == {}
        ledger.seal(next(iter(ledger.due_partitions(DUE + timedelta(days=9)))))
    taken(LedgerReader(directory), tmp_path / "backup")
    assert exposed(tmp_path / "new") == {}
    assert exposed(tmp_path / "backup") == {}
    assert {"LOCK", "index.db", "ledger.json"} <= {path.name for path in directory.iterdir()}


def test_segments_that_an_earlier_program_sealed_for_everybody_to_read_are_not_after_a_start(
    directory: Path, open_ledger: OpenLedger
) -> None:
    answers = Answers()
    ledger = open_ledger(answers)
    append_each(ledger, answers, FIVE)
    ledger.close()
    sealing = open_ledger(answers, now=lambda: DUE)
    sealing.seal(TODAY)
    sealing.close()
    segment = segment_of(directory, 1, TODAY)
    segment.chmod(0o444)
    open_ledger(answers, now=lambda: DUE)
    assert stat.S_IMODE(segment.stat().st_mode) == 0o400
