"""What surrounds a writer and is not its own: a directory it may not write to, a clock that jumps."""

import os
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ledger import Ledger, LedgerReader, LedgerSettings, LedgerUnavailable, PartitionClosed, Position
from tests.ledger.faults import NOON, TODAY, Answers, Clock, append_each, at_noon

NOBODY = 65534
SETTINGS = LedgerSettings(free_bytes_min=0, segment_records_max=3, idle_mark_s=0.0)
HOUR = timedelta(hours=1)
TEN_YEARS = timedelta(days=3653)


@pytest.fixture
def as_anybody() -> Iterator[Path]:
    """A directory of somebody who is not root, whom no mode holds back."""
    with tempfile.TemporaryDirectory() as name:
        if os.geteuid() == 0:
            os.chown(name, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        try:
            yield Path(name)
        finally:
            os.seteuid(os.getuid())


@pytest.mark.parametrize("is_crashed", [False, True])
def test_a_read_only_directory_is_refused_at_once_and_still_read(as_anybody: Path, is_crashed: bool) -> None:
    directory = as_anybody / "ledger"
    answers = Answers()
    with Ledger.open(directory, on_commit=answers, settings=SETTINGS, now=at_noon) as ledger:
        append_each(ledger, answers, [b"one", b"two"])
    segment = directory / TODAY / "segment-00000001.log"
    if is_crashed:
        os.truncate(segment, segment.read_bytes().index(b"two") + 8)
    before = segment.read_bytes()
    directory.chmod(0o555)
    try:
        with pytest.raises(LedgerUnavailable, match=r"^[^\n]*/ledger: cannot open the ledger: [^\n]*written to$"):
            Ledger.open(directory, on_commit=Answers(), settings=SETTINGS, now=at_noon)
        assert segment.read_bytes() == before
        assert next(LedgerReader(directory).records(TODAY)).payload == b"one"
    finally:
        directory.chmod(0o755)


def placed(ledger: Ledger, answers: Answers, payload: bytes, emitted_at: datetime) -> str | None:
    """The partition that took it, or None: closed."""
    ledger.append(payload, emitted_at, payload)
    (answer,) = answers.of(payload)
    assert isinstance(answer, Position | PartitionClosed), answer
    return answer.partition if isinstance(answer, Position) else None


@pytest.mark.parametrize("jump", [-HOUR, TEN_YEARS], ids=["back 1 h", "forward 10 y"])
@pytest.mark.parametrize("has_restarted", [False, True])
def test_whatever_the_clock_does_the_order_is_that_of_the_sequences(
    directory: Path, jump: timedelta, has_restarted: bool
) -> None:
    clock, answers = Clock(), Answers()
    ledger = Ledger.open(directory, on_commit=answers, settings=SETTINGS, now=clock)
    future = NOON + TEN_YEARS  # takes records under either clock
    before = append_each(ledger, answers, [b"1", b"2", b"3", b"4"], future)
    clock.moment += jump
    if has_restarted:
        ledger.close()
        ledger = Ledger.open(directory, on_commit=answers, settings=SETTINGS, now=clock)
    with ledger:
        after = append_each(ledger, answers, [b"5", b"6"], future)
        sequences = [position.sequence for position in before + after]
        assert sequences == sorted(set(sequences))
        records = list(ledger.reader().records(before[0].partition))
        assert [record.payload for record in records] == [b"1", b"2", b"3", b"4", b"5", b"6"]
        assert records[-1].written_at - records[0].written_at == jump // timedelta(microseconds=1)


def test_a_clock_that_goes_back_an_hour_over_the_end_of_grace_opens_the_day_again(directory: Path) -> None:
    """Routing knows the day, the clock and the SEALs, and nothing of what it has said before."""
    clock, answers = Clock(), Answers()
    clock.moment = datetime(2026, 1, 30, 6, 30, tzinfo=UTC)
    with Ledger.open(directory, on_commit=answers, settings=SETTINGS, now=clock) as ledger:
        assert placed(ledger, answers, b"late", NOON) == f"{TODAY}-late"
        clock.moment -= HOUR
        assert placed(ledger, answers, b"in time again", NOON) == TODAY
        clock.moment += HOUR
        assert placed(ledger, answers, b"late again", NOON) == f"{TODAY}-late"
        assert [record.payload for record in ledger.reader().records(f"{TODAY}-late")] == [b"late", b"late again"]


def test_a_clock_ten_years_ahead_closes_today_and_loses_nothing(directory: Path) -> None:
    clock, answers = Clock(), Answers()
    with Ledger.open(directory, on_commit=answers, settings=SETTINGS, now=clock) as ledger:
        assert placed(ledger, answers, b"before", NOON) == TODAY
        clock.moment += TEN_YEARS
        assert placed(ledger, answers, b"too old by that clock", NOON) is None
        assert placed(ledger, answers, b"then", clock.moment) == clock.moment.date().isoformat()
    with Ledger.open(directory, on_commit=answers, settings=SETTINGS, now=clock) as ledger:
        assert placed(ledger, answers, b"still too old", NOON) is None
        clock.moment -= TEN_YEARS
        assert placed(ledger, answers, b"after", NOON) == TODAY
        assert placed(ledger, answers, b"ahead of its time", NOON + TEN_YEARS) is not None
        assert [record.payload for record in ledger.reader().records(TODAY)] == [b"before", b"after"]
