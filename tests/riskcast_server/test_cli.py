"""The commands that speak of Reconcile: resumed when cut, how it stands, and what an operator accepts."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

import serving
from riskcast.v1 import reconcile_service_pb2 as pb
from riskcast.v1.reconcile_service_pb2_grpc import ReconcileServiceStub
from riskcast_server.cli import reconcile
from tests.riskcast_server.events import DAY, event
from tests.riskcast_server.process import run
from tests.riskcast_server.test_divergence import beyond
from tests.riskcast_server.test_reconcile import both
from tests.riskcast_server.test_resume import prepared, story


class Cutting:
    """Breaks every call after so many messages, as a server that goes away does."""

    def __init__(self, stub: Any, messages_max: int) -> None:
        self._stub = stub
        self._messages_max = messages_max
        self.calls = 0
        self.goes_on = True

    async def Reconcile(self, request: pb.ReconcileRequest) -> AsyncIterator[pb.ReconcileResponse]:
        self.calls += 1
        if self.calls > 1 and not self.goes_on:
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "gone")
        call = self._stub.Reconcile(request, timeout=20)
        for _ in range(self._messages_max):
            message = await call.read()
            yield message
            if message.HasField("run_finished"):
                return
        call.cancel()
        raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "gone")


@pytest.mark.parametrize("messages_max", [1, 3, 100])
def test_a_run_that_is_cut_is_resumed_and_told_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, messages_max: int
) -> None:
    monkeypatch.setattr(reconcile, "RESUME_PAUSE_S", 0.001)

    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            await prepared(served, client)
            cutting = Cutting(ReconcileServiceStub(client.channel), messages_max)
            messages = [each async for each in reconcile.resumed(cutting, pb.ReconcileRequest())]
            told = [each[0] for each in story(messages)]
            assert (told[0], told[-1], told.count("replayed")) == ("run_started", "run_finished", 12)
            assert told.count("partition_started") == told.count("partition_finished") == 2
            assert cutting.calls >= len(messages) // messages_max

    asyncio.run(scenario())


def test_a_run_that_cannot_go_on_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "RESUME_PAUSE_S", 0.001)
    monkeypatch.setattr(reconcile, "RESUMES_MAX", 2)

    async def scenario() -> None:
        async with both(tmp_path) as (served, client):
            await prepared(served, client)
            cutting = Cutting(ReconcileServiceStub(client.channel), 1)
            cutting.goes_on = False
            with pytest.raises(grpc.aio.AioRpcError, match="gone"):
                _ = [each async for each in reconcile.resumed(cutting, pb.ReconcileRequest())]
            assert cutting.calls == 1 + reconcile.RESUMES_MAX

    asyncio.run(scenario())


def test_a_run_that_never_began_is_not_resumed() -> None:
    async def scenario() -> None:
        async with serving.channel("127.0.0.1:1") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                _ = [each async for each in reconcile.resumed(ReconcileServiceStub(channel), pb.ReconcileRequest())]
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE

    asyncio.run(scenario())


def test_status_tells_how_each_partition_stands_and_exits_6_until_a_divergence_is_accepted(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (served, client):

            async def riskcast(*arguments: str) -> Any:
                return await asyncio.to_thread(run, *arguments, "--target", client.target, "-o", "jsonl")

            [record] = served.append([event(1)])
            await served.deliver(client, [record])
            never = await riskcast("status")
            assert (never.returncode, json.loads(never.stdout)["status"]) == (0, "NEVER")
            await served.deliver(client, [beyond(record, 2)])
            reconciled = await riskcast("reconcile")
            assert reconciled.returncode == 6
            standing = await riskcast("status")
            row = json.loads(standing.stdout)
            assert (standing.returncode, row["partition"], row["status"], row["extra"]) == (6, DAY, "PARTIAL", 1)
            assert (row["records"], row["stored"]) == (1, 2)
            accepted = await riskcast("ledgers", "accept", row["ledger_id"], "--reason", "restored from a backup")
            assert (accepted.returncode, json.loads(accepted.stdout)) == (0, {"partition": DAY, "records": 1})
            assert (await riskcast("reconcile", "--verify-content")).returncode == 0
            assert (await riskcast("status")).returncode == 0
            history = [
                json.loads(line)["status"] for line in (await riskcast("status", "--history")).stdout.splitlines()
            ]
            assert history == ["COMPLETED", "PARTIAL"]
            nothing = await riskcast("ledgers", "accept", "x", "--reason", "because")
            assert (nothing.returncode, nothing.stdout) == (2, "")

    asyncio.run(scenario())
