"""What lies between clients and RiskCast: latency, losses, cuts, and requests that arrive when nobody waits any more.

A client learns an answer, or a ContractError as the status of its call, or `Lost`: then it knows nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Generic, TypeVar

from contract.errors import ContractError
from tests.simulation.riskcast import Riskcast
from tests.simulation.world import Fault, Sight, World

Answer = TypeVar("Answer")

OUTAGE_S = 2.0
PATIENCE_S = 1.0  # a request that took this long to arrive is one that nobody waits for


class Lost(Exception):
    """No answer. The work may have been done, or be done later."""


class Network:
    def __init__(self, world: World, riskcast: Riskcast) -> None:
        self.world = world
        self.riskcast = riskcast
        self._late: list[asyncio.Task[None]] = []
        self._streams: list[Stream[Any, Any]] = []
        self._out_until_s = 0.0

    @property
    def is_through(self) -> bool:
        """Whether RiskCast can be reached."""
        return self.riskcast.is_up and asyncio.get_running_loop().time() >= self._out_until_s

    def stumble(self) -> None:
        """Now and then nothing gets through from here on."""
        if self.world.happens(Fault.OUTAGE):
            self._out_until_s = asyncio.get_running_loop().time() + self.world.chance.uniform(0, OUTAGE_S)

    def renew(self) -> None:
        """Ends every stream, as a server does with connections that are old."""
        for stream in self._streams:
            stream.close()

    async def call(self, work: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        """One unary call; `work` is what the handler does."""
        await self.world.travel()
        self.stumble()
        if not self.is_through or self.world.happens(Fault.REQUEST_LOST):
            raise Lost
        if self.world.happens(Fault.REQUEST_LATE):
            self._late.append(asyncio.create_task(self._arrive_late(work)))
            raise Lost
        handler = self.riskcast.handle(work())
        if self.world.happens(Fault.CLIENT_LEFT):
            await self.world.travel()
            handler.cancel()
            raise Lost
        await asyncio.wait([handler])
        await self.world.travel()
        if handler.cancelled() or self.world.happens(Fault.RESPONSE_LOST):
            handler.cancelled() or handler.exception()  # nobody hears of it
            raise Lost
        return handler.result()

    def stream(self, work: Callable[["Stream[Any, Any]"], AsyncIterator[Any]], cut: Fault) -> "Stream[Any, Any]":
        """A call with a stream of answers, which may break at every message; `work` is what the handler yields."""
        self._streams = [stream for stream in self._streams if not stream.is_closed]
        self._streams.append(Stream(self, work, cut))
        return self._streams[-1]

    async def until_nothing_is_late(self) -> None:
        await asyncio.gather(*self._late)

    async def _arrive_late(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        await self.world.pause(PATIENCE_S, 3 * PATIENCE_S)
        await self.riskcast.up()
        handler = self.riskcast.handle(work())
        await asyncio.wait([handler])
        if not handler.cancelled():
            handler.exception()  # nobody hears of it
            self.world.see(Sight.LATE_ANSWER)


class _End:
    """The last thing that comes down a stream: how it ended."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


Request = TypeVar("Request")
Response = TypeVar("Response")


class Stream(Generic[Request, Response]):
    """The client's end; iterating over it is how the handler reads the requests."""

    def __init__(self, network: Network, work: "Callable[[Stream[Any, Any]], AsyncIterator[Any]]", cut: Fault) -> None:
        self._network = network
        self._cut = cut
        self._requests: asyncio.Queue[Request | None] = asyncio.Queue()
        self._responses: asyncio.Queue[Response | _End] = asyncio.Queue()
        self._end: _End | None = None
        self._handler: asyncio.Task[None] | None = None
        self._is_silent = False
        if network.is_through:
            self._handler = network.riskcast.handle(self._handle(work))
        else:
            self._responses.put_nowait(_End(Lost()))

    async def send(self, request: Request) -> None:
        self._break_maybe()
        if not self._is_silent:
            self._requests.put_nowait(request)

    async def receive(self) -> Response | None:
        """The next answer; None when the call ended well. Raises Lost or ContractError when it did not."""
        answer = self._end or await self._responses.get()
        if isinstance(answer, _End):
            self._end = answer
            if answer.error:
                raise answer.error
            return None
        if self._responses.empty():
            await self._network.world.travel()
        self._break_maybe()
        if self._is_silent:
            await asyncio.Event().wait()
        return answer

    @property
    def is_closed(self) -> bool:
        return self._handler is None or self._handler.done()

    def close(self) -> None:
        if self._handler:
            self._handler.cancel()

    def __aiter__(self) -> "Stream[Request, Response]":
        return self

    async def __anext__(self) -> Request:
        request = await self._requests.get()
        if request is None:
            raise StopAsyncIteration
        return request

    def _break_maybe(self) -> None:
        self._network.stumble()
        if self._network.world.happens(self._cut) or not self._network.is_through:
            self.close()
            raise Lost
        if self._cut is Fault.STREAM_CUT and self._network.world.happens(Fault.SILENT):
            self._is_silent = True

    async def _handle(self, work: "Callable[[Stream[Any, Any]], AsyncIterator[Any]]") -> None:
        error: BaseException | None = Lost()
        try:
            async for response in work(self):
                self._responses.put_nowait(response)
            error = None
        except ContractError as told:
            error = told
        finally:
            self._responses.put_nowait(_End(error))
