"""A run that was cut goes on right after the last message seen: nothing left out, nothing told twice."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, astuple, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from contract.errors import ContractError
from contract.pages import page_token
from riskcast.v1 import reconcile_service_pb2 as pb
from riskcast_server.resume import Stage, Standing, maybe_standing, query_of
from tests.ledger.faults import NOON
from tests.riskcast_server.databases import PostgresDatabase
from tests.riskcast_server.events import DAY, event
from tests.riskcast_server.omen import Omen, omen
from tests.riskcast_server.running import Client, refused, riskcast, sql
from tests.riskcast_server.test_reconcile import COMPLETED, PARTIAL, both, finished

RUN = "0c3f9a52-5d57-4f43-9a5d-6a1f4be0c7d3"
DEADLINE_S = 10


def story(messages: Sequence[pb.ReconcileResponse]) -> list[tuple[Any, ...]]:
    """What is told, without random ids and times. Progress is left out: it comes as often as the ledger answers."""
    return [told for each in messages if (told := line(each))]


def line(message: pb.ReconcileResponse) -> tuple[Any, ...]:
    match message.WhichOneof("event"):
        case "run_started":
            return ("run_started",)
        case "partition_started":
            started = message.partition_started
            counts = started.ledger_record_count, started.settled_record_count, started.missing_record_count
            return "partition_started", started.partition, *counts
        case "replayed":
            replayed = message.replayed
            return "replayed", replayed.signal_id, replayed.position.sequence, replayed.outcome, replayed.ack_id
        case "partition_finished":
            done = message.partition_finished
            counts = done.missing_record_count, done.replayed_record_count, done.failed_record_count
            named = [(each.sequences.first, each.sequences.last, each.reason) for each in done.problems]
            return "partition_finished", done.state.partition, done.state.status, done.state.reason, *counts, *named
        case "run_finished":
            run = message.run_finished
            counts = run.partition_count, run.replayed_record_count, run.failed_record_count
            return "run_finished", run.status, *counts
    return ()


async def once_free(ask: Callable[[], Awaitable[list[pb.ReconcileResponse]]]) -> list[pb.ReconcileResponse]:
    """A run that was cut may still be ending."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                return await ask()
            except grpc.aio.AioRpcError as error:
                if refused(error).reason != "RECONCILE_RUNNING":
                    raise


async def until_free(client: Client, **request: Any) -> list[pb.ReconcileResponse]:
    return await once_free(partial(client.reconcile, **request))


async def prepared(served: Omen, client: Client) -> None:
    """Two partitions of two segments each: stored, missing, rejected and repeated records in both."""
    for number, day in ((0, NOON), (100, NOON + timedelta(days=1))):
        payloads = [event(number + index) for index in range(1, 7)]
        again = event(number + 1)
        again.emitted_at.seconds += 1
        records = served.append([*payloads[:3], b"no event %d" % number, *payloads[3:], again], day)
        await served.deliver(client, [records[1], records[6]])


@pytest.mark.parametrize("is_ahead", [False, True], ids=["at once", "long before the client reads on"])
def test_cut_after_every_message_a_run_goes_on_as_if_it_had_not_been_cut(tmp_path: Path, is_ahead: bool) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            await prepared(served, client)
            expected = await client.reconcile()
        for cut in range(1, len(expected) + 1):
            directory = tmp_path / str(cut)
            await asyncio.to_thread(directory.mkdir)
            async with both(directory) as (served, client):
                await prepared(served, client)
                before = await client.reconcile_until(cut, stored_before_the_cut=12 if is_ahead else 0)
                after = await until_free(client, cursor=before[-1].cursor)
                assert story([*before, *after]) == story(expected), f"cut after {cut}"
                run_id = before[0].run_started.run_id
                assert {each.run_finished.run_id for each in after if each.HasField("run_finished")} <= {run_id}
                assert await client.count() == 12

    asyncio.run(scenario())


