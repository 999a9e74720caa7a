"""What every store promises of signals and of what is settled, whatever its technology."""

import asyncio
import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from contract.coverage import Coverage
from contract.errors import ContractError, Reason, Violation, invalid_signal
from contract.pages import SignalKey
from omen.v1.signal_pb2 import SIGNAL_CATEGORY_ENERGY, SIGNAL_CATEGORY_WEATHER
from riskcast.v1.signal_service_pb2 import ARRIVAL_PATH_DELIVERY, ARRIVAL_PATH_INGEST, ARRIVAL_PATH_REPLAY
from riskcast_server.settlement import Candidate, Entry, Kept, Position, Refused, Row, Verdict
from riskcast_server.store import Failure, PartitionCount, SegmentCoverage, SignalQuery, Store, open_store
from riskcast_server.store.rows import CachedCoverage, portions
from tests.riskcast_server.databases import Database
from tests.riskcast_server.events import DAY, LEDGER, OTHER_LEDGER, SEGMENT
from tests.riskcast_server.test_settlement import WIDE, good, unary

SEGMENTS = [bytes([number] * 16) for number in (1, 2)]
BAD = invalid_signal([Violation("title", "must be there")])
NOON_US = 1_769_688_000_000_000
DAY_US = 86_400_000_000


def standing(name: str, segment_id: bytes, index: int, *, ordinal: int = 1, digest: str = "h") -> Candidate:
    return replace(good(name, None, digest), position=Position(LEDGER, DAY, segment_id, ordinal << 32 | index))


def test_what_is_settled_is_committed_when_the_answer_comes(database: Database) -> None:
    async def scenario() -> None:
        async with open_store(database.url) as store:
            await store.settle([good("a", 1), good("a", 2)], 7)
            assert await database.sql("SELECT signal_id, ingested_at FROM signals") == [("a", 7)]
            assert await database.sql("SELECT outcome, record_index FROM settlements") == [("duplicate", 2)]
            assert await database.sql("SELECT intervals FROM coverage") == [("1-2",)]

    asyncio.run(scenario())


@pytest.mark.parametrize("table", ["signals", "settlements", "coverage"])
def test_rows_settlements_and_coverage_are_written_together_or_not_at_all(database: Database, table: str) -> None:
    async def scenario() -> None:
        async with open_store(database.url) as store:
            async with database.refusing_inserts(table):
                with pytest.raises(ContractError, match="cannot be used now") as caught:
                    await store.settle([good("a", 1), good("a", 2)], 7)
                assert (caught.value.reason, caught.value.retry_delay_s) == (Reason.STORE_UNAVAILABLE, 1.0)
                left = [await database.sql(f"SELECT * FROM {each}") for each in ("signals", "settlements", "coverage")]
                assert left == [[], [], []]
            await store.settle([good("a", 1), good("a", 2)], 7)
            assert await store.settled_count(LEDGER) == 2

    asyncio.run(scenario())


def test_a_row_is_given_back_as_it_came_whatever_its_bytes_and_however_high_its_index(database: Database) -> None:
    async def scenario() -> None:
        async with open_store(database.url) as store:
            highest = Position(LEDGER, DAY, SEGMENT, 0xFFFFFFFF << 32 >> 1 | 0xFFFFFFFF)
            told = replace(good("a", None), event=bytes(range(256)), position=highest, run_id="r", emitted_at=NOON_US)
            assert await store.settle([told], 7) == [Kept(Verdict.STORED, Row(told, 7))]
            assert await store.maybe_signal("a") == Row(told, 7)
            assert await store.maybe_signal("b") is None
            assert await store.coverage(LEDGER, [SEGMENT]) == {SEGMENT: Coverage.of([0xFFFFFFFF])}

    asyncio.run(scenario())


