"""SIGTERM under load with open streams: a clean exit within two seconds, and everything acknowledged is there."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import serving
from riskcast.v1 import ingest_service_pb2 as ingest_pb
from riskcast.v1.ingest_service_pb2_grpc import IngestServiceStub
from serving.server import GRACE_S
from tests.faults.history import flaws
from tests.faults.load import WORKERS, Load, history_of, under_load, until_drained
from tests.system.processes import Pair, Server, pair, spawned

EXIT_S_MAX = 2.0
EXIT_S_EVER = GRACE_S / 2  # of one that had to share the machine: whatever is waited for takes the grace
STREAMS = 100
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING

Opened = Callable[[grpc.aio.Channel, int], Awaitable[Any]]


async def watch(channel: grpc.aio.Channel, _number: int) -> Any:
    """A watch of readiness that has been told the first state."""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    call = stub.Watch(health_pb2.HealthCheckRequest(service="readiness"))
    assert (await call.read()).status == SERVING
    return call


async def ingest_stream(channel: grpc.aio.Channel, number: int) -> Any:
    """An IngestStream of a ledger of its own that has been answered its hello."""
    stub: Any = IngestServiceStub(channel)
    call = stub.IngestStream()
    hello = ingest_pb.IngestHello(ledger_id=str(UUID(int=number)))
    await call.write(ingest_pb.IngestStreamRequest(hello=hello))
    await call.read()
    return call


OPENED: dict[str, Opened] = {"omen": watch, "riskcast": ingest_stream}


@asynccontextmanager
async def streams_open(server: Server, opened: Opened) -> AsyncIterator[list[Any]]:
    async with serving.channel(f"127.0.0.1:{server.port}") as channel:
        yield await asyncio.gather(*(opened(channel, number) for number in range(STREAMS)))


async def stopped(server: Server) -> float:
    """How many seconds it took to end with exit code 0."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await server.stop() == 0
    return loop.time() - began


async def rest_of(call: Any) -> list[Any]:
    """What else a stream says before it ends."""
    said = []
    with suppress(grpc.aio.AioRpcError):
        while (message := await call.read()) is not grpc.aio.EOF:
            said.append(message)
    return said


async def recovered(load: Load, target: str) -> None:
    """No fault is left, and the load goes on for a while."""
    await until_drained(target, in_flight=WORKERS)
    load.is_after_the_last_fault = True
    await load.until(load.acknowledged + 50)


async def found(servers: Pair, load: Load, target: str) -> list[str]:
    """What the history checker finds once everything is delivered and both have stopped."""
    await until_drained(target)
    assert await servers.omen.stop() == 0
    assert await servers.riskcast.stop() == 0
    return flaws(history_of(load.attempts, servers.ledger, servers.database))


@pytest.mark.parametrize(("which", "stops"), [("omen", 3), ("riskcast", 2)])
async def test_stopped_again_and_again_under_load_with_open_streams_each_exits_in_time_and_loses_nothing_acknowledged(
    tmp_path: Path, which: str, stops: int
) -> None:
    await stop_again_and_again(tmp_path, which, stops, Random(5))


@pytest.mark.soak
@pytest.mark.parametrize("which", OPENED)
async def test_a_hundred_stops_under_load_lose_nothing_acknowledged(tmp_path: Path, which: str, soak_seed: int) -> None:
    await stop_again_and_again(tmp_path, which, 50, Random(soak_seed))


async def stop_again_and_again(tmp_path: Path, which: str, stops: int, chance: Random) -> None:
    async with pair(tmp_path, spawned) as servers:
        server: Server = getattr(servers, which)
        target = f"127.0.0.1:{servers.omen.port}"
        took: list[float] = []
        async with under_load(target) as load:
            for _ in range(stops):
                await load.until(load.acknowledged + chance.randrange(1, 200))
                async with streams_open(server, OPENED[which]) as streams:
                    took.append(await stopped(server))
                    told = await asyncio.gather(*map(rest_of, streams))
                await server.start()
                if which == "omen":
                    assert [[each.status for each in of] for of in told] == [[NOT_SERVING]] * STREAMS
            await recovered(load, target)
        assert await found(servers, load, target) == []
    assert min(took) < EXIT_S_MAX
    assert max(took) < EXIT_S_EVER


@pytest.mark.parametrize("which", OPENED)
async def test_a_second_sigterm_ends_it_at_once_and_loses_nothing_acknowledged(tmp_path: Path, which: str) -> None:
    async with pair(tmp_path) as servers:
        server: Server = getattr(servers, which)
        target = f"127.0.0.1:{servers.omen.port}"
        async with under_load(target) as load:
            await load.until(100)
            assert server.process
            server.process.send_signal(signal.SIGTERM)
            assert await server.end(signal.SIGTERM) in (0, 128 + signal.SIGTERM)  # 0: it had ended by then
            await server.start()
            await recovered(load, target)
        assert await found(servers, load, target) == []