def test_cut_again_and_again_it_ends_all_the_same(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            await prepared(served, client)
            messages = await client.reconcile_until(1)
            async with asyncio.timeout(DEADLINE_S):
                while not messages[-1].HasField("run_finished"):
                    messages += await once_free(partial(client.reconcile_until, 1, cursor=messages[-1].cursor))
            replayed = [each.replayed.position.sequence for each in messages if each.HasField("replayed")]
            assert len(replayed) == 12
            assert [told[0] for told in story(messages)].count("partition_finished") == 2
            assert messages[-1].run_finished.status == PARTIAL

    asyncio.run(scenario())


def test_a_run_that_was_cut_at_one_replica_goes_on_at_another(
    tmp_path: Path, postgres_database: PostgresDatabase
) -> None:
    async def scenario() -> None:
        async with omen(tmp_path / "ledger", segment_records_max=4) as (served, target):
            settings = {"omen_targets": (target,)}
            async with (
                riskcast(postgres_database.url, **settings) as one,
                riskcast(postgres_database.url, **settings) as other,
            ):
                await prepared(served, one)
                before = await one.reconcile_until(5)
                after = await until_free(other, cursor=before[-1].cursor)
                told = [each[0] for each in story([*before, *after])]
                assert (told[0], told[-1], told.count("replayed")) == ("run_started", "run_finished", 12)
                assert told.count("partition_started") == told.count("partition_finished") == 2
                assert after[-1].run_finished.run_id == before[0].run_started.run_id
                assert await one.count() == 12

    asyncio.run(scenario())


def test_when_another_run_came_between_what_is_missing_now_counts(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            served.append([event(number) for number in range(6)])
            before = await client.reconcile_until(3)
            await until_free(client)
            after = await client.reconcile(cursor=before[-1].cursor)
            told = [each[0] for each in story(after) if each[0] != "replayed"]
            assert told == ["partition_finished", "run_finished"]
            assert finished(after).state.status == COMPLETED
            assert await client.count() == 6

    asyncio.run(scenario())


def test_what_came_to_be_missing_since_is_fetched_by_the_resumed_run(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            await served.deliver(client, served.append([event(1)]))
            before = await client.reconcile_until(2)
            served.append([event(2), event(3)])
            after = await until_free(client, cursor=before[-1].cursor)
            partition = finished(after)
            assert [told[0] for told in story(after)].count("replayed") == 2
            counts = partition.missing_record_count, partition.replayed_record_count, partition.failed_record_count
            assert (partition.state.status, *counts) == (COMPLETED, 2, 2, 0)

    asyncio.run(scenario())


def test_a_dry_run_is_resumed_too_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            await prepared(served, client)
            whole = await client.reconcile(dry_run=True)
            for cut in range(1, len(whole) + 1):
                before = await client.reconcile_until(cut, dry_run=True)
                after = await until_free(client, dry_run=True, cursor=before[-1].cursor)
                assert story([*before, *after]) == story(whole)
            assert await client.states() == []
            assert sql(tmp_path, "SELECT * FROM reconcile_missing") == []

    asyncio.run(scenario())


def test_a_record_that_the_ledger_lost_meanwhile_is_not_asked_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            served.append([event(number) for number in range(6)])
            before = await client.reconcile_until(3)
            await until_free(client, dry_run=True)
            sql(tmp_path, "UPDATE reconcile_missing SET intervals = '1-900'")
            after = await until_free(client, cursor=before[-1].cursor)
            assert finished(after).state.status == COMPLETED

    asyncio.run(scenario())


def test_a_cursor_is_good_for_its_filters_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            served.append([event(1)])
            cursor = (await client.reconcile_until(2))[-1].cursor
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.reconcile(cursor=cursor, partitions=[DAY])
            assert refused(caught.value).reason == "INVALID_PAGE_TOKEN"

    asyncio.run(scenario())


QUERY = query_of(pb.ReconcileRequest(), ())
SOUND = Standing(RUN, 1, Stage.PARTITION_STARTED, 0, DAY)


def test_a_standing_comes_back_from_its_cursor() -> None:
    standing = replace(SOUND, sequence=2**64 - 1, missing=7)
    assert maybe_standing(QUERY, standing.cursor(QUERY)) == standing
    assert maybe_standing(QUERY, "") is None


@pytest.mark.parametrize(
    "values",
    [
        [],
        {"run_id": RUN},
        7,
        astuple(SOUND)[:-1],
        [*astuple(SOUND), 1],
        *(
            list((asdict(SOUND) | {field: value}).values())
            for field, value in (
                ("run_id", "x"),
                ("run_id", 1),
                ("started_at", -1),
                ("started_at", 2**53),
                ("started_at", 1.0),
                ("stage", 4),
                ("stage", True),
                ("partition", "yesterday"),
                ("sequence", 2**64),
                ("worst", 9),
                ("partitions_done", 2**31),
                ("missing", "1"),
            )
        ),
    ],
)
def test_a_cursor_that_somebody_made_up_is_refused(values: object) -> None:
    with pytest.raises(ContractError, match="not one of this run's"):
        maybe_standing(QUERY, page_token(QUERY, json.dumps(values)))