def test_positions_that_a_client_states_decide_nothing(database: Database) -> None:
    async def scenario() -> None:
        async with open_store(database.url) as store:
            await store.settle([unary("a", 1), unary("b", 1)], 7)
            assert await store.coverage(LEDGER, [SEGMENT]) == {}
            assert (await store.settled_count(LEDGER), await store.partitions()) == (0, set())
            [kept] = await store.settle([good("c", 1)], 8)
            assert kept.verdict is Verdict.STORED
            assert await store.count_rows_at(LEDGER, {SEGMENT: Coverage.of([1])}) == 1
            assert list(await store.rows_settling(LEDGER, SEGMENT, 1, 1)) == [1]
            counts = [PartitionCount(LEDGER, DAY, 3)]
            assert await store.count_signals() == counts

    asyncio.run(scenario())


def test_failures_are_told_until_their_signal_is_stored(database: Database) -> None:
    async def scenario() -> None:
        async with open_store(database.url) as store:
            bad = Refused(Position(LEDGER, DAY, SEGMENTS[0], 1 << 32 | 3), "", BAD, b"bad")
            await store.settle([standing("a", SEGMENTS[0], 1), standing("a", SEGMENTS[0], 2, digest="i"), bad], 7)
            known = await store.failures(LEDGER, SEGMENTS[::-1])
            assert known == [Failure(SEGMENTS[0], 2, "SIGNAL_ID_CONFLICT"), Failure(SEGMENTS[0], 3, "INVALID_SIGNAL")]
            [(wide,)] = await database.sql("SELECT signal_id FROM settlements WHERE outcome = 'conflict'")
            assert len(wide) == len(WIDE)
            assert await store.coverage(LEDGER, SEGMENTS) == {SEGMENTS[0]: Coverage.of([1, 3])}
            await store.settle([standing(wide, SEGMENTS[1], 1, ordinal=2, digest="i")], 8)
            assert await store.failures(LEDGER, SEGMENTS) == known[1:]
            assert await store.coverage(LEDGER, SEGMENTS) == {
                SEGMENTS[0]: Coverage.of([1, 2, 3]),
                SEGMENTS[1]: Coverage.of([1]),
            }
            settling = await store.rows_settling(LEDGER, SEGMENTS[0], 1, 3)
            assert {index: row.signal.signal_id for index, row in settling.items()} == {1: "a", 2: wide}

    asyncio.run(scenario())


@pytest.mark.parametrize("cached", [pytest.param("1-2", id="no hole"), pytest.param("1,3", id="a hole")])
def test_as_many_records_as_were_counted_may_be_others(database: Database, cached: str) -> None:
    """A conflict came to be settled since, and as many rows were deleted."""

    async def scenario() -> None:
        async with open_store(database.url) as store:
            await store.settle([good("a", 1), good("b", 2), good("c", 3)], 7)
            await database.sql("UPDATE coverage SET intervals = ?, settled_count = 2", cached)
            await database.sql("DELETE FROM signals WHERE signal_id = 'a'")
            assert await store.coverage(LEDGER, [SEGMENT]) == {SEGMENT: Coverage(((2, 3),))}
            assert await database.sql("SELECT intervals, settled_count FROM coverage") == [("2-3", 2)]

    asyncio.run(scenario())


def test_a_segment_of_which_nothing_is_settled_is_not_there(database: Database) -> None:
    async def scenario() -> None:
        async with open_store(database.url) as store:
            await store.settle([good("a", None), standing("a", SEGMENT, 1, digest="i")], 7)
            assert await store.failures(LEDGER, [SEGMENT]) == [Failure(SEGMENT, 1, "SIGNAL_ID_CONFLICT")]
            assert await store.partitions() == set()
            assert await store.partition_coverage(LEDGER, DAY) == []
            assert await store.coverage(LEDGER, [SEGMENT], counted_max=0) == {}

    asyncio.run(scenario())


def test_a_place_is_settled_by_its_own_row_before_any_other(database: Database) -> None:
    async def scenario() -> None:
        async with open_store(database.url) as store:
            own, other = standing("a", SEGMENT, 1), standing("a", SEGMENT, 1, digest="other")
            [_, conflict] = await store.settle([own, other], 7)
            assert conflict.verdict is Verdict.CONFLICT
            [(wide_id,)] = await database.sql("SELECT signal_id FROM settlements")
            await store.settle([standing(str(wide_id), SEGMENT, 2, digest="other")], 7)
            settling = await store.rows_settling(LEDGER, SEGMENT, 1, 2)
            assert {index: row.signal.signal_id for index, row in settling.items()} == {1: "a", 2: wide_id}

    asyncio.run(scenario())


