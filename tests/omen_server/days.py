"""Ledgers whose days are over, as an OMEN would have left them: nothing is sealed yet."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from contract.errors import timestamp
from ledger import Ledger
from tests.ledger.faults import Answers, append_each
from tests.riskcast_server.events import event

DAY = "2026-01-29"
NEXT_DAY = "2026-01-30"
AGES_AGO = datetime(2026, 1, 29, 12, tzinfo=UTC)


def payloads(numbers: Iterable[int], moment: datetime = AGES_AGO) -> list[bytes]:
    """Distinct events emitted at that moment."""
    made = [event(number) for number in numbers]
    for each in made:
        each.emitted_at.CopyFrom(timestamp(moment))
    return [each.SerializeToString() for each in made]


def write_days(directory: Path, *moments: datetime, count: int = 4) -> None:
    """So many records for the day of each moment, written at that very moment."""
    for place, moment in enumerate(moments or (AGES_AGO,)):
        answers = Answers()
        with Ledger.open(directory, on_commit=answers, now=lambda at=moment: at) as ledger:  # type: ignore[misc]
            append_each(ledger, answers, payloads(range(100 * place, 100 * place + count), moment), moment)
