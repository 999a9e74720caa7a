"""A crowd that is ready at once, and whoever else has work on the same event loop."""

import asyncio
from collections import Counter
from itertools import count

from serving.tasks import Turns


class Loop:
    """Counts the turns of the event loop, until it is left."""

    def __init__(self) -> None:
        self.turn = 0

    async def __aenter__(self) -> "Loop":
        self._counting = asyncio.create_task(self._count())
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._counting.cancel()

    async def _count(self) -> None:
        while True:
            self.turn += 1
            await asyncio.sleep(0)


def still() -> float:
    return 0.0


async def come(turns: Turns, number: int, came: list[tuple[int, int]], loop: Loop) -> None:
    await turns.come()
    came.append((loop.turn, number))


async def test_of_a_crowd_a_few_go_on_in_one_turn_of_the_loop_in_their_order() -> None:
    turns, came = Turns(3, still), list[tuple[int, int]]()
    async with Loop() as loop:
        await asyncio.gather(*[come(turns, number, came, loop) for number in range(20)])
    assert max(Counter(turn for turn, _ in came).values()) == 3
    assert [number for _, number in came] == list(range(20))


async def test_while_a_crowd_waits_it_rests_for_as_long_as_a_turn_took() -> None:
    ticks = count()
    turns, came = Turns(2, lambda: next(ticks) * 0.05), list[tuple[int, int]]()
    clock = asyncio.get_running_loop().time
    async with Loop() as loop:
        began = clock()
        await asyncio.gather(*[come(turns, number, came, loop) for number in range(7)])
    assert clock() - began > 0.09  # behind the first two and the next two; the last three are no crowd of more turns
    assert len(came) == 7


async def test_a_few_never_rest_however_long_they_take() -> None:
    ticks = count()
    turns, came = Turns(4, lambda: next(ticks) * 1000.0), list[tuple[int, int]]()
    async with asyncio.timeout(20), Loop() as loop:
        for start in range(0, 40, 4):
            await asyncio.gather(*[come(turns, start + number, came, loop) for number in range(4)])
    assert len(came) == 40


async def test_whoever_leaves_meanwhile_costs_nobody_a_turn() -> None:
    turns, came = Turns(2, still), list[tuple[int, int]]()
    async with asyncio.timeout(20), Loop() as loop:
        waiting = [asyncio.create_task(come(turns, number, came, loop)) for number in range(10)]
        await asyncio.sleep(0)
        for each in waiting[2:8]:
            each.cancel()
        await asyncio.wait(waiting)
    assert [number for _, number in came] == [0, 1, 8, 9]
