"""A gRPC server as a block: inside it calls are served, after it nothing of it runs any more."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2_grpc
from prometheus_client import CollectorRegistry

from contract.scopes import SCOPES, Scope
from serving import health
from serving.access.gate import Gate
from serving.access.keys import read_keys
from serving.calls.drain import OpenCalls
from serving.calls.guard import Guard
from serving.calls.record import CallBook
from serving.descriptors import PROBES_MAX, connections_max
from serving.files import Reloaded
from serving.health import Health
from serving.listener import Listener
from serving.options import probes_options, server_options
from serving.reflection import add_reflection
from serving.security import OPEN, Security, refusing
from serving.tasks import beside
from serving.telemetry.traces import Spans

# What an orchestrator gives by default is 30 s, of which a few pass before the signal and after the drain.
GRACE_S = 20.0
# When something has died that calls need: for the answers that are on their way.
BROKEN_GRACE_S = 0.2
# A revoked key is to end its streams within 5 s.
KEYS_WATCHED_S = 1.0


@dataclass(frozen=True, slots=True)
class Mount:
    """A service and how to add its servicer to a server (the generated add_XServicer_to_server, applied)."""

    service: ServiceDescriptor
    add: Callable[[Any], None]


def mount(module: ModuleType, name: str, add: Callable[[Any, Any], None], servicer: object) -> Mount:
    """The service of that name in a generated module, its generated add_XServicer_to_server, and who serves it."""
    return Mount(module.DESCRIPTOR.services_by_name[name], partial(add, servicer))


@dataclass(frozen=True, slots=True)
class Running:
    """A server that accepts calls."""

    port: int  # the bound one; 0 for a unix socket
    target: str  # what a client on this machine dials
    _health: Health
    health_port: int = 0  # of the plaintext address for probes, if there is one

    def set_ready(self) -> None:
        """Probes hear that calls are welcome; until then they are told no, though calls are answered."""
        self._health.set_ready()

    def set_not_ready(self) -> None:
        self._health.set_not_ready()


@asynccontextmanager
async def serve(
    listen: str,
    mounts: Sequence[Mount],
    *,
    domain: str,
    security: Security = OPEN,
    scopes: Mapping[str, Scope] = SCOPES,
    registry: CollectorRegistry | None = None,
    maybe_spans: Spans | None = None,
    grace_s: float = GRACE_S,
) -> AsyncIterator[Running]:
    """Serves the mounts, health and reflection on `listen` (host:port, port 0 for any, or unix:path).

    Errors carry `domain`, the package of the services. Raises ListenError if `listen` cannot be bound, SecurityRefused
    if keys or certificates cannot be read, and whatever ends the watch over keys.
    Leaving the block drains: probes hear "not ready", new calls are refused and open streams ended with SHUTTING_DOWN,
    unary calls may finish within `grace_s`, and no handler, not even its `finally`, runs after the block. An error that
    ends the block has calls fail at once instead.
    """
    names = [mount.service.full_name for mount in mounts]
    state, open_calls = Health(names), OpenCalls()
    gate = gate_of(security, scopes)
    book = CallBook(registry, [*(mount.service for mount in mounts), health.SERVICE], maybe_spans)
    guard = Guard(domain, open_calls, gate, book)
    for mount in mounts:
        mount.add(guard)
    health_pb2_grpc.add_HealthServicer_to_server(state, guard)
    if security.has_reflection:
        add_reflection(guard, [*names, health.SERVICE.full_name])
    probes = Guard(domain, open_calls, Gate(None, scopes), book)  # keys are of no use there, and none is looked at
    health_pb2_grpc.add_HealthServicer_to_server(state, probes)
    main = Listener(listen, guard, server_options(connections_max()), partial(maybe_credentials, security))
    try:
        async with probed(security.health_listen, probes) as health_port:
            try:
                await main.start()
                async with beside(main.run(), keep_watch(gate, open_calls)):
                    yield Running(main.port, main.target, state, health_port)
            except BaseException:
                grace_s = BROKEN_GRACE_S
                raise
            finally:
                state.drain()
                await open_calls.drain(grace_s)
    finally:
        await main.stop()
        await open_calls.ended()


@asynccontextmanager
async def probed(maybe_listen: str | None, health: Guard) -> AsyncIterator[int]:
    """Health alone, in plaintext and without keys, on an address of its own; 0 when there is none."""
    if maybe_listen is None:
        yield 0
        return
    probes = Listener(maybe_listen, health, probes_options(PROBES_MAX))
    try:
        await probes.start()
        async with beside(probes.run()):
            yield probes.port
    finally:
        await probes.stop()


async def keep_watch(gate: Gate, open_calls: OpenCalls) -> None:
    """Takes over changed keys, and ends the streams of those that may no longer call."""
    while True:
        await asyncio.sleep(KEYS_WATCHED_S)
        gate.refresh()
        open_calls.cut_streams(gate.check_again)


def gate_of(security: Security, scopes: Mapping[str, Scope]) -> Gate:
    """Raises SecurityRefused."""
    keys_file = security.keys_file
    if keys_file is None:
        return Gate(None, scopes)
    with refusing():
        return Gate(Reloaded([keys_file], lambda: read_keys(keys_file)).current, scopes)


def maybe_credentials(security: Security) -> grpc.ServerCredentials | None:
    """Raises SecurityRefused."""
    with refusing():
        return security.tls.credentials() if security.tls else None
