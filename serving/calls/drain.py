"""Which calls are open, and how they end when the server stops.

gRPC's own stop waits its whole grace while a stream is open, cuts handlers without a status, and returns while their
`finally` may still run. Here each handler's task is known: streams are cut at once with SHUTTING_DOWN, unary calls may
finish, and everything is awaited.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType

from contract.errors import ContractError
from serving.access.gate import HEALTH, Guest
from serving.calls.statuses import shutting_down

# Health tells of the drain itself: it goes on answering, and its watchers end once they have been told. That takes one
# turn of the loop, unless a client does not read.
WATCHERS_S = 0.5


class OpenCall:
    """One call, as a block around its handler."""

    __slots__ = ("_calls", "guest", "in_handler", "is_streaming", "maybe_cut", "method", "task")

    def __init__(self, calls: "OpenCalls", method: str, is_streaming: bool, guest: Guest) -> None:
        self._calls = calls
        self.method = method
        self.is_streaming = is_streaming
        self.guest = guest
        self.in_handler = True
        self.maybe_cut: ContractError | None = None

    @property
    def is_health(self) -> bool:
        return self.method.startswith(HEALTH)

    def cut(self, error: ContractError) -> None:
        """Cancels the handler, so that the client is answered with `error`; a status on its way out is left alone."""
        if self.in_handler and self.maybe_cut is None:
            self.maybe_cut = error
            self.task.cancel()

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a handler runs in a task")
        self.task: asyncio.Task[object] = task
        self._calls.enter(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raises what the call is cut with in the place of its cancellation, unless the client cancelled it too."""
        self.in_handler = False
        self._calls.leave(self)
        if kind is asyncio.CancelledError and self.maybe_cut is not None and self.task.uncancel() == 0:
            raise self.maybe_cut from None


class OpenCalls:
    """The calls of one server."""

    def __init__(self) -> None:
        self._calls: dict[asyncio.Task[object], OpenCall] = {}
        self._handler_count = 0
        self._is_draining = False
        self._all_left = asyncio.Event()

    def entering(self, method: str, is_streaming: bool, guest: Guest) -> OpenCall:
        """The block around a handler. Raises SHUTTING_DOWN instead while draining."""
        if self._is_draining and not method.startswith(HEALTH):
            raise shutting_down()
        return OpenCall(self, method, is_streaming, guest)

    def enter(self, call: OpenCall) -> None:
        self._calls[call.task] = call
        self._handler_count += 1

    def leave(self, call: OpenCall) -> None:
        """While draining, a call is kept until its status has been sent, too."""
        self._handler_count -= 1
        if not self._is_draining:
            del self._calls[call.task]
            return
        call.task.add_done_callback(self._calls.pop)
        if not self._handler_count:
            self._all_left.set()

    def cut_streams(self, check: Callable[[Guest, str], None]) -> None:
        """Ends the streams of guests whom `check` no longer lets in, with the ContractError that it raises."""
        for call in tuple(self._calls.values()):
            if call.is_streaming:
                try:
                    check(call.guest, call.method)
                except ContractError as error:
                    call.cut(error)

    async def drain(self, grace_s: float) -> None:
        """Refuses new calls, cuts streams, lets unary calls finish for `grace_s`, cuts the rest; returns when all left.

        A handler that was cut is not hurried: its `finally` may take its time.
        """
        self._is_draining = True
        for call in self._open(is_streaming=True, is_health=False):
            call.cut(shutting_down())
        await finished(self._open(is_streaming=True, is_health=True), WATCHERS_S)
        await finished(self._open(is_streaming=False, is_health=False), grace_s)
        for call in tuple(self._calls.values()):
            call.cut(shutting_down())
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
