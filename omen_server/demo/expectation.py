"""What the demo expects to see: at once, or within a deadline."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

WITHIN_S = 20.0  # far above what a loaded machine needs, far below what a newcomer waits for
PAUSE_FIRST_S, PAUSE_MAX_S = 0.01, 0.2


class ExpectationFailed(Exception):
    """One line: what was looked at, what was expected, what was seen."""


def expect(what: str, seen: object, expected: object) -> None:
    """Raises ExpectationFailed unless `seen` equals `expected`."""
    if seen != expected:
        raise ExpectationFailed(f"{what}: expected {expected}, saw {seen}")


async def until(what: str, ask: Callable[[], Awaitable[T]], expected: T, within_s: float = WITHIN_S) -> None:
    """Asks again and again, less and less often, until the answer is the expected one.

    Raises ExpectationFailed after `within_s`, and whatever `ask` raises.
    """
    loop, pause_s = asyncio.get_running_loop(), PAUSE_FIRST_S
    deadline = loop.time() + within_s
    while (seen := await ask()) != expected:
        if loop.time() > deadline:
            raise ExpectationFailed(f"{what}: expected {expected} within {within_s:g} s, saw {seen}")
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, PAUSE_MAX_S)
