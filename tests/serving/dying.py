"""A task that runs as it should until it is told to die of something that nobody foresaw."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest


class Bug(Exception):
    """What no task foresees; its text is the task's name."""


def make_mortal(monkeypatch: pytest.MonkeyPatch, task: str, owner: object, name: str) -> asyncio.Event:
    """Puts such a task in the place of `owner.name`; it dies when the event is set."""
    dies = asyncio.Event()
    original: Callable[..., Awaitable[None]] = getattr(owner, name)

    async def mortal(*arguments: object) -> None:
        running = asyncio.ensure_future(original(*arguments))
        try:
            await dies.wait()
            raise Bug(task)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    monkeypatch.setattr(owner, name, mortal)
    return dies
