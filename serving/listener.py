"""gRPC's server on one address, and another one in its place when it dies.

A request whose path is no UTF-8 ends gRPC's server, key or no key: grpcio decodes the path where nothing catches, and
closes the port while the process lives on. Nothing of ours sees the request before. So another server takes the address
at once, and calls that are open go on. One that begins in that very moment may hear nothing until its deadline.
"""

import asyncio
from collections.abc import Callable

import grpc
import structlog

from serving.addresses import bind
from serving.calls.guard import Guard

log = structlog.get_logger(__name__)

# For the statuses of cut calls to reach their clients; one that does not read is waited for no longer.
STATUSES_S = 0.5

Options = tuple[tuple[str, int], ...]


class Listener:
    """Made bound: from then on the address is taken. `run` beside what is served, `stop` after it."""

    def __init__(
        self,
        listen: str,
        guard: Guard,
        options: Options,
        credentials: Callable[[], grpc.ServerCredentials | None] = lambda: None,
    ) -> None:
        """`credentials` are asked for by each server anew. Raises ListenError, and whatever they raise."""
        self._guard = guard
        self._options = options
        self._credentials = credentials
        self.port = 0
        self.target = listen
        self._server = self._bound()

    async def start(self) -> None:
        await self._server.start()

    async def run(self) -> None:
        """Watches until cancelled. Raises ListenError when the address cannot be taken again."""
        while True:
            ended = asyncio.ensure_future(self._server.wait_for_termination())
            try:
                await asyncio.shield(ended)  # gRPC's own future would be cancelled with us, and `stop` needs it
            except Exception as error:  # noqa: BLE001 - whatever it died of, nobody is served until there is another
                log.error("listener_replaced", target=self.target, error=type(error).__name__)
                self._server = self._bound()
                await self._server.start()
            else:
                return

    async def stop(self) -> None:
        await self._server.stop(STATUSES_S)

    def _bound(self) -> grpc.aio.Server:
        """On the address of before: a port that was free for anybody is ours now."""
        server = grpc.aio.server(handlers=[self._guard], options=self._options)
        self.port, self.target = bind(server, self.target, self._credentials())
        return server
