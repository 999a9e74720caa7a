"""Somebody with a probe and without the .proto files: health, reflection, a call, an error they can read."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import serving
from tests.omen_server.running import closed_port, event, omen, riskcast
from tests.omen_server.test_not_implemented import methods
from tests.system.processes import run

OMEN_SERVICES = [
    "omen.v1.DeliveryService",
    "omen.v1.LedgerService",
    "omen.v1.PipelineService",
    "omen.v1.SignalService",
    "omen.v1.StatsService",
]
RISKCAST_SERVICES = ["riskcast.v1.IngestService", "riskcast.v1.SignalService"]


BUF = Path(sys.executable).with_name("buf")


async def buf_curl(*arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of buf, which asks the server for every type it needs."""
    command = (str(BUF), "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--reflect", *arguments)
    ended = await asyncio.to_thread(run, *command)
    return ended.returncode, ended.stdout, ended.stderr


async def health(port: int, names: list[str]) -> set[int]:
    async with serving.channel(f"127.0.0.1:{port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        return {(await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)).status for name in names}


async def test_omen_says_that_it_and_each_of_its_services_serve(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()) as server:
        names = ["", "liveness", "readiness", *OMEN_SERVICES]
        assert await health(server.port, names) == {health_pb2.HealthCheckResponse.SERVING}
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await health(server.port, ["omen.v1.Nobody"])
    assert unknown.value.code() == grpc.StatusCode.NOT_FOUND


async def test_riskcast_says_that_it_and_each_of_its_services_serve(tmp_path: Path) -> None:
    async with riskcast(tmp_path / "db") as store:
        names = ["", "liveness", "readiness", *RISKCAST_SERVICES]
        assert await health(store.port, names) == {health_pb2.HealthCheckResponse.SERVING}


async def test_buf_lists_every_method_of_a_real_omen(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()) as server:
        code, listed, error = await buf_curl("--list-methods", f"http://127.0.0.1:{server.port}")
    assert (code, error) == (0, "")
    named = {f"{method.containing_service.full_name}/{method.name}" for method in methods()}
    assert named <= set(listed.split())
    assert {name.rpartition("/")[0] for name in named} == set(OMEN_SERVICES)


async def test_buf_calls_a_real_omen_by_reflection_alone(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()) as server:
        [emission] = await server.to_ledger(1)
        url = f"http://127.0.0.1:{server.port}/omen.v1"
        data = json.dumps({"signal_id": emission.signal_id})
        code, answer, error = await buf_curl("--data", data, f"{url}.SignalService/GetSignal")
        assert (code, error) == (0, "")
        assert json.loads(answer)["event"]["sourceEventId"] == event(1).source_event_id
        data = json.dumps({"partition": emission.position.partition})
        code, answer, error = await buf_curl("--data", data, f"{url}.LedgerService/Replay")
        assert (code, error) == (0, "")
        assert json.loads(answer)["records"][0]["position"]["sequence"] == str(emission.position.sequence)


async def test_buf_shows_the_code_and_the_details_of_an_error_of_a_real_omen(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()) as server:
        url = f"http://127.0.0.1:{server.port}/omen.v1.SignalService/Emit"
        code, answer, error = await buf_curl("--data", "{}", url)
    assert (code, answer) == (8 * grpc.StatusCode.INVALID_ARGUMENT.value[0], "")
    shown = json.loads(error)
    assert shown["code"] == "invalid_argument"
    assert [detail["type"] for detail in shown["details"]] == ["google.rpc.ErrorInfo", "google.rpc.BadRequest"]
