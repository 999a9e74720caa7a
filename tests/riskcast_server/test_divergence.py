"""A ledger that lacks what is settled here never looks healthy, until an operator accepts it with a reason."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import grpc
import pytest

from omen.v1.ledger_record_pb2 import LedgerRecord
from riskcast.v1 import reconcile_service_pb2 as pb
from tests.riskcast_server.events import DAY, OTHER_LEDGER, event
from tests.riskcast_server.omen import Omen
from tests.riskcast_server.running import Client, refused, riskcast, sql
from tests.riskcast_server.test_reconcile import COMPLETED, PARTIAL, both


def beyond(record: LedgerRecord, number: int, *, ordinal: int = 1, partition: str = DAY) -> LedgerRecord:
    """A record of another event that the ledger lost: behind the last one of the segment, or of another file."""
    lost = LedgerRecord()
    lost.CopyFrom(record)
    lost.event = event(number).SerializeToString()
    lost.position.partition = partition
    lost.position.sequence = ordinal << 32 | number
    if ordinal != 1 or partition != DAY:
        lost.position.segment_id = bytes([number] * 16)
    return lost


def states(messages: Sequence[pb.ReconcileResponse]) -> list[tuple[str, int, str, int]]:
    done = [each.partition_finished for each in messages if each.HasField("partition_finished")]
    return [
        (each.state.partition, each.state.status, each.state.reason.partition(":")[0], each.extra_record_count)
        for each in done
    ]


async def regressed(served: Omen, client: Client) -> LedgerRecord:
    """One record stays, two of its partition and one of another partition are gone."""
    [record] = served.append([event(1)])
    await served.deliver(client, [record, beyond(record, 2), beyond(record, 3, ordinal=2)])
    await served.deliver(client, [beyond(record, 4, partition="2026-01-20")])
    return record


def test_what_is_accepted_is_completed_and_still_counted_as_extra(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            record = await regressed(served, client)
            assert states(await client.reconcile()) == [
                ("2026-01-20", PARTIAL, "LEDGER_REGRESSED", 1),
                (DAY, PARTIAL, "LEDGER_REGRESSED", 2),
            ]
            ledger_id = served.ledger.ledger_id
            for _ in range(2):
                assert await client.accept(ledger_id, "restored from a backup") == {"2026-01-20": 1, DAY: 2}
            assert states(await client.reconcile()) == [("2026-01-20", COMPLETED, "", 1), (DAY, COMPLETED, "", 2)]
            assert len(sql(tmp_path, "SELECT * FROM accepted_divergences")) == 3
            assert await client.count() == 4
            await served.deliver(client, [beyond(record, 9)])
            assert states(await client.reconcile())[1] == (DAY, PARTIAL, "LEDGER_REGRESSED", 3)

    asyncio.run(scenario())


def test_a_cache_alone_is_not_accepted(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            await served.deliver(client, served.append([event(1), event(2)]))
            sql(tmp_path, "UPDATE coverage SET intervals = '1-1000', settled_count = 1000")
            assert await client.accept(served.ledger.ledger_id, "because") == {}
            assert sql(tmp_path, "SELECT * FROM accepted_divergences") == []

    asyncio.run(scenario())


def test_another_file_in_the_place_of_a_settled_one_is_a_fork(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            [record] = served.append([event(1)])
            record.position.segment_id = bytes(16)
            await served.deliver(client, [record])
            assert states(await client.reconcile()) == [(DAY, PARTIAL, "LEDGER_FORKED", 1)]
            await client.accept(served.ledger.ledger_id, "forked on purpose")
            assert states(await client.reconcile()) == [(DAY, COMPLETED, "", 1)]

    asyncio.run(scenario())


def test_a_divergence_survives_a_restart_and_so_does_its_acceptance(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            await regressed(served, client)
            await client.accept(served.ledger.ledger_id, "restored from a backup")
            directory = served.directory
        async with both(tmp_path) as (served, client):
            assert served.directory == directory
            assert {status for _, status, _, _ in states(await client.reconcile())} == {COMPLETED}

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("ledger_id", "reason", "field"),
    [("x", "because", "ledger_id"), (OTHER_LEDGER, "because", "ledger_id"), (OTHER_LEDGER, "", "reason")],
)
def test_an_acceptance_that_cannot_be_meant_is_refused(tmp_path: Path, ledger_id: str, reason: str, field: str) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (_, client):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.accept(ledger_id, reason)
            assert [each.field for each in refused(caught.value).violations] == [field]

    asyncio.run(scenario())


def test_nothing_is_accepted_of_a_ledger_that_cannot_be_asked(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with riskcast(tmp_path, omen_targets=("127.0.0.1:1",)) as client:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.accept(OTHER_LEDGER, "because")
            assert refused(caught.value).reason == "LEDGER_UNAVAILABLE"

    asyncio.run(scenario())


def test_a_dead_letter_that_an_operator_dropped_stands_in_nobodys_way(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            records = served.append([event(1), b"no event", b"neither"])
            await served.deliver(client, records)
            served.dropped = [records[1].position.sequence]
            assert states(await client.reconcile()) == [(DAY, PARTIAL, "INVALID_SIGNAL", 0)]
            served.dropped.append(records[2].position.sequence)
            messages = await client.reconcile()
            assert states(messages) == [(DAY, COMPLETED, "", 0)]
            assert messages[-1].run_finished.failed_record_count == 0

    asyncio.run(scenario())
