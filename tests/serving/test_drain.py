"""Leaving the block: what is open ends as promised, soon, and nothing runs afterwards."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc

import serving
from contract.errors import Reason
from tests.serving.probe import KINDS, STREAMS, Context, Probe, answers, failure, open_call, served

GRACE_S = 30.0
STOP_S_MAX = GRACE_S / 3  # on however busy a machine: whatever is waited for takes the grace


async def for_ever(_context: Context) -> None:
    await asyncio.Event().wait()


async def drained(stack: AsyncExitStack) -> float:
    """Leaves what the stack has entered; how many seconds it took."""
    started = time.monotonic()
    await stack.aclose()
    return time.monotonic() - started


async def watched(channel: grpc.aio.Channel) -> Callable[[], Awaitable[None]]:
    """What it gives returns once the server, ready now, refuses new calls."""
    watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="readiness"))
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING

    async def refusing() -> None:
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING

    return refusing


async def test_a_hundred_open_streams_end_at_once_and_each_is_told_why() -> None:
    probe, stack = Probe(for_ever), AsyncExitStack()
    running = await stack.enter_async_context(served(probe, grace_s=GRACE_S))
    async with serving.channel(running.target) as channel:
        ends = [asyncio.ensure_future(failure(open_call(channel, STREAMS[n % 3]))) for n in range(100)]
        stub: Any = health_pb2_grpc.HealthStub(channel)
        calls = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(20)]
        watches = [asyncio.ensure_future(failure(call)) for call in calls]
        await asyncio.gather(*(call.initial_metadata() for call in calls))  # they have been told the first state
        await probe.reached(entered=100)
        assert await drained(stack) < STOP_S_MAX
        assert probe.left == 100
        for found in await asyncio.gather(*ends):
            assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, Reason.SHUTTING_DOWN)
        for found in await asyncio.gather(*watches):
            assert found.code is grpc.StatusCode.UNAVAILABLE


class Torrent(Probe):
    """Its server stream never ends, and waits for its reader most of the time."""

    async def UnaryStream(self, request: StringValue, context: Context) -> AsyncIterator[StringValue]:
        self.entered += 1
        await self._notify()
        try:
            while True:
                yield StringValue(value="x" * 2**20)
        finally:
            await asyncio.sleep(0)
            self.left += 1


async def test_clients_that_do_not_read_do_not_hold_up_the_stop_and_their_generators_are_closed() -> None:
    probe, stack = Torrent(), AsyncExitStack()
    running = await stack.enter_async_context(served(probe, grace_s=GRACE_S))
    async with serving.channel(running.target) as channel:
        calls = [open_call(channel, "UnaryStream") for _ in range(4)]
        for call in calls:
            await call.read()
        assert await drained(stack) < STOP_S_MAX
        assert probe.left == probe.entered == 4
        for call in calls:
            call.cancel()


async def test_a_client_that_reads_on_hears_the_reason_after_all_that_was_sent() -> None:
    probe, stack = Torrent(), AsyncExitStack()
    running = await stack.enter_async_context(served(probe, grace_s=GRACE_S))
    async with serving.channel(running.target) as channel:
        call = open_call(channel, "UnaryStream")
        await call.initial_metadata()
        leaving = asyncio.ensure_future(drained(stack))
        assert (await failure(call)).reason == Reason.SHUTTING_DOWN
        assert await leaving < STOP_S_MAX


async def test_streams_cut_in_their_first_message_are_told_why() -> None:
    probe, stack = Torrent(), AsyncExitStack()
    running = await stack.enter_async_context(served(probe, grace_s=GRACE_S))
    async with serving.channel(running.target) as channel:
        ends = [asyncio.ensure_future(failure(open_call(channel, "UnaryStream"))) for _ in range(20)]
        await probe.reached(entered=20)
        assert await drained(stack) < STOP_S_MAX
        assert {found.reason for found in await asyncio.gather(*ends)} == {Reason.SHUTTING_DOWN}


async def test_a_unary_call_in_flight_finishes_while_streams_end_and_new_calls_are_refused() -> None:
    may_finish = asyncio.Event()

    async def script(_context: Context) -> None:
        await may_finish.wait()

    probe, stack = Probe(script), AsyncExitStack()
    running = await stack.enter_async_context(served(probe, grace_s=GRACE_S))
    running.set_ready()
    async with serving.channel(running.target) as channel:
        in_flight = asyncio.ensure_future(answers(open_call(channel, "UnaryUnary", "kept")))
        await probe.reached(entered=1)
        stream = asyncio.ensure_future(failure(open_call(channel, "StreamStream")))
        await probe.reached(entered=2)
        refusing = await watched(channel)
        leaving = asyncio.ensure_future(drained(stack))
        await refusing()
        assert (await stream).reason == Reason.SHUTTING_DOWN
        for kind in KINDS:
            found = await failure(open_call(channel, kind))
            assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, Reason.SHUTTING_DOWN)
        assert not leaving.done()
        assert probe.entered == 2
        may_finish.set()
        assert await in_flight == ["kept"]
        assert await leaving < STOP_S_MAX


async def test_a_unary_call_that_outlives_the_grace_is_told_so() -> None:
    probe, stack = Probe(for_ever), AsyncExitStack()
    running = await stack.enter_async_context(served(probe, grace_s=0.2))
    async with serving.channel(running.target) as channel:
        in_flight = asyncio.ensure_future(failure(open_call(channel, "UnaryUnary")))
        await probe.reached(entered=1)
        assert 0.2 <= await drained(stack) < STOP_S_MAX
        assert probe.left == 1
        found = await in_flight
        assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, Reason.SHUTTING_DOWN)


@pytest.mark.parametrize("kind", KINDS)
async def test_no_handler_runs_after_the_block_however_long_its_finally_takes(kind: str) -> None:
    cleaned: list[str] = []

    async def script(_context: Context) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(1000):  # as an orderly end takes several turns of the loop, or the network
                await asyncio.sleep(0)
            await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.7)
            cleaned.append(kind)

    probe, stack = Probe(script), AsyncExitStack()
    running = await stack.enter_async_context(served(probe, grace_s=0.0))
    async with serving.channel(running.target) as channel:
        call = asyncio.ensure_future(failure(open_call(channel, kind)))
        await probe.reached(entered=1)
        await stack.aclose()
        assert cleaned == [kind]
        assert (await call).code is grpc.StatusCode.UNAVAILABLE


async def test_a_handler_that_answers_while_it_is_cut_is_heard() -> None:
    async def script(_context: Context) -> None:
        with pytest.raises(asyncio.CancelledError):
            await asyncio.Event().wait()

    probe, stack = Probe(script), AsyncExitStack()
    running = await stack.enter_async_context(served(probe, grace_s=0.0))
    async with serving.channel(running.target) as channel:
        call = asyncio.ensure_future(answers(open_call(channel, "UnaryUnary", "just in time")))
        await probe.reached(entered=1)
        await stack.aclose()
        assert await call == ["just in time"]


async def test_a_failing_block_drains_too_and_fails_as_it_did() -> None:
    probe, open_calls = Probe(for_ever), []

    async def block(channels: AsyncExitStack) -> None:
        async with served(probe) as running:
            channel = await channels.enter_async_context(serving.channel(running.target))
            open_calls.append(asyncio.ensure_future(failure(open_call(channel, "StreamStream"))))
            await probe.reached(entered=1)
            raise ZeroDivisionError

    async with AsyncExitStack() as channels:
        with pytest.raises(ZeroDivisionError):
            await block(channels)
        assert probe.left == 1
        assert [(await call).reason for call in open_calls] == [Reason.SHUTTING_DOWN]


async def test_a_cancelled_drain_still_waits_for_the_finally_of_a_handler() -> None:
    cleaned: list[str] = []

    async def script(_context: Context) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.2)
            cleaned.append("cleaned")

    probe, stack = Probe(script), AsyncExitStack()
    running = await stack.enter_async_context(served(probe, grace_s=GRACE_S))
    async with serving.channel(running.target) as channel:
        running.set_ready()
        call = asyncio.ensure_future(failure(open_call(channel, "UnaryUnary")))
        await probe.reached(entered=1)
        refusing = await watched(channel)
        leaving = asyncio.ensure_future(drained(stack))
        await refusing()
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert cleaned == ["cleaned"]
        assert (await call).code is grpc.StatusCode.UNAVAILABLE


async def test_a_stopped_server_leaves_its_port_to_the_next() -> None:
    async with served(Probe()) as running, serving.channel(running.target) as channel:
        assert await answers(open_call(channel, "UnaryUnary")) == ["hello"]
    async with served(Probe(), running.target), serving.channel(running.target) as channel:
        assert await answers(open_call(channel, "UnaryUnary")) == ["hello"]
