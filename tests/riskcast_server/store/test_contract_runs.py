"""What every store promises of the memory of Reconcile, whatever its technology."""

import asyncio
import random
from itertools import groupby

import pytest

from contract.coverage import Coverage
from contract.errors import ContractError, Reason
from riskcast.v1.reconcile_service_pb2 import (
    RECONCILE_STATUS_COMPLETED,
    RECONCILE_STATUS_PARTIAL,
    ReconcileState,
)
from riskcast_server.store import Lease, SegmentCoverage, StateKey, StatesQuery, Store, open_store
from riskcast_server.store.contract import HISTORY_KEPT, Kept
from tests.riskcast_server.databases import Database
from tests.riskcast_server.events import DAY, LEDGER, OTHER_LEDGER

LATE = f"{DAY}-late"
LONG_S, OVER_S = 60.0, 0.0
SEGMENTS = [bytes([number] * 16) for number in (1, 2)]


def state(lease: Lease, partition: str = DAY, missing: int = 0) -> ReconcileState:
    made = ReconcileState(
        ledger_id=lease.name,
        partition=partition,
        status=RECONCILE_STATUS_PARTIAL if missing else RECONCILE_STATUS_COMPLETED,
        reason="NOT_FETCHED" if missing else "",
        ledger_record_count=100,
        highwater_sequence=7 << 32 | 9,
        manifest_revision=3,
        run_id=lease.holder,
        missing_record_count=missing,
        replayed_record_count=1,
        failed_record_count=2,
        extra_record_count=4,
    )
    made.finished_at.FromMicroseconds(1_769_688_000_000_000 + lease.fence)
    return made


def test_a_lease_is_one_holders_until_it_is_released_or_runs_out_and_every_new_one_has_a_higher_fence(
    database: Database,
) -> None:
    async def scenario() -> None:
        async with open_store(database.url) as store:
            runs = store.runs
            first = await runs.lease(LEDGER, "one", LONG_S)
            assert first == Lease(LEDGER, "one", 1)
            assert await runs.lease(LEDGER, "other", LONG_S) == first
            assert await runs.lease(OTHER_LEDGER, "other", LONG_S) == Lease(OTHER_LEDGER, "other", 1)
            again = await runs.lease(LEDGER, "one", LONG_S)
            assert again == Lease(LEDGER, "one", 2)
            await runs.release(first)
            assert await runs.lease(LEDGER, "other", LONG_S) == again
            await runs.release(again)
            await runs.release(again)
            assert await runs.lease(LEDGER, "other", OVER_S) == Lease(LEDGER, "other", 3)
            assert await runs.lease(LEDGER, "third", LONG_S) == Lease(LEDGER, "third", 4)

    asyncio.run(scenario())


def test_a_lease_is_renewed_as_long_as_no_other_is_in_force(database: Database) -> None:
    async def scenario() -> None:
        async with open_store(database.url) as store:
            runs = store.runs
            mine = await runs.lease(LEDGER, "one", OVER_S)
            assert await runs.renew(mine, LONG_S)
            assert await runs.lease(LEDGER, "other", LONG_S) == mine
            assert await runs.renew(mine, OVER_S)
            theirs = await runs.lease(LEDGER, "other", LONG_S)
            assert (theirs.holder, theirs.fence) == ("other", 2)
            assert not await runs.renew(mine, LONG_S)
            await runs.release(mine)
            assert await runs.renew(theirs, LONG_S)
            await runs.release(theirs)
            assert not await runs.renew(theirs, LONG_S)

    asyncio.run(scenario())


def test_whoever_lost_the_lease_writes_nothing_more_and_is_told_by_whom(database: Database) -> None:
    async def scenario() -> None:
        async with open_store(database.url) as store:
            runs = store.runs
            old = await runs.lease(LEDGER, "old", OVER_S)
            await runs.save_state(old, state(old))
            await runs.save_missing(old, DAY, {SEGMENTS[0]: Coverage.of([1])})
            new = await runs.lease(LEDGER, "new", LONG_S)
            for refused in (runs.save_state(old, state(old, LATE)), runs.save_missing(old, DAY, {})):
                with pytest.raises(ContractError) as caught:
                    await refused
                assert caught.value.reason == Reason.RECONCILE_RUNNING
                assert caught.value.metadata == {"run_id": "new"}
            await runs.save_state(new, state(new, missing=1))
            assert [each.key for each in await runs.states(StatesQuery(), None, 10)] == [(LEDGER, DAY, 2)]
            assert await runs.maybe_missing(LEDGER, "old", DAY) == {SEGMENTS[0]: Coverage.of([1])}

    asyncio.run(scenario())


async def paged(store: Store, query: StatesQuery, limit: int) -> list[Kept]:
    found: list[Kept] = []
    after: StateKey | None = None
    while page := await store.runs.states(query, after, limit):
        assert len(page) <= limit
        found += page
        after = page[-1].key
    return found


