"""Exactly once, through the unary door."""

import asyncio
from collections.abc import Sequence

import grpc
import pytest

from contract.errors import ErrorDetails
from riskcast.v1 import ingest_service_pb2 as ingest_pb
from riskcast.v1.ingest_service_pb2 import RECORD_OUTCOME_DUPLICATE, RECORD_OUTCOME_STORED
from riskcast.v1.reconcile_service_pb2 import ListReconcileStatesRequest
from riskcast.v1.reconcile_service_pb2_grpc import ReconcileServiceStub
from riskcast.v1.signal_service_pb2 import CountSignalsRequest, GetSignalRequest
from tests.riskcast_server.databases import Database
from tests.riskcast_server.events import LEDGER, SEGMENT, event, position, record, with_long_id
from tests.riskcast_server.running import Client, refused, riskcast


async def outcome(client: Client, number: int) -> ingest_pb.IngestResponse | ErrorDetails:
    try:
        return await client.ingest(event(number))
    except grpc.aio.AioRpcError as error:
        return refused(error)


def test_64_concurrent_ingests_of_one_id_give_one_ok_and_63_repeats_with_one_ack_id_and_one_row(
    database: Database,
) -> None:
    asyncio.run(raced(database.url, range(100)))


@pytest.mark.soak
def test_64_concurrent_ingests_of_each_of_a_thousand_ids_give_one_row(database: Database, soak_seed: int) -> None:
    asyncio.run(raced(database.url, range(soak_seed, soak_seed + 1000)))


async def raced(at: str, numbers: Sequence[int]) -> None:
    async with riskcast(at) as client:
        for number in numbers:
            outcomes = await asyncio.gather(*(outcome(client, number) for _ in range(64)))
            stored = [each for each in outcomes if isinstance(each, ingest_pb.IngestResponse)]
            repeats = [each for each in outcomes if isinstance(each, ErrorDetails)]
            assert (len(stored), len(repeats)) == (1, 63)
            assert {each.reason for each in repeats} == {"DUPLICATE_SIGNAL"}
            told = {
                (each.duplicate.ack_id, each.duplicate.ingested_at.ToNanoseconds())
                for each in repeats
                if each.duplicate
            }
            assert told == {(stored[0].ack_id, stored[0].ingested_at.ToNanoseconds())}
        assert await client.count() == len(numbers)


def test_a_repeat_carries_the_original_ack_id_and_time_in_details_metadata_and_trailer(
    database: Database,
) -> None:
    async def scenario() -> None:
        async with riskcast(database.url) as client:
            first = await client.ingest(event(1))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.ingest(event(1))
            assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS
            error = refused(caught.value)
            assert error.domain == "riskcast.v1"
            assert error.metadata == {
                "signal_id": event(1).signal_id,
                "ack_id": first.ack_id,
                "ingested_at": first.ingested_at.ToJsonString(),
            }
            assert error.duplicate == ingest_pb.DuplicateSignal(
                ack_id=first.ack_id, ingested_at=first.ingested_at, content_matches=True
            )
            assert ("original-ack-id", first.ack_id) in tuple(caught.value.trailing_metadata() or ())

    asyncio.run(scenario())


def test_a_repeat_with_other_content_says_so_and_leaves_the_row_as_it_was(database: Database) -> None:
    async def scenario() -> None:
        async with riskcast(database.url) as client:
            await client.ingest(event(1))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.ingest(event(1, title="Something else"))
            duplicate = refused(caught.value).duplicate
            assert duplicate
            assert not duplicate.content_matches
            stored = await client.signals.GetSignal(GetSignalRequest(signal_id=event(1).signal_id), timeout=5)
            assert stored.signal.event == event(1)

    asyncio.run(scenario())


def test_an_event_is_known_by_any_prefix_of_its_digest_but_each_is_a_signal_of_its_own(
    database: Database,
) -> None:
    async def scenario() -> None:
        async with riskcast(database.url) as client:
            acks = {(await client.ingest(with_long_id(event(1), digits))).ack_id for digits in (12, 32, 64)}
            assert len(acks) == await client.count() == 3

    asyncio.run(scenario())


def test_what_a_client_says_of_a_position_is_kept_and_hides_no_record_of_the_ledger(database: Database) -> None:
    async def scenario() -> None:
        async with riskcast(database.url) as client:
            await client.ingest(event(1), position(1))
            await client.ingest(event(2), position(1))
            stored = (await client.signals.GetSignal(GetSignalRequest(signal_id=event(2).signal_id), timeout=5)).signal
            assert stored.position == position(1)
            hello = await client.hello(SEGMENT)
            assert (list(hello.settled), hello.settled_count) == ([], 0)
            results = await client.deliver([record(1, event(3)), record(2, event(1))])
            assert [each.outcome for each in results] == [RECORD_OUTCOME_STORED, RECORD_OUTCOME_DUPLICATE]
            assert (await client.hello(SEGMENT)).settled_count == 2
            assert await client.count(ledger_id=LEDGER) == 3

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("change", "reason", "field"),
    [
        ({"source": ""}, "INVALID_SIGNAL", "source"),
        ({"deterministic_trace_id": "0" * 16}, "SIGNAL_ID_MISMATCH", None),
        ({"signal_id": "OMEN-000000000000"}, "SIGNAL_ID_MISMATCH", None),
        ({"schema_version": "2.0.0"}, "SCHEMA_VERSION_UNSUPPORTED", None),
    ],
)
def test_an_event_that_cannot_be_stored_is_refused_with_its_reason_and_leaves_nothing(
    database: Database, change: dict[str, str], reason: str, field: str | None
) -> None:
    async def scenario() -> None:
        async with riskcast(database.url) as client:
            wrong = event(1)
            for name, value in change.items():
                setattr(wrong, name, value)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.ingest(wrong)
            error = refused(caught.value)
            assert error.reason == reason
            assert [each.field for each in error.violations] == ([field] if field else [])
            assert await client.count() == 0

    asyncio.run(scenario())


def test_questions_that_have_no_answer_say_why(database: Database) -> None:
    async def scenario() -> None:
        async with riskcast(database.url) as client:
            signals, states = client.signals, ReconcileServiceStub(client.channel)
            for question, reason in (
                (signals.GetSignal(GetSignalRequest(signal_id="OMEN-0"), timeout=5), "INVALID_SIGNAL"),
                (signals.GetSignal(GetSignalRequest(signal_id=event(1).signal_id), timeout=5), "SIGNAL_NOT_FOUND"),
                (signals.CountSignals(CountSignalsRequest(partition="today"), timeout=5), "INVALID_SIGNAL"),
                (states.ListReconcileStates(ListReconcileStatesRequest(ledger_id="x"), timeout=5), "INVALID_SIGNAL"),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await question
                assert refused(caught.value).reason == reason

    asyncio.run(scenario())
