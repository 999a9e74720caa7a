"""Time that passes only while everybody waits: an event loop without sockets, threads or a clock of its own.

Callbacks run in the order in which asyncio promises to run them. What varies from seed to seed is how long each
statement and each message takes, and so who comes first. Nothing else decides, so a seed repeats exactly.
"""

import asyncio
import os
import random
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from heapq import heappop
from random import Random
from typing import Any, TypeVar
from unittest.mock import patch

T = TypeVar("T")

THREADED_PER_S = 2000.0


class StandStill(Exception):
    """Everybody waits for somebody else: this would hang for ever."""


class VirtualLoop(asyncio.BaseEventLoop):
    """What is due next happens now. What is given to a thread is done a while later, in one piece."""

    def __init__(self, chance: Random) -> None:
        super().__init__()
        self._chance = chance
        self._now_s = 0.0
        self._stopping: bool
        self._ready: deque[asyncio.Handle]
        self._scheduled: list[asyncio.TimerHandle]  # a heap, by time

    def time(self) -> float:
        return self._now_s

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., T], *args: Any
    ) -> "asyncio.Future[T]":
        answer: asyncio.Future[T] = self.create_future()
        self.call_later(self._chance.expovariate(THREADED_PER_S), self._do, partial(func, *args), answer)
        return answer

    def _do(self, work: Callable[[], T], answer: "asyncio.Future[T]") -> None:
        """Unless nobody waits for it any more."""
        if answer.done():
            return
        try:
            answer.set_result(work())
        except Exception as error:  # noqa: BLE001 - it is the waiter's
            answer.set_exception(error)

    def _run_once(self) -> None:
        """One turn, as the base class makes it, but for the waiting."""
        if not self._ready and not self._stopping:
            self._jump()
        for _ in range(len(self._ready)):
            handle = self._ready.popleft()
            if not handle.cancelled():
                handle._run()

    def _jump(self) -> None:
        """To the time of the first that is due."""
        while self._scheduled and self._scheduled[0].cancelled():
            heappop(self._scheduled)
        if not self._scheduled:
            raise StandStill
        self._now_s = max(self._now_s, self._scheduled[0].when())
        while self._scheduled and self._scheduled[0].when() <= self._now_s:
            self._ready.append(heappop(self._scheduled))

    def _write_to_self(self) -> None:
        """Nobody else could have called: there is no other thread."""


def run(main: Callable[[], Coroutine[Any, Any, T]], chance: Random) -> T:
    """Runs `main` to its end. Ids that are random elsewhere come from `chance` too."""
    with (
        patch.object(os, "urandom", chance.randbytes),
        patch.object(random, "_urandom", chance.randbytes),  # as the module `secrets` asks for it
        asyncio.Runner(loop_factory=partial(VirtualLoop, chance), debug=False) as runner,
    ):
        return runner.run(main())
