"""What stands between a partition and COMPLETED: open conflicts, claimed places, partitions that are gone."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.riskcast_server.events import event, record, with_long_id
from tests.riskcast_server.running import sql
from tests.riskcast_server.test_reconcile import COMPLETED, PARTIAL, both, finished, problems


def test_a_conflict_is_settled_as_soon_as_its_event_is_stored_under_the_wide_id(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            records = served.append([event(1), event(2)])
            await served.deliver(client, records[:1])
            sql(tmp_path, "UPDATE signals SET signal_id = ?", event(2).signal_id)
            for status in (PARTIAL, COMPLETED):
                await served.deliver(client, records[1:])
                hello = await client.hello(records[0].position.segment_id, ledger_id=served.ledger.ledger_id)
                assert hello.settled[0].ranges[0].last == hello.settled_count == (1 if status == PARTIAL else 3)
                assert finished(await client.reconcile()).state.status == status
                await served.deliver(client, served.append([with_long_id(event(2), 32)]))

    asyncio.run(scenario())


def test_a_record_whose_place_another_signal_claims_is_never_completed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            records = served.append([event(1), event(2)])
            await served.deliver(client, [record(1, event(9), at=records[0].position)])
            await served.deliver(client, records)
            for _ in range(2):
                partition = finished(await client.reconcile())
                assert partition.state.status == PARTIAL
                assert problems(partition) == [(1, 1, 1, "INVALID_SIGNAL")]
                assert partition.failed_record_count == 1
            hello = await client.hello(records[0].position.segment_id, ledger_id=served.ledger.ledger_id)
            assert hello.settled_count == 2

    asyncio.run(scenario())


@pytest.mark.parametrize("asked", [{}, {"partitions": ["2026-01-20"]}])
def test_a_partition_that_the_ledger_no_longer_lists_is_partial(tmp_path: Path, asked: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            [record] = served.append([event(1)])
            await served.deliver(client, [record])
            record.position.partition, record.position.segment_id = "2026-01-20", bytes(16)
            record.event = event(2).SerializeToString()
            await served.deliver(client, [record])
            messages = await client.reconcile(**asked)
            lost = next(each.partition_finished for each in messages if each.HasField("partition_finished"))
            assert (lost.state.partition, lost.state.status) == ("2026-01-20", PARTIAL)
            assert (lost.state.reason.partition(":")[0], lost.extra_record_count) == ("LEDGER_REGRESSED", 1)
            assert messages[-1].run_finished.status == PARTIAL
            assert len(sql(tmp_path, "SELECT * FROM reconcile_history")) == (1 if asked else 2)

    asyncio.run(scenario())


def test_what_is_delivered_while_the_ledger_answers_is_not_beyond_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            await served.deliver(client, served.append([event(1)]))
            served.meanwhile = lambda: served.deliver(client, served.append([event(2)]))
            assert finished(await client.reconcile()).state.status == COMPLETED

    asyncio.run(scenario())
