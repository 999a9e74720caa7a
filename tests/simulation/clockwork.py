"""Time that passes only while everybody waits: an event loop without sockets, threads or a clock of its own.

Callbacks run in the order in which asyncio promises to run them. What varies from seed to seed is how long each
statement and each message takes, and so who comes first. Nothing else decides, so a seed repeats exactly.
"""

import asyncio
import os
import random
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import partial
from heapq import heappop, heappush
from itertools import count
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
        self._order = count()
        self._due: list[tuple[float, int, asyncio.TimerHandle]] = []  # a heap, by time

    def time(self) -> float:
        return self._now_s

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """As the base class has it, without what it asks each time: a seed comes here thousands of times."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heappush(self._due, (when, next(self._order), timer))
        return timer

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
        ready = self._ready
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _jump(self) -> None:
        """To the time of the first that is due."""
        due = self._due
        while due and due[0][2]._cancelled:
            heappop(due)
        if not due:
            raise StandStill
        self._now_s = max(self._now_s, due[0][0])
        while due and due[0][0] <= self._now_s:
            self._ready.append(heappop(due)[2])

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
