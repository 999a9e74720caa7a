"""Which partition takes a record: day D = 2026-01-29, main grace 6 h, late grace 3 days."""

from datetime import UTC, datetime, timedelta

import pytest

from ledger import LedgerSettings
from ledger.routing import maybe_partition
from ledger.times import date_text, day_of, microseconds_of

DAY = day_of(microseconds_of(datetime(2026, 1, 29, 23, 59, 59, 999_999, tzinfo=UTC)))
MAIN, LATE = "2026-01-29", "2026-01-29-late"
MAIN_DUE = datetime(2026, 1, 30, 6, tzinfo=UTC)
LATE_DUE = datetime(2026, 2, 2, 6, tzinfo=UTC)
TICK = timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("now", "sealed", "expected"),
    [
        (datetime(2016, 1, 29, tzinfo=UTC), (), MAIN),  # the clock went back ten years
        (MAIN_DUE - TICK, (), MAIN),
        (MAIN_DUE - TICK, (MAIN,), LATE),
        (MAIN_DUE - TICK, (LATE,), MAIN),
        (MAIN_DUE - TICK, (MAIN, LATE), None),
        (MAIN_DUE, (), LATE),
        (MAIN_DUE, (MAIN,), LATE),
        (MAIN_DUE, (LATE,), None),
        (LATE_DUE - TICK, (), LATE),
        (LATE_DUE - TICK, (MAIN,), LATE),
        (LATE_DUE - TICK, (MAIN, LATE), None),
        (LATE_DUE, (), None),
        (LATE_DUE, (MAIN,), None),
    ],
)
def test_the_partition_follows_from_the_day_the_clock_and_the_seals(
    now: datetime, sealed: tuple[str, ...], expected: str | None
) -> None:
    assert maybe_partition(DAY, microseconds_of(now), sealed, LedgerSettings()) == expected


def test_both_delays_are_settable() -> None:
    settings = LedgerSettings(main_grace_s=0, late_grace_s=60)
    midnight = datetime(2026, 1, 30, tzinfo=UTC)
    moments = (midnight - TICK, midnight, midnight + timedelta(seconds=60))
    taken = [maybe_partition(DAY, microseconds_of(moment), (), settings) for moment in moments]
    assert taken == [MAIN, LATE, None]


@pytest.mark.parametrize(
    ("moment", "expected", "date"),
    [
        (datetime(1970, 1, 1, tzinfo=UTC), 0, "1970-01-01"),
        (datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), -1, "1969-12-31"),
        (datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), 253_402_300_799_999_999, "9999-12-31"),
        (datetime(1, 1, 1, tzinfo=UTC), -62_135_596_800_000_000, "0001-01-01"),
    ],
)
def test_microseconds_are_exact_over_all_the_years_there_are(moment: datetime, expected: int, date: str) -> None:
    assert microseconds_of(moment) == expected
    assert date_text(day_of(expected)) == date