def test_states_are_listed_as_they_were_saved_the_last_of_each_partition_or_the_whole_history(
    database: Database,
) -> None:
    draw = random.Random(3)

    async def scenario() -> None:
        async with open_store(database.url) as store:
            kept: dict[StateKey, ReconcileState] = {}
            for number in range(40):
                lease = await store.runs.lease(draw.choice([LEDGER, OTHER_LEDGER]), f"run{number}", OVER_S)
                for partition in draw.sample([DAY, LATE, ""], 2):
                    for missing in range(draw.randint(1, 2)):  # a second one of a run takes the place of the first
                        saved = state(lease, partition, missing)
                        await store.runs.save_state(lease, saved)
                        kept[lease.name, partition, lease.fence] = saved
            every = [Kept(key, kept[key]) for key in sorted(kept, key=lambda key: (key[0], key[1], -key[2]))]
            last = [next(group) for _, group in groupby(every, key=lambda each: each.key[:2])]
            for query, listed in ((StatesQuery(is_history=True), every), (StatesQuery(), last)):
                for limit in (1, 3, 1000):
                    assert await paged(store, query, limit) == listed
            of_late = [each for each in every if each.key[:2] == (LEDGER, LATE)]
            assert await paged(store, StatesQuery(LEDGER, LATE, is_history=True), 2) == of_late
            assert await paged(store, StatesQuery(partition=DAY), 2) == [each for each in last if each.key[1] == DAY]

    asyncio.run(scenario())


def test_of_each_partition_the_last_states_are_kept_and_older_ones_go(database: Database) -> None:
    async def scenario() -> None:
        async with open_store(database.url) as store:
            first = await store.runs.lease(LEDGER, "first", OVER_S)
            await store.runs.save_state(first, state(first, LATE))
            for number in range(HISTORY_KEPT + 3):
                lease = await store.runs.lease(LEDGER, f"run{number}", OVER_S)
                await store.runs.save_state(lease, state(lease))
            history = await store.runs.states(StatesQuery(is_history=True), None, 1000)
            fences = [each.key[2] for each in history if each.key[1] == DAY]
            assert fences == list(range(HISTORY_KEPT + 4, 4, -1))
            assert history[-1].key == (LEDGER, LATE, 1)

    asyncio.run(scenario())


def test_what_a_run_found_missing_is_kept_until_it_is_saved_anew_or_another_run_saves(database: Database) -> None:
    async def scenario() -> None:
        async with open_store(database.url) as store:
            runs = store.runs
            lease = await runs.lease(LEDGER, "one", OVER_S)
            missing = {SEGMENTS[0]: Coverage.spanning([(1, 5), (7, 7)]), SEGMENTS[1]: Coverage.of([0xFFFFFFFF])}
            await runs.save_missing(lease, DAY, missing)
            await runs.save_missing(lease, LATE, {SEGMENTS[1]: Coverage.of([2])})
            assert await runs.maybe_missing(LEDGER, "one", DAY) == missing
            assert await runs.maybe_missing(LEDGER, "other", DAY) is None
            assert await runs.maybe_missing(OTHER_LEDGER, "one", DAY) is None
            await runs.save_missing(lease, DAY, {SEGMENTS[1]: Coverage.of([9])})
            assert await runs.maybe_missing(LEDGER, "one", DAY) == {SEGMENTS[1]: Coverage.of([9])}
            assert await runs.maybe_missing(LEDGER, "one", LATE) == {SEGMENTS[1]: Coverage.of([2])}
            later = await runs.lease(LEDGER, "two", LONG_S)
            await runs.save_missing(later, DAY, missing)
            assert await runs.maybe_missing(LEDGER, "one", LATE) is None
            assert await runs.maybe_missing(LEDGER, "two", DAY) == missing

    asyncio.run(scenario())


def test_what_was_accepted_adds_up_by_segment(database: Database) -> None:
    async def scenario() -> None:
        async with open_store(database.url) as store:
            assert await store.runs.accepted(LEDGER) == {}
            claims = [SegmentCoverage(DAY, segment, 1, Coverage.up_to(3)) for segment in SEGMENTS]
            await store.runs.accept(LEDGER, claims, "restored", 7)
            await store.runs.accept(LEDGER, claims, "restored", 7)
            await store.runs.accept(LEDGER, [SegmentCoverage(DAY, SEGMENTS[0], 1, Coverage.of([9]))], "again", 8)
            assert await store.runs.accepted(LEDGER) == {
                SEGMENTS[0]: Coverage.of([1, 2, 3, 9]),
                SEGMENTS[1]: Coverage.up_to(3),
            }
            assert await store.runs.accepted(OTHER_LEDGER) == {}

    asyncio.run(scenario())
