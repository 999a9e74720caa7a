"""Whichever task that must not end dies: calls fail at once, probes are told, and the server ends with what it was."""

import asyncio
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import omen_server.app
import serving
from contract.errors import ErrorDetails, Reason
from omen.v1 import signal_service_pb2 as pb
from omen.v1.signal_service_pb2_grpc import SignalServiceStub
from omen_server.delivery import Delivery
from omen_server.reading.signal_index import SignalIndex
from tests.omen_server.running import event, omen, seconds
from tests.omen_server.scripted_riskcast import hanging, peer_of
from tests.serving.dying import Bug, make_mortal

AT_ONCE_S = 2.0


# What runs beside the calls -> where it is found.
TASKS: dict[str, tuple[object, str]] = {
    "delivery": (Delivery, "run"),
    "sealing": (omen_server.app, "seal_due"),
    "scrub": (omen_server.app, "scrub"),
    "the index": (SignalIndex, "died"),
}


@pytest.mark.parametrize("task", TASKS)
async def test_a_task_that_dies_fails_calls_at_once_turns_readiness_off_and_ends_the_server_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    dies = make_mortal(monkeypatch, task, *TASKS[task])
    async with peer_of(hanging) as peer, AsyncExitStack() as after, omen(tmp_path, peer.port) as server:
        channel = await after.enter_async_context(serving.channel(f"127.0.0.1:{server.port}"))
        readiness = asyncio.ensure_future(readiness_until_the_end(channel))
        request = pb.EmitRequest(event=event(1), delivery_timeout=seconds(60))
        waiting = asyncio.ensure_future(answer(SignalServiceStub(channel).Emit(request, timeout=60)))
        await peer.until(lambda peer: len(peer.records) == 1)
        dies.set()
        async with asyncio.timeout(AT_ONCE_S):
            assert await waiting in ("LEDGER_ONLY", Reason.SHUTTING_DOWN)
            assert (await readiness)[-1] == health_pb2.HealthCheckResponse.NOT_SERVING
            await asyncio.wait([server.task])
        with pytest.raises(Bug, match=task):
            await server.task


async def readiness_until_the_end(channel: grpc.aio.Channel) -> list[int]:
    """What a watcher of readiness is told until its stream ends."""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    told: list[int] = []
    with suppress(grpc.aio.AioRpcError):
        async for each in stub.Watch(health_pb2.HealthCheckRequest(service="readiness"), timeout=20):
            told.append(each.status)
    return told


async def answer(call: Any) -> str:
    """The status of an emission, or the reason of the refusal."""
    try:
        return pb.EmissionStatus.Name((await call).emission.status).removeprefix("EMISSION_STATUS_")
    except grpc.aio.AioRpcError as error:
        details = ErrorDetails.from_trailing_metadata(error.trailing_metadata())
        assert details
        return details.reason