def test_a_duplicate_counts_only_while_its_own_event_has_the_row(database: Database) -> None:
    async def scenario() -> None:
        async with open_store(database.url) as store:
            first, again = standing("a", SEGMENT, 1), standing("a", SEGMENT, 2)
            another = standing("a", SEGMENT, 3, digest="another")
            await store.settle([first, again], 7)
            await database.sql("DELETE FROM signals")
            await store.settle([another], 7)
            assert await store.coverage(LEDGER, [SEGMENT]) == {SEGMENT: Coverage.of([3])}
            [outcome] = await store.settle([again], 7)
            assert outcome.verdict is Verdict.CONFLICT

    asyncio.run(scenario())


def drawn_entry(draw: random.Random) -> Entry:
    segment, index = draw.choice(SEGMENTS), draw.randint(1, 12)
    at = Position(LEDGER, DAY, segment, (SEGMENTS.index(segment) + 1) << 32 | index)
    if draw.random() < 0.15:
        return Refused(at, "", BAD, b"bad")
    return replace(good(draw.choice("abcdefghijkl"), None, draw.choice(["h", "h", "h", "i"])), position=at)


async def settled_places(database: Database) -> set[tuple[bytes, int]]:
    """What the tables say, by the definition of settled."""
    rows = await database.sql("SELECT segment_id, record_index FROM signals WHERE arrival_path <> 1")
    live = "outcome = 'rejected' OR (signal_id, input_event_hash) IN (SELECT signal_id, input_event_hash FROM signals)"
    settlements = await database.sql(f"SELECT segment_id, record_index FROM settlements WHERE {live}")
    return {(segment_id, index) for segment_id, index in (*rows, *settlements)}


async def check_coverage(store: Store, database: Database) -> None:
    expected = await settled_places(database)
    found = await store.coverage(LEDGER, SEGMENTS)
    for segment in SEGMENTS:
        assert found.get(segment, Coverage()) == Coverage.of(index for each, index in expected if each == segment)
    assert await store.settled_count(LEDGER) == len(expected)
    assert await store.partition_coverage(LEDGER, DAY) == [
        SegmentCoverage(DAY, segment, ordinal, found[segment])
        for ordinal, segment in enumerate(SEGMENTS, start=1)
        if segment in found
    ]
    assert await store.partitions() == ({(LEDGER, DAY)} if found else set())


@pytest.mark.parametrize("seed", range(3))
def test_coverage_says_what_the_tables_say_whatever_is_settled_and_whatever_is_deleted(
    database: Database, seed: int
) -> None:
    draw = random.Random(seed)

    async def scenario() -> None:
        async with open_store(database.url) as store:
            acks: dict[tuple[str, str], str] = {}
            for step in range(30):
                batch = [drawn_entry(draw) for _ in range(draw.randint(1, 6))]
                outcomes = await store.settle(batch, step)
                last_verdicts = {
                    (entry.position.segment_id, entry.position.record_index): outcome.verdict
                    for entry, outcome in zip(batch, outcomes, strict=True)
                    if entry.position
                }
                places = {place for place, verdict in last_verdicts.items() if verdict is not Verdict.CONFLICT}
                assert places <= await settled_places(database)
                for outcome in outcomes:
                    if isinstance(outcome, Kept):
                        key = outcome.row.signal.signal_id, outcome.row.signal.input_event_hash
                        assert acks.setdefault(key, outcome.row.signal.ack_id) == outcome.row.signal.ack_id
                if draw.random() < 0.3:
                    victim = draw.choice(["signals", "settlements", "coverage"])
                    await database.sql(f"DELETE FROM {victim} WHERE segment_id = ?", draw.choice(SEGMENTS))
                if draw.random() < 0.4:
                    await check_coverage(store, database)
            await check_coverage(store, database)

    asyncio.run(scenario())


