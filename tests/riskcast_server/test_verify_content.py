"""Reconcile with verify_content: what is stored says what the ledger says, and the ledger can still read it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from riskcast.v1.reconcile_service_pb2 import ReconcileRequest
from riskcast.v1.reconcile_service_pb2_grpc import ReconcileServiceStub
from tests.ledger.faults import flip_byte, segment_of
from tests.riskcast_server.events import event, with_long_id
from tests.riskcast_server.running import sql
from tests.riskcast_server.test_reconcile import COMPLETED, PARTIAL, both, finished, problems


def test_what_says_the_same_is_completed_and_counted(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            again = event(2)
            again.emitted_at.seconds += 1
            records = served.append([event(1), event(2), event(3), again, event(4), b"no event"])
            await served.deliver(client, records[:4])
            messages = await client.reconcile(verify_content=True)
            partition = finished(messages)
            assert problems(partition) == [(2, 2, 2, "INVALID_SIGNAL")]
            assert (partition.replayed_record_count, partition.verified_record_count) == (1, 5)
            told = [each.progress.verified_record_count for each in messages if each.HasField("progress")]
            assert told[-1] == 5
            assert finished(await client.reconcile()).verified_record_count == 0

    asyncio.run(scenario())


def test_a_stored_event_that_says_something_else_is_named(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            await served.deliver(client, served.append([event(number) for number in range(1, 7)]))
            other = event(5, title="Another title").SerializeToString()
            sql(tmp_path, "UPDATE signals SET event = ? WHERE signal_id = ?", other, event(5).signal_id)
            assert finished(await client.reconcile()).state.status == COMPLETED
            for is_dry in (True, False):
                partition = finished(await client.reconcile(verify_content=True, dry_run=is_dry))
                assert (partition.state.status, partition.verified_record_count) == (PARTIAL, 5)
                assert problems(partition) == [(2, 1, 1, "CONTENT_DIFFERS")]
                assert partition.state.reason.startswith("CONTENT_DIFFERS")

    asyncio.run(scenario())


def test_a_conflict_is_compared_with_the_row_of_its_wide_id(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            records = served.append([event(1), event(2), with_long_id(event(2), 32)])
            await served.deliver(client, records[:1])
            # As if two digests shared their first digits: another event stands under the id of record 2.
            sql(tmp_path, "UPDATE signals SET signal_id = ?", event(2).signal_id)
            await served.deliver(client, records[1:])
            partition = finished(await client.reconcile(verify_content=True))
            assert problems(partition) == [(1, 1, 1, "CONTENT_DIFFERS")]  # the row that was renamed
            assert partition.verified_record_count == 2
            other = with_long_id(event(2, title="Another title"), 32)
            sql(
                tmp_path, "UPDATE signals SET event = ? WHERE signal_id = ?", other.SerializeToString(), other.signal_id
            )
            partition = finished(await client.reconcile(verify_content=True))
            assert problems(partition) == [(1, 1, 3, "CONTENT_DIFFERS")]


@pytest.mark.parametrize(
    "column", ["signal_id = 'OMEN-AAAAAAAAAAAA'", "ack_id = 'ack'", "category = 3", "emitted_at = 1", "event = x'00ff'"]
)
def test_a_column_that_does_not_say_what_its_event_says_is_named(tmp_path: Path, column: str) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            await served.deliver(client, served.append([event(1), event(2)]))
            sql(tmp_path, f"UPDATE signals SET {column} WHERE record_index = 2")
            partition = finished(await client.reconcile(verify_content=True))
            assert problems(partition) == [(1, 2, 2, "CONTENT_DIFFERS")]
            assert partition.verified_record_count == 1

    asyncio.run(scenario())


def test_rows_that_vanish_while_they_are_compared_are_never_completed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            await served.deliver(client, served.append([event(number) for number in range(6)]))
            served.gate.clear()
            stub: Any = ReconcileServiceStub(client.channel)
            call = stub.Reconcile(ReconcileRequest(verify_content=True), timeout=20)
            arriving = aiter(call)
            messages = [await anext(arriving), await anext(arriving)]
            sql(tmp_path, "DELETE FROM signals WHERE record_index = 2")
            served.gate.set()
            messages += [each async for each in arriving]
            partition = finished(messages)
            assert problems(partition) == [(1, 2, 2, "NOT_FETCHED"), (2, 2, 2, "NOT_FETCHED")]
            assert (partition.failed_record_count, partition.verified_record_count) == (2, 4)
            assert finished(await client.reconcile()).replayed_record_count == 2

    asyncio.run(scenario())


@pytest.mark.parametrize(("is_silent", "reason"), [(False, "LEDGER_DAMAGED"), (True, "NOT_FETCHED")])
def test_rot_that_nobody_had_come_upon_is_found_and_named(tmp_path: Path, is_silent: bool, reason: str) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            served.is_silent = is_silent
            records = served.append([event(1), event(2), event(3)])
            await served.deliver(client, records)
            path = segment_of(served.directory)
            flip_byte(path, path.read_bytes().index(records[1].event) + 10)
            assert finished(await client.reconcile()).state.status == COMPLETED  # nobody has read it yet
            partition = finished(await client.reconcile(verify_content=True))
            assert partition.state.status == PARTIAL
            assert problems(partition) == [(1, 2, 2, reason)]
            assert partition.verified_record_count == 2

    asyncio.run(scenario())
