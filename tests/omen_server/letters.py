"""A RiskCast whose door takes or refuses what the test says, and what an operator asks of OMEN's dead letters."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import riskcast_server.ingest
from contract.errors import Violation, invalid_signal
from contract.validation import check_ids
from omen.v1 import delivery_service_pb2 as pb
from omen.v1 import signal_service_pb2 as signal_pb
from omen.v1.ledger_record_pb2 import LedgerPosition
from omen.v1.signal_event_pb2 import SignalEvent
from riskcast.v1 import ingest_service_pb2 as ingest_pb
from tests.omen_server.running import DEADLINE_S, Omen, Riskcast, closed_port, omen, riskcast

ERROR = signal_pb.ItemError(code=3, reason="INVALID_SIGNAL", message="no")
NO = ingest_pb.RecordResult(outcome=ingest_pb.RECORD_OUTCOME_REJECTED, error=ERROR)


class Door:
    """RiskCast's: of an event whose title is in `refused` it says that the title is wrong."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refused: set[str] = set()
        monkeypatch.setattr(riskcast_server.ingest, "check_ids", self._check)

    def _check(self, event: SignalEvent) -> None:
        if event.signal.title in self.refused:
            raise invalid_signal([Violation("signal.title", "is refused")])
        check_ids(event)


@asynccontextmanager
async def both(directory: Path) -> AsyncIterator[tuple[Omen, Riskcast]]:
    """They know each other: RiskCast's Reconcile asks this OMEN, and no other."""
    listen = f"127.0.0.1:{closed_port()}"
    async with (
        riskcast(directory / "db", omen_targets=(listen,), reconcile_interval=0) as store,
        omen(directory / "ledger", store.port, listen=listen) as server,
    ):
        yield server, store


async def listed(server: Omen, **asked: Any) -> list[pb.DeadLetter]:
    """One page."""
    return list((await page(server, **asked)).dead_letters)


async def page(server: Omen, **asked: Any) -> pb.ListDeadLettersResponse:
    answer: pb.ListDeadLettersResponse = await server.delivery.ListDeadLetters(
        pb.ListDeadLettersRequest(**asked), timeout=DEADLINE_S
    )
    return answer


async def redrive(server: Omen, **picked: Any) -> int:
    request = pb.RedriveDeadLettersRequest(filter=pb.DeadLetterFilter(**picked))
    return int((await server.delivery.RedriveDeadLetters(request, timeout=DEADLINE_S)).redriven_count)


async def drop(server: Omen, why: str, **picked: Any) -> int:
    request = pb.DropDeadLettersRequest(filter=pb.DeadLetterFilter(**picked), reason=why)
    return int((await server.delivery.DropDeadLetters(request, timeout=DEADLINE_S)).dropped_count)


async def attempts(server: Omen) -> list[int]:
    return [letter.attempt_count for letter in await listed(server)]


def short(position: LedgerPosition) -> LedgerPosition:
    """As a person has it."""
    return LedgerPosition(partition=position.partition, sequence=position.sequence)


def ids(letters: Sequence[pb.DeadLetter]) -> list[str]:
    return [SignalEvent.FromString(letter.record.event).signal_id for letter in letters]
