"""Running things side by side."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, TypeVar

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


async def each_on_a_thread(
    items: Iterator[T], turn: AbstractAsyncContextManager[object] = ANY_TIME
) -> AsyncIterator[T]:
    """The items of an iterator that reads files: each step of it on a thread, none on the event loop.

    `turn` is held for each step, not while the item is used.
    """
    while True:
        async with turn:
            item = await asyncio.to_thread(next, items, None)
        if item is None:
            return
        yield item
