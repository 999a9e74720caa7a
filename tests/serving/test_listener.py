"""A request that ends gRPC's own server ends nothing of ours."""

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

import serving
from contract.errors import Reason
from serving.security import Security
from tests.hostile.http2 import HELLO, Connection, Kind, call_headers, connected, encrypted, opening
from tests.serving.authority import secured, trust
from tests.serving.child import child
from tests.serving.probe import Context, Probe, answers, failure, mount, open_call

NO_TEXT = b"/\xff"


def send_a_path_that_is_no_text(port: int) -> None:
    with connected(port) as client:
        call_no_text(client)


def call_no_text(client: Connection) -> None:
    """Returns once the server has let go of the connection."""
    client.settle()
    client.send(opening(1, call_headers("/path").replace(b"\x05/path", bytes([len(NO_TEXT)]) + NO_TEXT)))
    client.until(lambda each: each.kind == Kind.GOAWAY)


def send_it_encrypted(port: int, ca_file: Path) -> None:
    with encrypted(port, ca_file) as peer:
        client = Connection(peer)
        client.send(HELLO)
        call_no_text(client)


@pytest.mark.parametrize("which", ["main", "probes"])
async def test_a_path_that_is_no_text_costs_open_calls_and_never_the_address(which: str) -> None:
    async def script(_context: Context) -> None:
        await asyncio.sleep(0)

    security = Security(health_listen="127.0.0.1:0")
    with capture_logs() as logs:
        async with AsyncExitStack() as stack:
            served = serving.serve("127.0.0.1:0", [mount(Probe(script))], domain="omen.v1", security=security)
            running = await stack.enter_async_context(served)
            running.set_ready()
            for _ in range(3):
                port = running.port if which == "main" else running.health_port
                await asyncio.to_thread(send_a_path_that_is_no_text, port)
                async with serving.channel(f"127.0.0.1:{port}") as channel:
                    stub: Any = health_pb2_grpc.HealthStub(channel)
                    request = health_pb2.HealthCheckRequest(service="readiness")
                    answer = await stub.Check(request, timeout=10, wait_for_ready=True)
                    assert answer.status == health_pb2.HealthCheckResponse.SERVING
                async with serving.channel(running.target) as channel:
                    assert await answers(open_call(channel, "UnaryUnary", "hello")) == ["hello"]
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["listener_replaced"] * 3


async def test_calls_that_are_open_go_on_and_end_with_the_server_as_others_do() -> None:
    may_answer = asyncio.Event()

    async def script(_context: Context) -> None:
        await may_answer.wait()

    probe = Probe(script)
    async with AsyncExitStack() as after:
        async with serving.serve("127.0.0.1:0", [mount(probe)], domain="omen.v1") as running:
            channel = await after.enter_async_context(serving.channel(running.target))
            unary = asyncio.ensure_future(answers(open_call(channel, "UnaryUnary", "kept")))
            await probe.reached(entered=1)
            waiting, may_answer = may_answer, asyncio.Event()
            cut = asyncio.ensure_future(failure(open_call(channel, "StreamStream")))
            await probe.reached(entered=2)
            await asyncio.to_thread(send_a_path_that_is_no_text, running.port)
            waiting.set()
            assert await unary == ["kept"]
        assert (await cut).reason == Reason.SHUTTING_DOWN
    assert probe.left == 2


async def test_the_server_that_comes_next_shows_the_certificate_too(tmp_path: Path) -> None:
    ours = trust(tmp_path)
    async with secured(Probe(), Security(tls=ours.server())) as running:
        for _ in range(2):
            await asyncio.to_thread(send_it_encrypted, running.port, ours.ca_file)
            async with serving.channel(running.target, ours.client()) as channel, asyncio.timeout(10):
                await channel.channel_ready()
                assert await answers(open_call(channel, "UnaryUnary", "hello")) == ["hello"]


def test_the_path_itself_is_told_nowhere() -> None:
    source = """
import threading
from tests.serving.probe import Probe, mount
from tests.serving.test_listener import send_a_path_that_is_no_text
serving.configure_logging()
async def main():
    async with serving.serve("127.0.0.1:0", [mount(Probe())], domain="omen.v1") as running:
        await asyncio.to_thread(send_a_path_that_is_no_text, running.port)
        async with serving.channel(running.target) as channel:
            await asyncio.wait_for(channel.channel_ready(), 10)
serving.run(main())
"""
    with child(source) as process:
        _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    lines = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    assert [line["event"] for line in lines] == ["listener_replaced"]
    assert "xff" not in err
