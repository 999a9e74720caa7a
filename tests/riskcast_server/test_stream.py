"""Delivery's way in: hellos, batches, one outcome per record, in order."""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest

from contract.limits import HELLO_RANGES_MAX, HELLO_REJECTED_MAX, MIB
from omen.v1.ledger_record_pb2 import IndexRange, LedgerRecord, SegmentRanges
from omen.v1.signal_event_pb2 import SignalEvent
from riskcast.v1 import ingest_service_pb2 as pb
from riskcast.v1.signal_service_pb2 import CountSignalsRequest, GetSignalRequest
from riskcast_server.services import ingest
from tests.riskcast_server.databases import Database
from tests.riskcast_server.events import DAY, LEDGER, OTHER_LEDGER, SEGMENT, event, position, record, records
from tests.riskcast_server.running import refused, riskcast, sql

STORED, DUPLICATE = pb.RECORD_OUTCOME_STORED, pb.RECORD_OUTCOME_DUPLICATE
CONFLICT, REJECTED = pb.RECORD_OUTCOME_CONFLICT, pb.RECORD_OUTCOME_REJECTED
OTHER_SEGMENT = bytes(16)


def test_a_hello_answers_what_is_settled_of_the_segments_asked_about(database: Database) -> None:
    async def scenario() -> None:
        async with riskcast(database.url) as client:
            elsewhere = record(9, at=position(1, segment_id=OTHER_SEGMENT, ordinal=2))
            await client.deliver([*records([1, 2, 5]), record(6, b"no event"), record(7, event(1)), elsewhere])
            hello = await client.hello(bytes([7] * 16), SEGMENT)
            [settled] = hello.settled
            assert settled.segment_id == SEGMENT
            assert list(settled.ranges) == [IndexRange(first=1, last=2), IndexRange(first=5, last=7)]
            assert hello.settled_count == 6
            nothing = await client.hello(SEGMENT, ledger_id=OTHER_LEDGER)
            assert nothing == pb.IngestHelloResult()

    asyncio.run(scenario())


def test_a_hello_says_what_was_rejected_of_the_segments_asked_about(database: Database) -> None:
    async def scenario() -> None:
        async with riskcast(database.url) as client:
            bad = [record(index, b"no event") for index in (2, 3, 6)]
            elsewhere = record(9, b"no event", at=position(1, segment_id=OTHER_SEGMENT, ordinal=2))
            await client.deliver([record(1), *bad, record(4, event(1)), record(5, event(1, title="x")), elsewhere])
            [rejected] = (await client.hello(bytes([7] * 16), SEGMENT)).rejected
            assert rejected.segment_id == SEGMENT
            assert list(rejected.ranges) == [IndexRange(first=2, last=3), IndexRange(first=6, last=6)]
            assert [each.segment_id for each in (await client.hello(SEGMENT, OTHER_SEGMENT)).rejected] == [
                SEGMENT,
                OTHER_SEGMENT,
            ]
            assert list((await client.hello(SEGMENT, ledger_id=OTHER_LEDGER)).rejected) == []
            await client.deliver([record(2), record(3, event(1))])  # redriven: one is stored, one is a duplicate
            [rejected] = (await client.hello(SEGMENT)).rejected
            assert list(rejected.ranges) == [IndexRange(first=6, last=6)]

    asyncio.run(scenario())


def test_rows_deleted_behind_the_servers_back_are_missing_from_the_next_hello(database: Database) -> None:
    async def scenario() -> None:
        async with riskcast(database.url) as client:
            await client.deliver([*records(range(1, 6)), record(6, event(3))])
            await database.sql("DELETE FROM signals WHERE record_index = 3")
            hello = await client.hello(SEGMENT)
            [settled] = hello.settled
            assert hello.settled_count == 4
            assert list(settled.ranges) == [IndexRange(first=1, last=2), IndexRange(first=4, last=5)]
            await database.sql("DELETE FROM coverage")
            assert list((await client.hello(SEGMENT)).settled) == [settled]
            assert await database.sql("SELECT intervals, settled_count FROM coverage") == [("1-2,4-5", 4)]

    asyncio.run(scenario())


def test_each_record_gets_its_own_outcome_and_a_bad_one_fails_itself_only(database: Database) -> None:
    async def scenario() -> None:
        async with riskcast(database.url) as client:
            untitled = event(3, title="")
            wrong_id = event(4)
            wrong_id.signal_id = event(5).signal_id
            batch = [
                record(1),
                record(2, b"\xff no event"),
                record(3, untitled),
                record(4, wrong_id),
                record(5, event(1)),
                record(6),
            ]
            results = await client.deliver(batch)
            assert [each.outcome for each in results] == [STORED, REJECTED, REJECTED, REJECTED, DUPLICATE, STORED]
            assert results[4].ack_id == results[0].ack_id != ""
            assert [each.error.reason for each in results[1:4]] == [
                "INVALID_SIGNAL", "INVALID_SIGNAL", "SIGNAL_ID_MISMATCH",
            ]  # fmt: skip
            assert results[2].error.violations[0].field == "signal.title"
            assert await client.count() == 2
            again = await client.deliver(batch)
            assert [each.outcome for each in again] == [each.outcome for each in results]
            assert [each.ack_id for each in again] == [each.ack_id for each in results]
            assert await client.count() == 2

    asyncio.run(scenario())


