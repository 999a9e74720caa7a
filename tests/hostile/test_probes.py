"""Whoever fills the address for probes keeps a probe out for a while, not for as long as they like."""

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import serving
from serving import options, server
from serving.descriptors import PROBES_MAX
from serving.security import Security
from tests.hostile.http2 import Connection, call_headers, connected, opening
from tests.serving.authority import secured
from tests.serving.probe import Probe

FEW = 8  # are filled faster than the first is closed
BACK_S_MAX = 15.0
WATCH = "/grpc.health.v1.Health/Watch"


async def probed(port: int) -> grpc.StatusCode:
    """A new connection, as of a kubelet."""
    async with serving.channel(f"127.0.0.1:{port}") as channel:
        code: grpc.StatusCode = (
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5).code()
        )
        return code


def idle(_client: Connection) -> None:
    """Greets, and says nothing any more."""


def watching(client: Connection) -> None:
    client.send(opening(1, call_headers(WATCH)))


@pytest.mark.parametrize(("abuse", "faster"), [(idle, 5), (watching, 20)])
async def test_a_probe_is_answered_again_though_nobody_leaves(
    abuse: Callable[[Connection], None], faster: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_short = tuple((name, milliseconds // faster) for name, milliseconds in options.PROBES_OPTIONS)
    monkeypatch.setattr(options, "PROBES_OPTIONS", in_short)
    monkeypatch.setattr(server, "PROBES_MAX", FEW)
    async with secured(Probe(), Security(health_listen="127.0.0.1:0")) as running:
        with ExitStack() as stack:
            for _ in range(FEW):
                client = stack.enter_context(connected(running.health_port))
                await asyncio.to_thread(client.settle)
                abuse(client)
            assert await probed(running.health_port) is grpc.StatusCode.UNAVAILABLE
            until = time.monotonic() + BACK_S_MAX
            while await probed(running.health_port) is not grpc.StatusCode.OK:
                assert time.monotonic() < until
                await asyncio.sleep(0.05)


def test_connections_of_probes_are_closed_when_idle_for_ten_seconds_and_after_a_minute_whatever_they_do() -> None:
    limits = dict(options.probes_options(PROBES_MAX))
    assert limits["grpc.max_connection_idle_ms"] <= 10_000
    assert limits["grpc.max_connection_age_ms"] + limits["grpc.max_connection_age_grace_ms"] <= 61_000
    assert limits["grpc.max_allowed_incoming_connections"] == PROBES_MAX
    names = [name for name, _ in options.probes_options(PROBES_MAX)]
    assert len(names) == len(set(names))
