"""When RiskCast is ready, and what happens when a task that must not end dies."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import riskcast_server.app
import serving
from contract.errors import Reason
from riskcast.v1.ingest_service_pb2 import IngestHello, IngestStreamRequest
from riskcast_server.committer import Committer
from riskcast_server.settings import RiskcastSettings
from riskcast_server.store import open_store
from tests.riskcast_server.events import LEDGER, event
from tests.riskcast_server.running import Client, refused, riskcast
from tests.serving.dying import Bug, make_mortal

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
AT_ONCE_S = 2.0
DEADLINE_S = 20.0
TASKS: dict[str, tuple[object, str]] = {
    "committer": (Committer, "run"),
    "scheduler": (riskcast_server.app, "keep_schedule"),
    "readiness": (riskcast_server.app, "keep_ready"),
}


class Readiness:
    """What a watcher is told, in order."""

    def __init__(self, channel: grpc.aio.Channel, service: str = "readiness") -> None:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        self._call = stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=DEADLINE_S)

    async def next(self) -> int:
        return int((await self._call.read()).status)

    async def rest(self) -> list[int]:
        told: list[int] = []
        with suppress(grpc.aio.AioRpcError):
            while (answer := await self._call.read()) is not grpc.aio.EOF:
                told.append(answer.status)
        return told


@asynccontextmanager
async def locked(database: Path) -> AsyncIterator[None]:
    """Nobody else can write while the block runs."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


async def test_while_the_store_does_not_commit_riskcast_is_alive_and_not_ready_and_ready_again_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(riskcast_server.app, "open_store", partial(open_store, timeout_s=0.1))
    async with riskcast(tmp_path) as client:
        readiness = Readiness(client.channel)
        assert await readiness.next() == SERVING
        async with locked(tmp_path / "riskcast.db"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.ingest(event(1))
            assert refused(caught.value).reason == Reason.STORE_UNAVAILABLE
            assert await readiness.next() == NOT_SERVING
            assert await Readiness(client.channel, "liveness").next() == SERVING
        assert await readiness.next() == SERVING
        assert (await client.ingest(event(1))).ack_id


@pytest.mark.parametrize("task", TASKS)
async def test_a_task_that_dies_fails_calls_at_once_turns_readiness_off_and_ends_the_server_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    dies = make_mortal(monkeypatch, task, *TASKS[task])
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    settings = RiskcastSettings(listen="127.0.0.1:0", database_url=f"sqlite:///{tmp_path}/riskcast.db", omen_targets=())
    server = asyncio.ensure_future(riskcast_server.app.serve(settings, asyncio.Event(), ready.set_result))
    async with serving.channel(f"127.0.0.1:{await ready}") as channel:
        client, readiness = Client(channel), Readiness(channel)
        assert await readiness.next() == SERVING
        stream = client.ingest_stub.IngestStream(timeout=DEADLINE_S)
        await stream.write(IngestStreamRequest(hello=IngestHello(ledger_id=LEDGER)))
        await stream.read()
        dies.set()
        async with asyncio.timeout(AT_ONCE_S):
            assert await readiness.rest() == [NOT_SERVING]
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stream.read()
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            with pytest.raises(Bug, match=task):
                await server
