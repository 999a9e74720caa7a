"""The second, plaintext address: for probes without a key or a certificate, and for nothing else."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

import serving
from serving.security import ClientSecurity, Security
from serving.server import Running
from tests.serving.authority import SCOPES, secured, trust, write_keys
from tests.serving.probe import KINDS, Context, Probe, answers, failure, open_call
from tests.serving.test_health import NOT_SERVING, SERVING, expected, states

REFLECTION = [f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo" for version in ("v1", "v1alpha")]


def probes(running: Running) -> grpc.aio.Channel:
    return serving.channel(f"127.0.0.1:{running.health_port}")


async def unasked(channel: grpc.aio.Channel, method: str) -> grpc.StatusCode:
    """How a call ends of which nothing but its headers is sent: a client that writes may lose why it was refused."""
    code: grpc.StatusCode = await channel.stream_stream(method)(timeout=10).code()
    return code


@pytest.fixture
def locked(tmp_path: Path) -> Security:
    """Keys, mTLS and an address for probes."""
    ours = trust(tmp_path)
    write_keys(tmp_path / "keys.json")
    return Security(tmp_path / "keys.json", ours.server(ours), "127.0.0.1:0")


async def test_it_tells_what_the_server_tells_beside_keys_and_mtls(locked: Security) -> None:
    async with secured(Probe(), locked) as running, probes(running) as channel:
        assert running.health_port not in (0, running.port)
        assert await states(channel) == expected(NOT_SERVING)
        running.set_ready()
        assert await states(channel) == expected(SERVING)
        listed = await health_pb2_grpc.HealthStub(channel).List(health_pb2.HealthListRequest())
        assert {name: response.status for name, response in listed.statuses.items()} == expected(SERVING)


async def test_nothing_else_answers_there_though_it_was_called_on_the_other_address(tmp_path: Path) -> None:
    ours, probe = trust(tmp_path), Probe()
    key = write_keys(tmp_path / "keys.json", omen=["ingest"])["omen"]
    security = Security(tmp_path / "keys.json", ours.server(), "127.0.0.1:0")
    (tmp_path / "key").write_text(key, "utf-8")
    async with secured(probe, security) as running:
        client = ours.client()
        known = ClientSecurity(tmp_path / "key", client.ca_file)
        async with serving.channel(running.target, known) as channel:
            for kind in KINDS:
                assert await answers(open_call(channel, kind)) == ["hello"]
            request = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
            for method in REFLECTION:
                reflect: Any = channel.stream_stream(method)
                call = reflect(iter([request]))
                assert await call.read() is not grpc.aio.EOF
        entered = probe.entered
        with_key = serving.channel(f"127.0.0.1:{running.health_port}", ClientSecurity(tmp_path / "key"))
        async with probes(running) as without_key, with_key:
            for asked in (without_key, with_key):
                for method in (*REFLECTION, *SCOPES):
                    assert await unasked(asked, method) is grpc.StatusCode.UNIMPLEMENTED
        assert probe.entered == entered


async def test_while_the_server_drains_its_watchers_are_told_and_it_is_alive(locked: Security) -> None:
    may_finish = asyncio.Event()

    async def script(_context: Context) -> None:
        await may_finish.wait()

    probe, stack = Probe(script), AsyncExitStack()
    security = Security(health_listen=locked.health_listen)
    running = await stack.enter_async_context(secured(probe, security))
    running.set_ready()
    async with serving.channel(running.target) as channel, probes(running) as probing:
        in_flight = asyncio.ensure_future(answers(open_call(channel, "UnaryUnary")))
        await probe.reached(entered=1)
        watch = health_pb2_grpc.HealthStub(probing).Watch(health_pb2.HealthCheckRequest(service="readiness"))
        assert (await watch.read()).status == SERVING
        leaving = asyncio.ensure_future(stack.aclose())
        assert (await watch.read()).status == NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError, match=r"shutting down"):
            await watch.read()
        assert await states(probing) == expected(NOT_SERVING)
        may_finish.set()
        await asyncio.gather(leaving, in_flight)
        found = await failure(health_pb2_grpc.HealthStub(probing).Check(health_pb2.HealthCheckRequest()))
        assert found.code is grpc.StatusCode.UNAVAILABLE


async def test_an_address_that_is_taken_is_refused_and_the_server_listens_nowhere() -> None:
    async with secured(Probe(), Security()) as other:
        with pytest.raises(serving.ListenError, match=other.target):
            async with secured(Probe(), Security(health_listen=other.target)):
                pass
