"""Whoever asks for a change of the dead letters and leaves: it is made, and memory and file say the same."""

import asyncio
from pathlib import Path

import pytest

from omen_server.appends import place_of
from tests.omen_server.test_dead_letters import EVERY_DAY, NOON, at, opened, position


async def test_what_is_dropped_is_given_up_though_whoever_asked_leaves(tmp_path: Path) -> None:
    async with opened(tmp_path) as now:
        await now.rejected(1)
        asking = asyncio.create_task(now.letters.drop(at(position(1)), "given up", NOON))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await now.rejected(2)  # behind it
        assert dict(now.letters.counts) == {"waiting": 1, "redriving": 0, "dropped": 1}
        assert [letter.drop_reason for letter in await now.listed(EVERY_DAY)] == ["given up", ""]


async def test_what_riskcast_takes_is_no_dead_letter_though_the_stream_ends_meanwhile(tmp_path: Path) -> None:
    async with opened(tmp_path) as now:
        await now.rejected(1)
        resolving = asyncio.create_task(now.letters.resolved([place_of(position(1))]))
        await asyncio.sleep(0)
        resolving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await resolving
        await now.rejected(2)  # behind it
        assert dict(now.letters.counts) == {"waiting": 1, "redriving": 0, "dropped": 0}
        assert await now.indexes() == [2]
