"""A gRPC server as a block: inside it calls are served, after it nothing of it runs any more."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2_grpc

from serving import health
from serving.addresses import bind
from serving.calls import CallGuard
from serving.drain import OpenCalls
from serving.health import Health
from serving.options import SERVER_OPTIONS
from serving.reflection import add_reflection

# What an orchestrator gives by default is 30 s, of which a few pass before the signal and after the drain.
GRACE_S = 20.0
# For the statuses of cut calls to reach their clients; one that does not read is waited for no longer.
STATUSES_S = 0.5


@dataclass(frozen=True, slots=True)
class Mount:
    """A service and how to add its servicer to a server (the generated add_XServicer_to_server, applied)."""

    service: ServiceDescriptor
    add: Callable[[grpc.aio.Server], None]


@dataclass(frozen=True, slots=True)
class Running:
    """A server that accepts calls."""

    port: int  # the bound one; 0 for a unix socket
    target: str  # what a client on this machine dials
    _health: Health

    def set_ready(self) -> None:
        """Probes hear that calls are welcome; until then they are told no, though calls are answered."""
        self._health.set_ready()

    def set_not_ready(self) -> None:
        self._health.set_not_ready()


@asynccontextmanager
async def serve(
    listen: str, mounts: Sequence[Mount], *, domain: str, grace_s: float = GRACE_S
) -> AsyncIterator[Running]:
    """Serves the mounts, health and reflection on `listen` (host:port, port 0 for any, or unix:path).

    Errors carry `domain`, the package of the services. Raises ListenError if `listen` cannot be bound.
    Leaving the block drains: probes hear "not ready", new calls are refused and open streams ended with SHUTTING_DOWN,
    unary calls may finish within `grace_s`, and no handler, not even its `finally`, runs after the block.
    """
    open_calls = OpenCalls()
    names = [mount.service.full_name for mount in mounts]
    state = Health(names)
    server = grpc.aio.server(interceptors=[CallGuard(domain, open_calls)], options=SERVER_OPTIONS)
    for mount in mounts:
        mount.add(server)
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    add_reflection(server, [*names, health.SERVICE.full_name])
    port, target = bind(server, listen)
    await server.start()
    try:
        yield Running(port, target, state)
    finally:
        state.drain()
        try:
            await open_calls.drain(grace_s)
        finally:
            await server.stop(STATUSES_S)
            await open_calls.ended()
