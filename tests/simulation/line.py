"""What lies between an OMEN's delivery and RiskCast: calls that look like gRPC's, over the simulated network."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar, cast

import grpc
from grpc_status import rpc_status

from contract.errors import ContractError, Reason
from riskcast.v1 import ingest_service_pb2 as pb
from tests.simulation.network import Lost, Network, Stream
from tests.simulation.world import Fault, World

T = TypeVar("T")

ATTEMPTS_MAX = 5  # within a second, while all are in vain
RECONNECT_S = 0.5


class SimulatedLine:
    """As delivery uses it (delivery/line.py)."""

    def __init__(
        self, world: World, network: Network, handler: Callable[[Stream[Any, Any]], AsyncIterator[Any]]
    ) -> None:
        self._world = world
        self._network = network
        self._handler = handler
        self._in_vain: deque[float] = deque()  # when a stream was begun, of those that were not answered since

    def stream(self) -> "Call":
        now = asyncio.get_running_loop().time()
        self._in_vain.append(now)
        while self._in_vain[0] < now - 1:
            self._in_vain.popleft()
        if len(self._in_vain) > ATTEMPTS_MAX:
            self._world.flaw(f"RiskCast is called {len(self._in_vain)} times a second, in vain")
        stream: Stream[Any, Any] = self._network.stream(self._handler, Fault.STREAM_CUT)
        return Call(self._world, stream, self.forgive)

    @property
    def is_ready(self) -> bool:
        return self._network.is_through

    async def ready_again(self, *, was_ready: bool) -> None:
        while was_ready and self._network.is_through:
            await self._world.pause(0.05, 0.15)
        while not self._network.is_through:
            await self._world.pause(0.05, RECONNECT_S)
        self.forgive()

    def forgive(self) -> None:
        """Delivery was resumed, and tries anew."""
        self._in_vain.clear()

    def redial(self) -> None:
        """The next stream begins on another connection anyway."""


class Call:
    """As grpc.aio.StreamStreamCall, as far as delivery uses it."""

    def __init__(self, world: World, stream: Stream[Any, Any], on_answer: Callable[[], None]) -> None:
        self._stream = stream
        self._on_answer = on_answer
        self._is_refused = world.happens(Fault.KEY_REFUSED)
        self._maybe_error: grpc.aio.AioRpcError | None = None

    async def write(self, request: pb.IngestStreamRequest) -> None:
        await self._told(self._stream.send(request))

    async def read(self) -> Any:
        answer = await self._told(self._stream.receive())
        self._on_answer()
        return grpc.aio.EOF if answer is None else answer

    def cancel(self) -> None:
        self._stream.close()

    async def code(self) -> grpc.StatusCode:
        return self._maybe_error.code() if self._maybe_error else grpc.StatusCode.OK

    async def details(self) -> str | None:
        return self._maybe_error.details() if self._maybe_error else None

    async def trailing_metadata(self) -> Any:
        return self._maybe_error.trailing_metadata() if self._maybe_error else None

    async def _told(self, operation: Awaitable[T]) -> T:
        try:
            answer = await operation
            if self._is_refused:
                self._stream.close()
                raise ContractError(Reason.BAD_CREDENTIALS, "the key is not known")
        except Lost as error:
            self._maybe_error = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, details="the connection is gone")
            raise self._maybe_error from error
        except ContractError as error:
            self._maybe_error = status_of(error)
            raise self._maybe_error from error
        return answer


def status_of(error: ContractError) -> grpc.aio.AioRpcError:
    """As it comes over a connection."""
    rich = rpc_status.to_status(error.status("riskcast.v1"))
    metadata = cast("Any", grpc.aio.Metadata(*rich.trailing_metadata))
    return grpc.aio.AioRpcError(rich.code, trailing_metadata=metadata, details=rich.details)
