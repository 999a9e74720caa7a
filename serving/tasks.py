"""Running things side by side."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from time import monotonic
from typing import Any, TypeVar

Q = TypeVar("Q")
T = TypeVar("T")

ANY_TIME = nullcontext()


async def first_of(*coroutines: Coroutine[Any, Any, object]) -> None:
    """Run all until one ends, then cancel and await the others; raise what the one that ended raised."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if task in done:
            task.result()


@asynccontextmanager
async def beside(*coroutines: Coroutine[Any, Any, object]) -> AsyncIterator[None]:
    """Run coroutines beside the block and cancel them after it; one that fails ends the block.

    Raises what failed as it is, and an ExceptionGroup only of several failures.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
            yield
            for task in tasks:
                task.cancel()
    except BaseExceptionGroup as failures:
        if len(failures.exceptions) > 1:
            raise
        raise failures.exceptions[0] from None


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """What it gives. Whoever is cancelled meanwhile waits for its end all the same, and is not told how it ended."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        task.exception()  # or asyncio would complain that nobody asked
        raise


async def answered_in_order(
    requests: AsyncIterator[Q], answer: Callable[[Q], Coroutine[Any, Any, T]], at_once: int
) -> AsyncIterator[T]:
    """The answers to a stream of requests in the order of the requests, so many of which are answered at once.

    What ends the requests, or one of the answers, is raised after every answer before it.
    """
    answers: asyncio.Queue[asyncio.Task[T] | None] = asyncio.Queue()
    room = asyncio.Semaphore(at_once)
    under_way: set[asyncio.Task[T]] = set()

    async def read() -> None:
        try:
            await room.acquire()
            async for request in requests:
                task = asyncio.create_task(answer(request))
                under_way.add(task)
                answers.put_nowait(task)
                await room.acquire()
        finally:
            answers.put_nowait(None)

    reader = asyncio.create_task(read())
    try:
        while oldest := await answers.get():
            yield await oldest
            under_way.discard(oldest)
            room.release()
        await reader
    finally:
        reader.cancel()
        for task in under_way:
            task.cancel()
        await asyncio.gather(reader, *under_way, return_exceptions=True)


class Turns:
    """Lets so many go on in one turn of the event loop, in the order in which they came.

    While more wait than the next turn lets on, it rests after each one for as long as that took.

    A crowd that is ready at once then takes half of the time, and leaves the other half to whoever else has work. gRPC
    needs the rest: it reads what comes in only once it has told of all that went out.
    """

    def __init__(self, at_once: int, clock: Callable[[], float] = monotonic) -> None:
        self._at_once = at_once
        self._clock = clock  # that of uvloop stands still within a turn
        self._loop = asyncio.get_running_loop()
        self._left = at_once
        self._is_under_way = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def come(self) -> None:
        """Returns when it is the caller's turn."""
        if self._left and not self._waiting:
            self._left -= 1
            if not self._is_under_way:
                self._begin()
        else:
            turn = self._loop.create_future()
            self._waiting.append(turn)
            await turn

    def _begin(self) -> None:
        """It ends behind what they do now, and what follows from that at once."""
        self._is_under_way = True
        self._loop.call_soon(self._loop.call_soon, self._end, self._clock())

    def _end(self, began: float) -> None:
        if not self._waiting:
            self._left, self._is_under_way = self._at_once, False
            return
        is_crowd = len(self._waiting) > self._at_once
        self._loop.call_later(self._clock() - began if is_crowd else 0.0, self._let)

    def _let(self) -> None:
        self._left = self._at_once
        while self._waiting and self._left:
            turn = self._waiting.popleft()
            if not turn.done():  # whoever was cancelled needs none
                turn.set_result(None)
                self._left -= 1
        self._begin()


async def each_on_a_thread(
    items: Iterator[T], turn: AbstractAsyncContextManager[object] = ANY_TIME
) -> AsyncGenerator[T, None]:
    """The items of an iterator that reads files: each step of it on a thread, none on the event loop.

    `turn` is held for each step, not while the item is used.
    """
    while True:
        async with turn:
            item = await asyncio.to_thread(next, items, None)
        if item is None:
            return
        yield item
