"""A repeat that says something else than what is stored: counted and logged, and never taken for the same."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from google.protobuf.message import Message
from structlog.testing import capture_logs

from contract.errors import ContractError, timestamp
from omen.v1.signal_event_pb2 import SignalEvent
from omen.v1.signal_pb2 import Signal
from riskcast.v1.ingest_service_pb2 import RECORD_OUTCOME_DUPLICATE, RECORD_OUTCOME_STORED, DuplicateSignal
from riskcast.v1.signal_service_pb2 import ARRIVAL_PATH_DELIVERY, GetSignalRequest, ListSignalsRequest
from riskcast_server.committer import committing
from riskcast_server.ingest import Door, utc_now
from riskcast_server.store import open_store
from tests.riskcast_server.events import LEDGER, NOON, event, record
from tests.riskcast_server.running import refused, riskcast, sql, url

AnyMessage = TypeVar("AnyMessage", bound=Message)

LATER_FIELD = b"\xfa\x7f\x05later"  # field 2047, which no program knows yet


def single_fields(message: AnyMessage) -> Iterator[AnyMessage]:
    """One message for each field that is set, the last first."""
    set_fields = [field.name for field, _ in message.ListFields()]
    for kept in reversed(set_fields):
        part = type(message)()
        part.CopyFrom(message)
        for name in set_fields:
            if name != kept:
                part.ClearField(name)
        yield part


def from_last_to_first(made: SignalEvent) -> bytes:
    """Field by field, those of the signal too: what is said in parts is merged."""
    of_the_signal = [SignalEvent(signal=part) for part in single_fields(made.signal)]
    made.ClearField("signal")
    return b"".join(part.SerializeToString() for part in (*of_the_signal, *single_fields(made)))


def with_later_fields(made: SignalEvent) -> bytes:
    later = SignalEvent(signal=Signal.FromString(LATER_FIELD))
    return LATER_FIELD + made.SerializeToString() + later.SerializeToString()


def emitted_again(made: SignalEvent) -> bytes:
    made.emitted_at.CopyFrom(timestamp(NOON + timedelta(days=1)))
    made.traceparent = "00-1-2-01"
    return made.SerializeToString()


def repeats(logs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """All but what is told of every message."""
    return [line for line in logs if line["event"] == "repeat_with_other_content"]


SAME = [from_last_to_first(event(1)), with_later_fields(event(1)), emitted_again(event(1))]
OTHER = [event(1, title="Something else").SerializeToString(), with_later_fields(event(1, title="Something else"))]


def test_another_encoding_of_the_same_signal_is_the_same_and_another_title_is_counted_and_logged(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with open_store(url(tmp_path)) as store, committing(store, utc_now) as committer:
            door = Door(committer, utc_now)

            async def deliver(index: int, payload: bytes) -> int:
                receipt = door.receive([record(index, payload)], LEDGER, ARRIVAL_PATH_DELIVERY)
                [result] = await receipt.results()
                return result.outcome

            async def ingest(payload: bytes) -> bool:
                """What the caller is told of content_matches."""
                with pytest.raises(ContractError) as caught:
                    await door.ingest(SignalEvent.FromString(payload), None)
                [duplicate] = caught.value.details
                assert isinstance(duplicate, DuplicateSignal)
                return duplicate.content_matches

            assert await deliver(1, event(1).SerializeToString()) == RECORD_OUTCOME_STORED
            with capture_logs() as logs:
                for payload in SAME:
                    assert await deliver(2, payload) == RECORD_OUTCOME_DUPLICATE
                    assert await deliver(1, payload) == RECORD_OUTCOME_STORED
                    assert await ingest(payload)
            assert (door.other_content_count, repeats(logs)) == (0, [])
            with capture_logs() as logs:
                for payload in OTHER:
                    assert await deliver(2, payload) == RECORD_OUTCOME_DUPLICATE
                    assert await deliver(1, payload) == RECORD_OUTCOME_STORED
                    assert not await ingest(payload)
            assert door.other_content_count == 6
            assert [(line["signal_id"], line["count"]) for line in repeats(logs)] == [
                (event(1).signal_id, count) for count in range(1, 7)
            ]
            stored = await store.maybe_signal(event(1).signal_id)
            assert stored
            assert stored.signal.event == event(1).SerializeToString()

    asyncio.run(scenario())


def test_bytes_that_somebody_garbled_are_shown_as_they_are_and_end_no_call(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with riskcast(tmp_path) as client:
            await client.ingest(event(1))
            sql(tmp_path, "UPDATE signals SET event = x'00ff'")
            request = GetSignalRequest(signal_id=event(1).signal_id)
            got = (await client.signals.GetSignal(request, timeout=5)).signal
            assert (got.stored_event, got.HasField("event")) == (b"\x00\xff", False)
            listed = await client.signals.ListSignals(ListSignalsRequest(), timeout=5)
            assert [each.stored_event for each in listed.signals] == [b"\x00\xff"]
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.ingest(event(1))
            duplicate = refused(caught.value).duplicate
            assert duplicate
            assert not duplicate.content_matches

    asyncio.run(scenario())