@pytest.mark.parametrize("seed", range(2))
def test_in_a_long_segment_exactly_what_was_deleted_is_no_longer_settled(database: Database, seed: int) -> None:
    draw = random.Random(seed)
    settled = Coverage.of([*draw.sample(range(1, 6000), 200), 1, 256, 257, 512, 513])

    async def scenario() -> None:
        async with open_store(database.url) as store:
            indexes = [index for first, last in settled.intervals for index in range(first, last + 1)]
            await store.settle([standing(f"s{index}", SEGMENT, index) for index in indexes], 7)
            left = settled
            for first in [256, 257, *draw.sample(range(1, 6000), 4), 1]:
                last = first + draw.choice([0, 40, 1500]) if first > 1 else 6000
                await database.sql("DELETE FROM signals WHERE record_index BETWEEN ? AND ?", first, last)
                left -= Coverage.spanning([(first, last)])
                assert (await store.coverage(LEDGER, [SEGMENT])).get(SEGMENT, Coverage()) == left

    asyncio.run(scenario())


def test_a_statement_counts_no_more_than_it_can_in_time() -> None:
    segments = [bytes([number] * 16) for number in range(6)]
    counts = [100_000, 100_000, 100_000, 400_000, 0, 250_000]
    cached = [CachedCoverage(each, "", count, 0) for each, count in zip(segments, counts, strict=True)]
    sizes = [len(portion) for portion in portions([*segments, bytes(16)], cached)]
    assert sizes == [2, 1, 1, 2, 1]
    assert [len(portion) for portion in portions([bytes(16)] * 1001)] == [500, 500, 1]


@pytest.mark.parametrize("seed", range(3))
def test_counting_in_turns_finds_every_mismatch_within_a_round(database: Database, seed: int) -> None:
    draw = random.Random(seed)
    segments = [bytes([number] * 16) for number in range(12)]
    each, counted_max = 3, 3 * draw.randint(1, 4)
    calls_max = math.ceil(len(segments) * each / counted_max)

    async def scenario() -> None:
        async with open_store(database.url) as store:
            entries = [standing(f"{s.hex()}{i}", s, i) for s in segments for i in range(1, each + 1)]
            await store.settle(entries, 7)
            for ahead in draw.sample(segments, 6):  # counted by an hour that has not come
                await database.sql(f"UPDATE coverage SET counted_at = {10**17} WHERE segment_id = ?", ahead)
            whole = dict.fromkeys(segments, Coverage.up_to(each))
            for victim in draw.sample(segments, 4):
                for _ in range(draw.randint(0, calls_max)):
                    assert await store.coverage(LEDGER, segments, counted_max=counted_max) == whole
                await database.sql("DELETE FROM signals WHERE segment_id = ? AND record_index = 2", victim)
                found = [await store.coverage(LEDGER, segments, counted_max=counted_max) for _ in range(calls_max)]
                whole[victim] = Coverage.of([1, 3])
                assert found[-1] == whole
            assert await store.coverage(LEDGER, segments) == whole

    asyncio.run(scenario())


def drawn_signals(draw: random.Random, count: int) -> list[Candidate]:
    """Many at one time, some from no ledger, some from a client that names one."""
    made: list[Candidate] = []
    for number in range(count):
        day = draw.choice([0, 1])
        partition = ["2026-01-29", "2026-01-30"][day] + draw.choice(["", "", "-late"])
        at = Position(draw.choice([LEDGER, OTHER_LEDGER]), partition, SEGMENT, 1 << 32 | number + 1)
        path = draw.choice([ARRIVAL_PATH_INGEST, ARRIVAL_PATH_DELIVERY, ARRIVAL_PATH_REPLAY])
        shape = replace(
            good(f"OMEN-{draw.randrange(16**12):012X}", None),
            emitted_at=NOON_US + day * DAY_US + draw.randint(0, 4),
            category=draw.choice([SIGNAL_CATEGORY_WEATHER, SIGNAL_CATEGORY_ENERGY]),
            source_event_id=draw.choice("pqr"),
            position=draw.choice([at, None]) if path == ARRIVAL_PATH_INGEST else at,
            path=path,
        )
        made.append(shape)
    return made


