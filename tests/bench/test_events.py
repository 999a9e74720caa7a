"""What is measured with is what the servers would see in earnest."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bench.events import Events
from bench.feed import wire
from contract.validation import check_event
from riskcast.v1.signal_service_pb2 import ARRIVAL_PATH_DELIVERY
from riskcast_server.committer import committing
from riskcast_server.ingest import Door, utc_now
from riskcast_server.settlement import Position, Verdict
from riskcast_server.store import open_store
from tests.riskcast_server.events import DAY, LEDGER, SEGMENT

NOON = datetime(2026, 1, 29, 12, 0, 0, 345_678, tzinfo=UTC)


@pytest.mark.parametrize("number", [0, 7, 123_456, 9_999_999_999])
def test_an_event_of_any_number_passes_every_check_and_all_have_one_length(number: int) -> None:
    events = Events(NOON)
    check_event(events.event(number), now=NOON)
    assert events.event(number).SerializeToString() == events.encoded(number)
    assert len(events.encoded(number)) == len(events.encoded(0))


def test_a_row_that_is_loaded_is_the_one_that_the_door_would_store(tmp_path: Path) -> None:
    events = Events(NOON)
    places = [Position(LEDGER, DAY, SEGMENT, 1 << 32 | index) for index in range(1, 6)]
    records = [events.record(number, wire(at)) for number, at in enumerate(places)]

    async def scenario() -> None:
        async with (
            open_store(f"sqlite:///{tmp_path / 'riskcast.db'}") as store,
            committing(store, utc_now) as committer,
        ):
            receipt = Door(committer, utc_now).receive(records, LEDGER, ARRIVAL_PATH_DELIVERY)
            assert list(receipt.entries) == [events.candidate(number, at) for number, at in enumerate(places)]
            assert {outcome.verdict for outcome in await receipt.outcomes} == {Verdict.STORED}

    asyncio.run(scenario())
