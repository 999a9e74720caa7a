"""Running things side by side."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
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