def drawn_query(draw: random.Random) -> SignalQuery:
    return SignalQuery(
        emitted_from=draw.choice([None, None, NOON_US + draw.randint(0, 4)]),
        emitted_before=draw.choice([None, None, NOON_US + DAY_US + draw.randint(0, 4)]),
        category=draw.choice([0, 0, SIGNAL_CATEGORY_WEATHER]),
        source_event_id=draw.choice(["", "", "q"]),
        ledger_id=draw.choice(["", "", LEDGER]),
        partition=draw.choice(["", "", "2026-01-30", "2026-01-29-late"]),
    )


def is_asked_for(query: SignalQuery, signal: Candidate) -> bool:
    at = signal.position
    return (
        (query.emitted_from is None or signal.emitted_at >= query.emitted_from)
        and (query.emitted_before is None or signal.emitted_at < query.emitted_before)
        and query.category in (0, signal.category)
        and query.source_event_id in ("", signal.source_event_id)
        and query.ledger_id in ("", at.ledger_id if at else None)
        and query.partition in ("", at.partition if at else None)
    )


async def paged(store: Store, query: SignalQuery, limit: int) -> list[Candidate]:
    found: list[Candidate] = []
    after: SignalKey | None = None
    while page := await store.list_signals(query, after, limit):
        assert len(page) <= limit
        found += [row.signal for row in page]
        after = found[-1].emitted_at, found[-1].signal_id
    return found


def counted(signals: Sequence[Candidate]) -> list[PartitionCount]:
    places = [(at.ledger_id, at.partition) if (at := each.position) else ("", "") for each in signals]
    return [PartitionCount(*place, places.count(place)) for place in sorted(set(places))]


def test_pages_and_counts_under_every_filter_are_those_of_a_model(database: Database) -> None:
    draw = random.Random(7)

    async def scenario() -> None:
        async with open_store(database.url) as store:
            signals = sorted(drawn_signals(draw, 80), key=lambda each: (each.emitted_at, each.signal_id))
            outcomes = await store.settle(draw.sample(signals, len(signals)), 7)
            assert {outcome.verdict for outcome in outcomes} == {Verdict.STORED}
            for _ in range(60):
                query = drawn_query(draw)
                expected = [each for each in signals if is_asked_for(query, each)]
                assert await paged(store, query, draw.choice([1, 7, 100])) == expected
            for ledger_id in ("", LEDGER):
                for partition in ("", "2026-01-30"):
                    query = SignalQuery(ledger_id=ledger_id, partition=partition)
                    expected = [each for each in signals if is_asked_for(query, each)]
                    assert await store.count_signals(ledger_id, partition) == counted(expected)

    asyncio.run(scenario())


def test_rows_at_given_places_are_counted(database: Database) -> None:
    async def scenario() -> None:
        async with open_store(database.url) as store:
            await store.settle([standing(f"a{index}", SEGMENTS[0], index) for index in (1, 2, 5, 9)], 7)
            await store.settle([standing("b", SEGMENTS[1], 4), standing("b", SEGMENTS[1], 5)], 7)
            asked = {SEGMENTS[0]: Coverage.spanning([(1, 1), (3, 9)]), SEGMENTS[1]: Coverage.up_to(9)}
            assert await store.count_rows_at(LEDGER, asked) == 4
            assert await store.count_rows_at(LEDGER, {}) == 0

    asyncio.run(scenario())


def test_a_closed_store_is_unavailable(database: Database) -> None:
    async def scenario() -> None:
        async with open_store(database.url) as store:
            pass
        for question in (store.settle([good("a", 1)], 1), store.settled_count(LEDGER)):
            with pytest.raises(ContractError, match="cannot be used now"):
                await question

    asyncio.run(scenario())
