"""What probes hear from start to end."""

import asyncio
from contextlib import AsyncExitStack

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import serving
from serving.calls.drain import WATCHERS_S
from tests.serving.probe import Context, Probe, answers, failure, open_call, served

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

ALIVE = ["", "liveness"]
READY = ["probe.v1.ProbeService", "readiness"]


async def states(channel: grpc.aio.Channel) -> dict[str, int]:
    stub = health_pb2_grpc.HealthStub(channel)
    return {name: (await stub.Check(health_pb2.HealthCheckRequest(service=name))).status for name in (*ALIVE, *READY)}


def expected(ready: int) -> dict[str, int]:
    return dict.fromkeys(ALIVE, SERVING) | dict.fromkeys(READY, ready)


async def test_a_server_is_alive_from_the_start_and_ready_when_told() -> None:
    async with served(Probe()) as running, serving.channel(running.target) as channel:
        assert await states(channel) == expected(NOT_SERVING)
        running.set_ready()
        assert await states(channel) == expected(SERVING)
        running.set_not_ready()
        assert await states(channel) == expected(NOT_SERVING)
        running.set_ready()
        assert await states(channel) == expected(SERVING)


async def test_while_it_drains_a_server_is_alive_and_not_ready_whatever_it_is_told() -> None:
    may_finish = asyncio.Event()

    async def script(_context: Context) -> None:
        await may_finish.wait()

    probe, stack = Probe(script), AsyncExitStack()
    running = await stack.enter_async_context(served(probe))
    running.set_ready()
    async with serving.channel(running.target) as channel:
        in_flight = asyncio.ensure_future(answers(open_call(channel, "UnaryUnary")))
        await probe.reached(entered=1)
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="readiness"))
        assert (await watch.read()).status == SERVING
        leaving = asyncio.ensure_future(stack.aclose())
        assert (await watch.read()).status == NOT_SERVING
        assert await states(channel) == expected(NOT_SERVING)
        running.set_ready()
        assert await states(channel) == expected(NOT_SERVING)
        may_finish.set()
        await asyncio.gather(leaving, in_flight)


@pytest.mark.parametrize("name", READY)
async def test_a_watcher_sees_each_change_and_then_why_its_stream_ends(name: str) -> None:
    stack = AsyncExitStack()
    running = await stack.enter_async_context(served(Probe()))
    async with serving.channel(running.target) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=name))
        assert (await watch.read()).status == NOT_SERVING
        running.set_ready()
        assert (await watch.read()).status == SERVING
        running.set_not_ready()
        assert (await watch.read()).status == NOT_SERVING
        running.set_ready()
        assert (await watch.read()).status == SERVING
        await stack.aclose()
        assert (await watch.read()).status == NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError, match=r"shutting down"):
            await watch.read()


async def test_a_watcher_of_liveness_never_hears_that_the_server_is_dead() -> None:
    stack = AsyncExitStack()
    running = await stack.enter_async_context(served(Probe()))
    async with serving.channel(running.target) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="liveness"))
        assert (await watch.read()).status == SERVING
        running.set_ready()
        async with asyncio.timeout(WATCHERS_S):  # ended by itself, not cut
            await stack.aclose()
        with pytest.raises(grpc.aio.AioRpcError, match=r"shutting down"):
            await watch.read()


async def test_a_watcher_of_a_name_that_is_not_known_is_told_so_and_not_refused() -> None:
    async with served(Probe()) as running, serving.channel(running.target) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="nobody"))
        assert (await watch.read()).status == SERVICE_UNKNOWN
        watch.cancel()


async def test_a_check_of_a_name_that_is_not_known_is_not_found() -> None:
    async with served(Probe()) as running, serving.channel(running.target) as channel:
        found = await failure(health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="x")))
        assert (found.code, found.text) == (grpc.StatusCode.NOT_FOUND, "unknown service")


async def test_the_list_has_every_name_with_its_state() -> None:
    async with served(Probe()) as running, serving.channel(running.target) as channel:
        listed = await health_pb2_grpc.HealthStub(channel).List(health_pb2.HealthListRequest())
        assert {name: response.status for name, response in listed.statuses.items()} == expected(NOT_SERVING)