def test_another_event_under_the_same_id_is_a_conflict_and_both_hashes_are_named(database: Database) -> None:
    async def scenario() -> None:
        async with riskcast(database.url) as client:
            await client.deliver([record(1)])
            await database.sql("UPDATE signals SET input_event_hash = 'sha256:' || ?", "0" * 64)
            [result] = await client.deliver([record(2, event(1))])
            assert (result.outcome, result.error.reason) == (CONFLICT, "SIGNAL_ID_CONFLICT")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.ingest(event(1))
            error = refused(caught.value)
            assert error.metadata["stored_input_event_hash"] == "sha256:" + "0" * 64
            assert error.metadata["input_event_hash"] == event(1).input_event_hash
            assert await client.count() == 1

    asyncio.run(scenario())


def test_a_record_emitted_ahead_of_this_clock_is_stored_from_a_ledger_and_refused_from_a_caller(
    database: Database,
) -> None:
    async def scenario() -> None:
        async with riskcast(database.url) as client:
            ahead = event(1)
            ahead.emitted_at.FromDatetime(datetime(2099, 1, 1, tzinfo=UTC))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.ingest(ahead)
            assert refused(caught.value).violations[0].field == "emitted_at"
            [result] = await client.deliver([record(1, ahead)])
            assert result.outcome == STORED

    asyncio.run(scenario())


