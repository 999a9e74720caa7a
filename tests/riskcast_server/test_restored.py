"""A database that forgot something is found out, and refilled with the same ack_ids."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.riskcast_server.events import event
from tests.riskcast_server.omen import omen
from tests.riskcast_server.running import database, riskcast, sql
from tests.riskcast_server.test_reconcile import COMPLETED, both, finished


def restored_from_yesterday(directory: Path) -> None:
    shutil.copy(directory / "yesterday.db", database(directory))


def gone(directory: Path) -> None:
    database(directory).unlink()


def rows_deleted(directory: Path) -> None:
    sql(directory, "DELETE FROM signals WHERE record_index IN (1, 4)")


def coverage_deleted(directory: Path) -> None:
    sql(directory, "DELETE FROM coverage")


def everything_but_coverage_deleted(directory: Path) -> None:
    sql(directory, "DELETE FROM signals")
    sql(directory, "DELETE FROM settlements")


def coverage_of_more_than_there_is(directory: Path) -> None:
    sql(directory, "DELETE FROM signals WHERE record_index = 2")
    sql(directory, "UPDATE coverage SET intervals = '1-4', settled_count = 4")


def coverage_that_nobody_can_read(directory: Path) -> None:
    sql(directory, "UPDATE coverage SET intervals = 'what?'")


LOSSES = [
    restored_from_yesterday,
    gone,
    rows_deleted,
    coverage_deleted,
    everything_but_coverage_deleted,
    coverage_of_more_than_there_is,
    coverage_that_nobody_can_read,
]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
def test_a_database_that_forgot_is_refilled_with_the_same_ack_ids(tmp_path: Path, loss: Callable[[Path], None]) -> None:
    async def scenario() -> None:
        async with omen(tmp_path / "ledger", segment_records_max=4) as (served, target):
            async with riskcast(tmp_path, omen_targets=(target,)) as client:
                records = served.append([event(number) for number in range(6)])
                again = event(3)
                again.emitted_at.seconds += 1
                await served.deliver(client, records[:3])
                await client.ingest(event(100))
            shutil.copy(database(tmp_path), tmp_path / "yesterday.db")
            async with riskcast(tmp_path, omen_targets=(target,)) as client:
                await served.deliver(client, [*records, *served.append([again])])
            before = dict(sql(tmp_path, "SELECT signal_id, ack_id FROM signals"))
            loss(tmp_path)
            async with riskcast(tmp_path, omen_targets=(target,)) as client:
                assert finished(await client.reconcile()).state.status == COMPLETED
            after = dict(sql(tmp_path, "SELECT signal_id, ack_id FROM signals"))
            from_the_ledger = {each: before[each] for each in before if each != event(100).signal_id}
            assert from_the_ledger.items() <= after.items() <= before.items()
            settled = sql(tmp_path, "SELECT SUM(settled_count) FROM coverage")
            assert settled == [(7,)]

    asyncio.run(scenario())


def test_a_garbled_cache_stops_no_delivery(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            records = served.append([event(1), event(2)])
            await served.deliver(client, records[:1])
            coverage_that_nobody_can_read(tmp_path)
            await served.deliver(client, records[1:])
            assert sql(tmp_path, "SELECT intervals, settled_count FROM coverage") == [("1-2", 2)]

    asyncio.run(scenario())
