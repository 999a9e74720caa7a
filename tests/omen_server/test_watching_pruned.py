"""A watch whose cursor lies in what was pruned: told so by name, and led on when it asks for it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from contract.errors import ContractError, Reason
from ledger.positions import sequence_of
from omen.v1 import signal_service_pb2 as pb
from tests.ledger.faults import DEADLINE_S, DUE, NOON, TODAY, segment_of
from tests.omen_server.watched import House, refusal_of


async def test_a_reader_that_needs_what_was_pruned_is_told_so_and_others_go_on(house: House) -> None:
    async with house.opened():
        nothing_told = await house.start()
        await house.append(*[NOON] * 5)
        told = await house.told(nothing_told, 5)
        house.clock.moment = DUE
        await house.journal.seal(TODAY)
        after_the_seal = await house.start()
        reading = house.watch(nothing_told)
        for _ in range(2):
            await anext(reading)
        kept = segment_of(house.directory).read_bytes()
        await house.prune(TODAY)
        segment_of(house.directory).write_bytes(kept)  # as if a crash had left it
        for cursor in (nothing_told, told[0][1], told[3][1]):
            error = await refusal_of(house, cursor)
            assert (error.reason, error.metadata["partition"]) == (Reason.PARTITION_PRUNED, TODAY)
        with pytest.raises(ContractError) as caught:
            _ = [message async for message in reading]
        assert caught.value.reason == Reason.PARTITION_PRUNED
        assert await house.silent(told[4][1], after_the_seal)
    async with house.opened():
        assert (await refusal_of(house, told[3][1])).reason == Reason.PARTITION_PRUNED


async def test_a_day_that_came_was_sealed_and_pruned_while_the_reader_was_away_is_named(house: House) -> None:
    async with house.opened():
        cursor = await house.start()
        await house.append(NOON)
        house.clock.moment = DUE
        await house.journal.seal(TODAY)
        await house.prune(TODAY)
        assert (await refusal_of(house, cursor)).reason == Reason.PARTITION_PRUNED


async def gone_and_next(
    messages: AsyncGenerator[pb.WatchSignalsResponse, None],
) -> tuple[list[tuple[int, int]], bytes, str]:
    """The sequences that were passed over as pruned, the record behind, and the cursor between."""
    gone: list[tuple[int, int]] = []
    cursor = ""
    async with asyncio.timeout(DEADLINE_S), aclosing(messages):
        async for message in messages:
            if message.HasField("passed_over"):
                assert (message.passed_over.partition, message.passed_over.is_pruned) == (TODAY, True)
                gone.append((message.passed_over.first_sequence, message.passed_over.last_sequence))
                cursor = message.cursor
            elif message.HasField("record"):
                return gone, message.record.event, cursor
    raise AssertionError("it ended")


async def test_a_reader_who_wants_to_goes_on_behind_what_was_pruned_and_is_told_what_is_gone(house: House) -> None:
    async with house.opened():
        start = await house.start()
        await house.append(*[NOON] * 5)
        told = await house.told(start, 5)
        house.clock.moment = DUE
        await house.journal.seal(TODAY)
        await house.prune(TODAY)
        await house.append(DUE)
    ends = [sequence_of(1, 3), sequence_of(2, 2)]
    async with house.opened():
        for begun, (_, cursor) in ((1, told[0]), (3, told[2]), (0, ((TODAY, 0), start))):
            firsts = [sequence_of(1, begun + 1), sequence_of(2, 1)]
            expected = [(first, last) for first, last in zip(firsts, ends, strict=True) if first <= last]
            gone, record, behind = await gone_and_next(house.watching.watch(cursor, passes_pruned=True))
            assert (gone, record) == (expected, b"record 5")
            assert await gone_and_next(house.watch(behind)) == ([], b"record 5", "")


async def test_what_is_pruned_while_it_is_read_is_passed_over_from_there_on(house: House) -> None:
    async with house.opened():
        start = await house.start()
        await house.append(*[NOON] * 5)
        house.clock.moment = DUE
        await house.journal.seal(TODAY)
        reading = house.watching.watch(start, passes_pruned=True)
        for _ in range(1 + 3):  # a heartbeat, and the first segment
            await anext(reading)
        await house.prune(TODAY)
        await house.append(DUE)
        gone, record, _ = await gone_and_next(reading)
    assert (gone, record) == ([(sequence_of(2, 1), sequence_of(2, 2))], b"record 5")
