from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from ledger import Disk, Ledger, LedgerSettings
from tests.ledger.faults import FIVE, Answers, FaultyDisk, append_each, at_noon, crash_image


class OpenLedger(Protocol):
    def __call__(
        self, answers: Answers, where: Path | None = None, disk: Disk | None = None, **limits: float
    ) -> Ledger: ...


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


@pytest.fixture
def open_ledger(directory: Path) -> Iterator[OpenLedger]:
    """Opens ledgers at noon of 2026-01-29, without a free-space floor, and closes them after the test."""
    with ExitStack() as opened:

        def open_(answers: Answers, where: Path | None = None, disk: Disk | None = None, **limits: float) -> Ledger:
            settings = LedgerSettings(**{"free_bytes_min": 0, **limits})  # type: ignore[arg-type]
            ledger = Ledger.open(
                where or directory, on_commit=answers, settings=settings, disk=disk or Disk(), now=at_noon
            )
            opened.callback(ledger.close)
            return ledger

        yield open_


@pytest.fixture
def crashed(tmp_path: Path, open_ledger: OpenLedger) -> Path:
    """Five acknowledged records and no mark: nothing on disk says that the fifth was durable."""
    answers = Answers()
    ledger = open_ledger(answers, tmp_path / "to crash", idle_mark_s=3600)
    append_each(ledger, answers, FIVE)
    return crash_image(tmp_path / "to crash", tmp_path / "crashed")


@pytest.fixture
def marked(tmp_path: Path, open_ledger: OpenLedger) -> Path:
    """Five acknowledged records and the idle mark that says so."""
    disk = FaultyDisk()
    answers = Answers(disk.events)
    ledger = open_ledger(answers, tmp_path / "to mark", disk, idle_mark_s=0.05)
    append_each(ledger, answers, FIVE)
    disk.wait_for(lambda events: events[-3][0] == "ack")
    return crash_image(tmp_path / "to mark", tmp_path / "marked")
