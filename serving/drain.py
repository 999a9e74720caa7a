"""Which calls are open, and how they end when the server stops.

gRPC's own stop waits its whole grace while a stream is open, cuts handlers without a status, and returns while their
`finally` may still run. Here each handler's task is known: streams are cut at once with SHUTTING_DOWN, unary calls may
finish, and everything is awaited.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from serving.statuses import shutting_down

# Health tells of the drain itself: it goes on answering, and its watchers end once they have been told.
HEALTH_METHODS = "/grpc.health.v1.Health/"
# A watcher is told in one turn of the loop, unless its client does not read.
WATCHERS_S = 0.5


@dataclass(slots=True, eq=False)
class OpenCall:
    """One call whose handler was entered."""

    task: asyncio.Task[object]
    is_streaming: bool
    is_health: bool
    in_handler: bool = True
    is_cut: bool = False

    def cut(self) -> None:
        """Cancels the handler, so that the client is answered SHUTTING_DOWN; a status on its way out is left alone."""
        if self.in_handler and not self.is_cut:
            self.is_cut = True
            self.task.cancel()


class OpenCalls:
    """The calls of one server."""

    def __init__(self) -> None:
        self._calls: dict[asyncio.Task[object], OpenCall] = {}
        self._handler_count = 0
        self._is_draining = False
        self._all_left = asyncio.Event()

    @contextmanager
    def entered(self, method: str, is_streaming: bool) -> Iterator[None]:
        """Around a handler. Raises SHUTTING_DOWN instead of entering it while draining, and when it is cut."""
        is_health = method.startswith(HEALTH_METHODS)
        if self._is_draining and not is_health:
            raise shutting_down()
        call = self._enter(is_streaming, is_health)
        try:
            yield
        except asyncio.CancelledError:
            if call.is_cut and call.task.uncancel() == 0:
                raise shutting_down() from None
            raise  # by the client
        finally:
            self._leave(call)

    def _enter(self, is_streaming: bool, is_health: bool) -> OpenCall:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a handler runs in a task")
        call = self._calls[task] = OpenCall(task, is_streaming, is_health)
        task.add_done_callback(self._calls.pop)  # only then has its status been sent
        self._handler_count += 1
        return call

    def _leave(self, call: OpenCall) -> None:
        call.in_handler = False
        self._handler_count -= 1
        if self._is_draining and not self._handler_count:
            self._all_left.set()

    async def drain(self, grace_s: float) -> None:
        """Refuses new calls, cuts streams, lets unary calls finish for `grace_s`, cuts the rest; returns when all left.

        A handler that was cut is not hurried: its `finally` may take its time.
        """
        self._is_draining = True
        for call in self._open(is_streaming=True, is_health=False):
            call.cut()
        await finished(self._open(is_streaming=True, is_health=True), WATCHERS_S)
        await finished(self._open(is_streaming=False, is_health=False), grace_s)
        for call in tuple(self._calls.values()):
            call.cut()
        if self._handler_count:
            await self._all_left.wait()

    def _open(self, *, is_streaming: bool, is_health: bool) -> tuple[OpenCall, ...]:
        return tuple(
            call for call in self._calls.values() if (call.is_streaming, call.is_health) == (is_streaming, is_health)
        )

    async def ended(self) -> None:
        """Waits for the tasks of all calls, after gRPC has been told to stop."""
        await finished(tuple(self._calls.values()), None)


async def finished(calls: tuple[OpenCall, ...], timeout_s: float | None) -> None:
    if calls:
        await asyncio.wait([call.task for call in calls], timeout=timeout_s)
