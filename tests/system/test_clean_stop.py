"""SIGTERM under load with open streams: a clean exit within two seconds, and everything acknowledged is there."""

import asyncio
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

import serving
from tests.faults.history import flaws
from tests.faults.load import history_of, under_load, until_drained
from tests.system.processes import pair

EXIT_S_MAX = 2.0
STREAMS = 100


async def watched(stub: Any, statuses: list[int], has_begun: asyncio.Event) -> None:
    """A stream that ends only with the server."""
    with suppress(grpc.aio.AioRpcError):
        async for answer in stub.Watch(health_pb2.HealthCheckRequest(service="readiness")):
            statuses.append(answer.status)
            has_begun.set()


async def test_omen_stops_within_two_seconds_under_load_and_loses_nothing_acknowledged(tmp_path: Path) -> None:
    async with pair(tmp_path) as servers:
        target = f"127.0.0.1:{servers.omen.port}"
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as watchers:
            channel = await stack.enter_async_context(serving.channel(target))
            stub: Any = health_pb2_grpc.HealthStub(channel)
            statuses: list[list[int]] = [[] for _ in range(STREAMS)]
            begun = [asyncio.Event() for _ in range(STREAMS)]
            for seen, has_begun in zip(statuses, begun, strict=True):
                watchers.create_task(watched(stub, seen, has_begun))
            await asyncio.gather(*(has_begun.wait() for has_begun in begun))
            async with under_load(target) as load:
                await load.until(200)
                loop = asyncio.get_running_loop()
                began = loop.time()
                assert await servers.omen.stop() == 0
                took_s = loop.time() - began
                await servers.omen.start()
                await until_drained(target)
                load.is_after_the_last_fault = True
                await load.until(load.acknowledged + 50)
        await until_drained(target)
        assert await servers.omen.stop() == 0
        assert await servers.riskcast.stop() == 0
        history = history_of(load.attempts, servers)
    assert took_s < EXIT_S_MAX
    assert flaws(history) == []
    serving_status, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    assert statuses == [[serving_status, not_serving]] * STREAMS
