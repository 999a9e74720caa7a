"""Following the ledger by cursor: no gap and no repeat, whatever the ledger does meanwhile."""

import asyncio
import shutil
from collections import Counter
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from contract.errors import Reason
from contract.pages import page_token
from ledger.positions import sequence_of
from omen.v1 import signal_service_pb2 as pb
from omen_server.reading.watching import TOLD_AT_ONCE
from tests.ledger.faults import DEADLINE_S, DUE, LATE, NOON, TODAY, TOMORROW, flip_byte, segment_of
from tests.omen_server.watched import DAY, House, Place, Told, flaws, place_of, places, refusal_of


async def test_from_now_on_tells_what_comes_and_nothing_that_was_there(house: House) -> None:
    async with house.opened():
        await house.append(NOON, NOON, NOON - DAY)
        for _ in range(20):  # what was acknowledged right before is not told either
            await house.append(NOON)
            assert await house.silent(await house.start())
        async with asyncio.timeout(DEADLINE_S), aclosing(house.watch("")) as messages:
            assert not (await anext(messages)).HasField("record")
            after = await house.append(NOON, NOON - DAY)
            told = [place_of(await anext(messages)) for _ in after]
    assert sorted(told) == sorted(after)


async def test_of_a_crowd_of_readers_few_are_told_something_in_one_turn_of_the_event_loop(house: House) -> None:
    told: list[int] = []
    turn = 0

    async def read(start: str) -> None:
        async with aclosing(house.watch(start)) as messages:
            for _ in range(6):
                await anext(messages)
                told.append(turn)

    async with house.opened():
        start = await house.start()
        await house.append(*[NOON] * 5)
        readers = [asyncio.create_task(read(start)) for _ in range(40)]
        async with asyncio.timeout(DEADLINE_S):
            while not all(reader.done() for reader in readers):
                turn += 1
                await asyncio.sleep(0)
        await asyncio.gather(*readers)
    assert len(told) == 40 * 6
    assert max(Counter(told).values()) <= TOLD_AT_ONCE


async def test_resumed_after_any_record_it_goes_on_right_behind_it(house: House) -> None:
    async with house.opened():
        start = await house.start()
        for _ in range(3):  # three partitions of three segments
            await house.append(NOON, NOON + DAY, NOON - 2 * DAY, NOON, NOON + DAY, NOON - 2 * DAY)
        held = await house.held()
        told = await house.told(start, 18)
        assert places(told) == held  # what was missed: day by day
        for at, (_, cursor) in enumerate(told[:-1], 1):
            assert places(await house.told(cursor, 18 - at)) == held[at:]
    async with house.opened():
        for at in (0, 5, 11):
            assert places(await house.told(told[at][1], 17 - at)) == held[at + 1 :]
        assert await house.silent(told[-1][1])


async def test_a_cursor_holds_whatever_the_ledger_does_after_it(house: House) -> None:
    """Sealing, late records, new days and restarts: told from each cursor that was ever given."""
    cursors: dict[str, int] = {}
    appended: list[Place] = []
    async with house.opened():
        await house.append(NOON, NOON)
        cursors[await house.start()] = 0
        appended += await house.append(NOON, NOON, NOON)
        cursors[await house.start()] = len(appended)
        house.clock.moment = DUE
        await house.journal.seal(TODAY)
        cursors[await house.start()] = len(appended)
        appended += await house.append(NOON, DUE)  # one of them late
    async with house.opened():
        cursors[await house.start()] = len(appended)
        appended += await house.append(NOON, DUE, DUE + DAY)
        house.clock.moment = DUE + DAY
        await house.journal.seal(TOMORROW)
        cursors[await house.start()] = len(appended)
        house.clock.moment = DUE + 4 * DAY
        for name in house.journal.due_partitions(house.clock.moment):
            await house.journal.seal(name)
        cursors[await house.start()] = len(appended)
        appended += await house.append(house.clock.moment)
        assert {name for name, _ in appended} == {TODAY, LATE, TOMORROW, "2026-01-31", "2026-02-03"}
        for cursor, at in cursors.items():
            told = places(await house.told(cursor, len(appended) - at))
            assert flaws(told, appended[at:]) == []