def test_a_hello_names_no_more_ranges_than_one_message_holds(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with riskcast(tmp_path) as client:
            await client.deliver(records([1]))
            # Every other record of two segments, as wide as indexes come.
            sql(tmp_path, "DELETE FROM coverage")
            for segment in (SEGMENT, OTHER_SEGMENT):
                sql(tmp_path, "WITH RECURSIVE odd(n) AS (SELECT 4000000001 UNION ALL SELECT n + 2 FROM odd LIMIT ?)"
                    " INSERT INTO settlements SELECT ?, ?, ?, 1, n, 'rejected', '', '', '' FROM odd",
                    HELLO_RANGES_MAX - 100, LEDGER, DAY, segment)  # fmt: skip
            hello = await client.hello(SEGMENT, OTHER_SEGMENT)
            assert [len(each.ranges) for each in hello.settled] == [HELLO_RANGES_MAX - 99, 99]
            assert [sum(each.last - each.first + 1 for each in told.ranges) for told in hello.rejected] == [
                HELLO_REJECTED_MAX
            ]
            assert hello.ByteSize() < 2 * MIB

    asyncio.run(scenario())


def test_what_was_rejected_and_does_not_fit_into_a_hello_is_told_by_the_next_ones(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "HELLO_REJECTED_MAX", 2)

    async def scenario() -> None:
        async with riskcast(database.url) as client:
            there = [(OTHER_SEGMENT, 2), (OTHER_SEGMENT, 3), (SEGMENT, 1), (SEGMENT, 3), (SEGMENT, 5)]
            for segment_id, index in there:
                await client.deliver([record(index, b"no event", at=position(index, segment_id=segment_id))])
            pages = [await client.hello(SEGMENT, OTHER_SEGMENT)]
            while token := pages[-1].next_rejected_page_token:
                pages.append(await client.hello(rejected_page_token=token))
            assert [places(page.rejected) for page in pages] == [there[:2], there[2:4], there[4:]]
            assert [len(page.settled) for page in pages] == [2, 0, 0]
            assert places((await client.hello(SEGMENT)).rejected) == []  # none of the first ones is of that segment
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.hello(rejected_page_token="x")
            assert refused(caught.value).reason == "INVALID_PAGE_TOKEN"

    asyncio.run(scenario())


def places(told: Iterable[SegmentRanges]) -> list[tuple[bytes, int]]:
    runs = [(each.segment_id, run) for each in told for run in each.ranges]
    return [(segment_id, index) for segment_id, run in runs for index in range(run.first, run.last + 1)]


def test_a_record_redriven_after_its_rejection_becomes_a_row(database: Database) -> None:
    async def scenario() -> None:
        async with riskcast(database.url) as client:
            await client.deliver([record(1, b"no event")])
            [result] = await client.deliver([record(1)])
            assert result.outcome == STORED
            assert await database.sql("SELECT * FROM settlements") == []
            assert (await client.hello()).settled_count == 1

    asyncio.run(scenario())


def test_batches_in_flight_are_answered_in_order(database: Database) -> None:
    async def scenario() -> None:
        async with riskcast(database.url) as client, client.stream() as stream:
            for start in range(1, 200, 10):
                await stream.send(records(range(start, start + 10)))
            await stream.call.done_writing()
            for start in range(1, 200, 10):
                results = await stream.results()
                stored = [
                    (await client.signals.GetSignal(GetSignalRequest(signal_id=event(index).signal_id), timeout=5))
                    for index in (start, start + 9)
                ]
                assert [results[0].ack_id, results[-1].ack_id] == [each.signal.ack_id for each in stored]

    asyncio.run(scenario())


def test_a_newer_major_version_ends_the_stream_and_settles_nothing_of_its_batch(database: Database) -> None:
    async def scenario() -> None:
        async with riskcast(database.url) as client:
            newer = event(3)
            newer.schema_version = "2.0.0"
            async with client.stream() as stream:
                await stream.send([record(1)])
                await stream.send([record(2), record(3, newer)])
                assert [each.outcome for each in await stream.results()] == [STORED]
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stream.results()
            assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert refused(caught.value).reason == "SCHEMA_VERSION_UNSUPPORTED"
            assert (await client.hello()).settled_count == await client.count() == 1

    asyncio.run(scenario())


def stray(**changes: object) -> LedgerRecord:
    made = record(1)
    for name, value in changes.items():
        setattr(made.position, name, value)
    return made


@pytest.mark.parametrize(
    ("batch", "field"),
    [
        ([], "records"),
        ([record(1, b"x")] * 257, "records"),
        ([record(index, bytes(200_000)) for index in range(1, 7)], "records"),
        ([stray(ledger_id=OTHER_LEDGER)], "records[0].position.ledger_id"),
        ([stray(segment_id=b"short")], "records[0].position.segment_id"),
        ([stray(sequence=1 << 32)], "records[0].position.sequence"),
        ([stray(partition="yesterday")], "records[0].position.partition"),
    ],
)
def test_a_batch_out_of_bounds_ends_the_stream_and_names_the_field(
    database: Database, batch: list[LedgerRecord], field: str
) -> None:
    async def scenario() -> None:
        async with riskcast(database.url) as client:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.deliver(batch)
            error = refused(caught.value)
            assert (error.reason, error.violations[0].field) == ("INVALID_SIGNAL", field)
            assert (await client.hello()).settled_count == 0

    asyncio.run(scenario())


def test_a_stream_without_a_hello_is_refused(database: Database) -> None:
    async def scenario() -> None:
        async with riskcast(database.url) as client:
            call = client.ingest_stub.IngestStream(timeout=5)
            await call.write(pb.IngestStreamRequest(batch=pb.IngestBatch(records=records([1]))))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert refused(caught.value).reason == "INVALID_SIGNAL"
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.hello(b"short")
            assert refused(caught.value).violations[0].field == "hello.segments[0].segment_id"

    asyncio.run(scenario())


def test_the_bytes_are_stored_as_they_came_unknown_fields_included(database: Database) -> None:
    async def scenario() -> None:
        async with riskcast(database.url) as client:
            future = b"\xfa\x7f\x05later" + event(1).SerializeToString()  # field 2047, before all known ones
            await client.deliver([record(1, future)])
            stored = await client.signals.GetSignal(GetSignalRequest(signal_id=event(1).signal_id), timeout=5)
            assert stored.signal.stored_event == future
            unary = SignalEvent.FromString(b"\xfa\x7f\x05later" + event(2).SerializeToString())
            await client.ingest(unary)
            stored = await client.signals.GetSignal(GetSignalRequest(signal_id=event(2).signal_id), timeout=5)
            assert stored.signal.stored_event == unary.SerializeToString()
            assert b"later" in stored.signal.stored_event

    asyncio.run(scenario())


def test_counts_are_by_ledger_and_partition(database: Database) -> None:
    async def scenario() -> None:
        async with riskcast(database.url) as client:
            late = record(3, at=position(1, segment_id=OTHER_SEGMENT, partition=f"{DAY}-late"))
            await client.deliver([*records([1, 2]), late])
            await client.ingest(event(4))
            response = await client.signals.CountSignals(CountSignalsRequest(), timeout=5)
            assert response.signal_count == 4
            assert [(each.ledger_id, each.partition, each.signal_count) for each in response.partitions] == [
                ("", "", 1), (LEDGER, DAY, 2), (LEDGER, f"{DAY}-late", 1),
            ]  # fmt: skip
            assert await client.count(ledger_id=LEDGER) == 3
            assert await client.count(partition=DAY) == 2

    asyncio.run(scenario())
