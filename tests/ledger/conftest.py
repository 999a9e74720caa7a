from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Protocol
from unittest.mock import patch

import pytest

from ledger import Disk, Ledger, LedgerSettings
from ledger.writing import commit
from tests.ledger.faults import DUE, FIVE, TODAY, Answers, Clock, FaultyDisk, append_each, at_noon, crash_image


class OpenLedger(Protocol):
    def __call__(
        self,
        answers: Answers,
        where: Path | None = None,
        disk: Disk | None = None,
        now: Callable[[], datetime] = at_noon,
        **limits: float,
    ) -> Ledger: ...


def append_and_mark(ledger: Ledger, answers: Answers, disk: FaultyDisk, payloads: Sequence[bytes]) -> None:
    """No time passes before the last answer, so there is one mark, however slow the machine is."""
    moments = [0.0]
    with patch.object(commit, "monotonic", lambda: moments[-1]):
        append_each(ledger, answers, payloads)
        moments.append(1.0)
        disk.wait_for(lambda events: events[-3][0] == "ack")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


@pytest.fixture
def open_ledger(directory: Path) -> Iterator[OpenLedger]:
    """Opens ledgers, by default at noon of 2026-01-29, without a free-space floor; closes them after the test."""
    with ExitStack() as opened:

        def open_(
            answers: Answers,
            where: Path | None = None,
            disk: Disk | None = None,
            now: Callable[[], datetime] = at_noon,
            **limits: float,
        ) -> Ledger:
            settings = LedgerSettings(**{"free_bytes_min": 0, **limits})  # type: ignore[arg-type]
            ledger = Ledger.open(where or directory, on_commit=answers, settings=settings, disk=disk or Disk(), now=now)
            opened.callback(ledger.close)
            return ledger

        yield open_


@pytest.fixture
def crashed(where: Path, open_ledger: OpenLedger) -> Path:
    """Five acknowledged records and no mark: nothing on disk says that the fifth was durable."""
    answers = Answers()
    ledger = open_ledger(answers, where / "to crash", idle_mark_s=3600)
    append_each(ledger, answers, FIVE)
    return crash_image(where / "to crash", where / "crashed")


@pytest.fixture
def marked(where: Path, open_ledger: OpenLedger) -> Path:
    """Five acknowledged records and the idle mark that says so."""
    disk = FaultyDisk()
    answers = Answers(disk.events)
    ledger = open_ledger(answers, where / "to mark", disk, idle_mark_s=0.05)
    append_and_mark(ledger, answers, disk, FIVE)
    return crash_image(where / "to mark", where / "marked")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def due(open_ledger: OpenLedger, clock: Clock) -> Ledger:
    """Five records in three segments of a day that has just become due; the last segment is live."""
    answers = Answers()
    ledger = open_ledger(answers, now=clock, segment_records_max=2, idle_mark_s=3600)
    append_each(ledger, answers, FIVE)
    clock.moment = DUE
    return ledger


@pytest.fixture
def sealed(due: Ledger, directory: Path) -> Path:
    """A closed ledger with one sealed day."""
    due.seal(TODAY)
    due.close()
    return directory


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where a backup goes."""
    return tmp_path / "backups" / "of the ledger"


@pytest.fixture
def live(open_ledger: OpenLedger) -> Ledger:
    """Five records in three segments, the last of them live."""
    answers = Answers()
    ledger = open_ledger(answers, segment_records_max=2, idle_mark_s=3600)
    append_each(ledger, answers, FIVE)
    return ledger
