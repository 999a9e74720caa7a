"""How our clients behave when the other side goes and returns."""

import time
from typing import Any

import grpc

import serving
from tests.serving.probe import Probe, answers, failure, open_call, served

RECONNECT_S_MAX = 5.0
MESSAGE_BYTES_MAX = 4 * 1024 * 1024


async def test_a_client_is_back_within_seconds_of_the_servers_return() -> None:
    async with served(Probe()) as running, serving.channel(running.target) as channel:
        assert await answers(open_call(channel, "UnaryUnary")) == ["hello"]
        target = running.target
    async with serving.channel(target) as channel:
        found = await failure(open_call(channel, "UnaryUnary"))
        assert found.code is grpc.StatusCode.UNAVAILABLE
        method: Any = channel.unary_unary("/probe.v1.ProbeService/UnaryUnary")
        waiting = method(b"", timeout=10, wait_for_ready=True)
        async with served(Probe(), target):
            started = time.monotonic()
            assert await waiting == b""
            assert time.monotonic() - started < RECONNECT_S_MAX


async def test_a_message_above_4_mib_is_refused_before_it_is_sent() -> None:
    probe = Probe()
    async with served(probe) as running, serving.channel(running.target) as channel:
        found = await failure(open_call(channel, "UnaryUnary", "x" * MESSAGE_BYTES_MAX))
        assert found.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "Sent message larger than max" in found.text
        assert probe.entered == 0