@pytest.mark.parametrize("seed", range(5))
async def test_over_any_life_of_a_ledger_each_record_is_told_once_and_in_order(house: House, seed: int) -> None:
    """Days pass, records come on time and late, days are sealed, the server restarts; a reader comes and goes, and now
    and then goes back to a place where it was before."""
    chance, told, appended = Random(seed), Told(), list[Place]()
    async with house.opened():
        await house.append(NOON)
        start = await house.start()
    for _ in range(6):
        async with house.opened():
            del told[chance.randrange(len(told) // 2, len(told) + 1) :]
            reading = asyncio.create_task(house.read_on(told[-1][1] if told else start, told))
            for _ in range(chance.randrange(1, 8)):
                appended += await house.append(*house.some_moments(chance))
                house.clock.moment += chance.choice([timedelta(0), timedelta(hours=7), DAY])
                for name in house.journal.due_partitions(house.clock.moment):
                    if chance.randrange(2):
                        await house.journal.seal(name)
            reading.cancel()
            await asyncio.wait([reading])
    async with house.opened():
        told += await house.told(told[-1][1] if told else start, len(appended) - len(told))
        assert await house.silent(told[-1][1])
    assert flaws(places(told), appended) == []
    assert len({name for name, _ in appended}) > 3


async def test_damaged_records_are_passed_over_and_named_within_and_at_the_end_of_segments(house: House) -> None:
    async with house.opened():
        start = await house.start()
        await house.append(*[NOON] * 7)
    for ordinal, record in ((1, b"record 1"), (2, b"record 5"), (3, b"record 6")):
        path = segment_of(house.directory, ordinal)
        flip_byte(path, path.read_bytes().index(record) + 2)
    async with house.opened():
        await house.append(NOON)
        passed_over, told = [], []
        async with asyncio.timeout(DEADLINE_S), aclosing(house.watch(start)) as messages:
            async for message in messages:
                if message.HasField("passed_over"):
                    over = message.passed_over
                    passed_over.append((over.partition, over.first_sequence, over.last_sequence))
                    assert (await next_after(house, message.cursor)).passed_over != over
                elif message.HasField("record"):
                    told.append(message.record.position.sequence)
                    if message.record.event == b"record 7":
                        break
    assert passed_over == [(TODAY, each, each) for each in (sequence_of(1, 2), sequence_of(2, 3), sequence_of(3, 1))]
    assert told == [sequence_of(*each) for each in ((1, 1), (1, 3), (2, 1), (2, 2), (4, 1))]


async def next_after(house: House, cursor: str) -> pb.WatchSignalsResponse:
    async with aclosing(house.watch(cursor)) as messages:
        await anext(messages)
        return await anext(messages)


async def test_what_is_no_cursor_of_this_ledger_is_refused(house: House) -> None:
    async with house.opened():
        await house.append(NOON)
        mine = f"WatchSignals {house.journal.ledger_id}"
        bad = ["x", mine, page_token("WatchSignals another", "0"), page_token(mine, ""), page_token(mine, "0|x:1:")]
        bad += [page_token(mine, f"0|{TODAY}:1:00000000|"), page_token(mine, "0" + f"|{TODAY}:0:" * 5000)]
        for cursor in bad:
            assert (await refusal_of(house, cursor)).reason == Reason.INVALID_PAGE_TOKEN


async def test_a_cursor_of_more_than_a_restored_ledger_holds_is_refused(house: House, tmp_path: Path) -> None:
    async with house.opened():
        await house.append(NOON, NOON)
        old = await house.start()
    shutil.copytree(house.directory, tmp_path / "copy")
    cursors = []
    async with house.opened():
        await house.append(NOON)
        cursors.append(await house.start())  # another segment
        await house.append(NOON + DAY)
        cursors.append(await house.start())  # another partition
        house.clock.moment = DUE
        await house.journal.seal(TODAY)
        cursors.append(await house.start())  # a seal
    shutil.rmtree(house.directory)
    (tmp_path / "copy").rename(house.directory)
    house.clock.moment = NOON
    async with house.opened():
        for cursor in cursors:
            assert (await refusal_of(house, cursor)).reason == Reason.INVALID_PAGE_TOKEN
        assert await house.silent(old)
        await house.append(NOON, NOON)
        assert (await refusal_of(house, cursors[0])).reason == Reason.INVALID_PAGE_TOKEN  # as many, but others


async def test_a_seal_that_cannot_be_read_makes_nothing_told_new_again(house: House) -> None:
    async with house.opened():
        start = await house.start()
        await house.append(NOON, NOON)
        [*_, (_, before)] = await house.told(start, 2)
        house.clock.moment = DUE
        await house.journal.seal(TODAY)
        after = await house.start()
    flip_byte(house.directory / TODAY / "SEAL", 40)
    async with house.opened():
        later: list[Place] = []
        for cursor in (before, after):
            heard: list[Place] = []
            async with asyncio.timeout(DEADLINE_S), aclosing(house.watch(cursor)) as messages:
                await anext(messages)
                for _ in range(3):
                    later += await house.append(DUE)
                    while later[-1] not in heard:
                        heard.append(place_of(await anext(messages)))
            assert heard == later
        assert places(await house.told(start, 2)) == [(TODAY, sequence_of(1, 1)), (TODAY, sequence_of(1, 2))]


async def test_a_file_that_is_away_ends_the_watch_and_is_told_of_once_it_is_back(house: House) -> None:
    async with house.opened():
        start = await house.start()
        held = await house.append(*[NOON] * 5)
        path = segment_of(house.directory)
        path.rename(path.with_name("away"))
        assert (await refusal_of(house, start)).reason == Reason.LEDGER_UNAVAILABLE
        path.with_name("away").rename(path)
        assert places(await house.told(start, 5)) == held


async def test_a_heartbeat_comes_when_nothing_else_does_and_its_cursor_holds(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omen_server.reading.watching.HEARTBEAT_S", 0.01)
    async with house.opened():
        async with asyncio.timeout(DEADLINE_S), aclosing(house.watch("")) as messages:
            beats = [await anext(messages) for _ in range(3)]
        assert not any(beat.HasField("record") for beat in beats)
        assert await house.silent(beats[-1].cursor)


async def test_a_cursor_stays_small_over_months_of_sealed_days(house: House) -> None:
    async with house.opened(), asyncio.timeout(DEADLINE_S), aclosing(house.watch("")) as messages:
        await anext(messages)
        for _ in range(30):
            appended = await house.append(house.clock.moment, house.clock.moment - DAY)
            told = [await anext(messages) for _ in appended]
            house.clock.moment += 4 * DAY
            for name in house.journal.due_partitions(house.clock.moment):
                await house.journal.seal(name)
    assert max(len(message.cursor) for message in told) < 400
