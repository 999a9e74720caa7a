"""Both servers secured as an operator would: keys, certificates on both sides, probes without either."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2_grpc

import serving
from riskcast.v1 import reconcile_service_pb2 as reconcile_pb
from riskcast.v1.reconcile_service_pb2_grpc import ReconcileServiceStub
from serving.security import ClientSecurity, SecurityRefused
from tests.omen_server.running import DEADLINE_S, DELIVERED, closed_port, event, omen, riskcast, seconds
from tests.serving.authority import Trust, trust, write_keys
from tests.system.processes import Server, run_module

OPERATOR = ["signals.emit", "signals.read", "ledger.read", "stats.read", "reconcile"]


def written(path: Path, key: str) -> Path:
    path.write_text(f"{key}\n", "utf-8")
    return path


def tls(ours: Trust, name: str) -> dict[str, Any]:
    """Settings of a server that shows a certificate and wants one."""
    pair = ours.issue(name)
    return {"tls_cert_file": pair.cert_file, "tls_key_file": pair.key_file, "tls_client_ca_file": ours.ca_file}


async def test_with_keys_and_certificates_on_both_sides_signals_are_delivered_and_reconciled(tmp_path: Path) -> None:
    ours, keys = trust(tmp_path), tmp_path / "keys.json"
    known = write_keys(keys, omen=["ingest"], riskcast=["ledger.read"], operator=OPERATOR)
    files = {name: written(tmp_path / name, key) for name, key in known.items()}
    shown = ours.issue("operator")
    operator = ClientSecurity(files["operator"], ours.ca_file, shown.cert_file, shown.key_file)
    omen_port = closed_port()
    as_riskcast = tls(ours, "riskcast") | {"omen_tls_ca_file": ours.ca_file, "omen_api_key_file": files["riskcast"]}
    as_omen = tls(ours, "omen") | {"riskcast_tls_ca_file": ours.ca_file, "riskcast_api_key_file": files["omen"]}
    async with (
        riskcast(
            tmp_path / "db",
            client=operator,
            api_keys_file=keys,
            omen_targets=(f"127.0.0.1:{omen_port}",),
            **as_riskcast,
        ) as store,
        omen(
            tmp_path / "ledger",
            store.port,
            listen=f"127.0.0.1:{omen_port}",
            client=operator,
            api_keys_file=keys,
            **as_omen,
        ) as server,
    ):
        assert (await server.emit(event(1), delivery_timeout=seconds(20))).status == DELIVERED
        stub: Any = ReconcileServiceStub(store.channel)
        run = stub.Reconcile(reconcile_pb.ReconcileRequest(include_open=True), timeout=DEADLINE_S)
        finished = [message.run_finished async for message in run if message.HasField("run_finished")]
        assert [each.status for each in finished] == [reconcile_pb.RECONCILE_STATUS_COMPLETED]
        assert await store.count() == 1
        for target in (f"127.0.0.1:{omen_port}", f"127.0.0.1:{store.port}"):
            async with serving.channel(target, ClientSecurity(files["operator"])) as plaintext:
                health: Any = health_pb2_grpc.HealthStub(plaintext)
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await health.Check(health_pb2.HealthCheckRequest(), timeout=5)
                assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_riskcast_whose_certificate_is_of_another_host_gets_nothing_until_it_has_the_right_one(
    tmp_path: Path,
) -> None:
    ours = trust(tmp_path)
    pair = ours.issue("riskcast", hosts=["riskcast.example"])
    certificate: dict[str, Any] = {"tls_cert_file": pair.cert_file, "tls_key_file": pair.key_file}
    async with (
        riskcast(tmp_path / "db", client=ours.client(), **certificate) as store,
        omen(tmp_path / "ledger", store.port, riskcast_tls_ca_file=ours.ca_file) as server,
    ):
        [emission] = await server.to_ledger(1)
        state = await server.until_state(lambda state: bool(state.last_error))
        assert state.last_error == "UNAVAILABLE"
        assert store.ids() == []
        ours.issue("riskcast")
        await server.until_drained()
        assert store.ids() == [emission.signal_id]


@pytest.mark.parametrize("named", ["api_keys_file", "tls_cert_file", "riskcast_api_key_file", "riskcast_tls_ca_file"])
async def test_a_file_that_is_not_there_refuses_the_start_by_its_name(tmp_path: Path, named: str) -> None:
    nothing = tmp_path / "nothing"
    settings: dict[str, Any] = {named: nothing} | ({"tls_key_file": nothing} if named == "tls_cert_file" else {})
    with pytest.raises(SecurityRefused, match=f"^{nothing}: No such file or directory$"):
        async with omen(tmp_path / "ledger", closed_port(), **settings):
            pass


async def test_reflection_that_is_switched_off_is_not_there_and_probes_go_on(tmp_path: Path) -> None:
    async with omen(tmp_path / "ledger", closed_port(), reflection=False) as server:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(server.channel)
        call = stub.ServerReflectionInfo(timeout=5)
        assert await call.code() is grpc.StatusCode.UNIMPLEMENTED
        health: Any = health_pb2_grpc.HealthStub(server.channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(service="readiness"), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def command(package: str, *arguments: str, **settings: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    ended = await asyncio.to_thread(run_module, package, *arguments, **settings)
    return ended.returncode, ended.stdout, ended.stderr


async def test_a_command_without_the_right_key_ends_denied_with_one_line(tmp_path: Path) -> None:
    keys, reader = tmp_path / "keys.json", tmp_path / "reader"
    written(reader, write_keys(keys, reader=["stats.read"])["reader"])
    observations = tmp_path / "observations.ndjson"
    observations.write_text("{}\n" * 100, "utf-8")
    async with (
        riskcast(tmp_path / "db", api_keys_file=keys) as store,
        omen(tmp_path / "ledger", store.port, api_keys_file=keys) as server,
    ):
        ask_omen = ("--target", f"127.0.0.1:{server.port}")
        ask_riskcast = ("--target", f"127.0.0.1:{store.port}")
        denied = (4, "", "BAD_CREDENTIALS: the call needs a valid key in x-api-key\n")
        process, reconcile, seal, count = await asyncio.gather(
            command("omen_server", "process", str(observations), *ask_omen),
            command("riskcast_server", "reconcile", "-o", "jsonl", *ask_riskcast),
            command("omen_server", "ledger", "seal", *ask_omen, OMEN_CLIENT_API_KEY_FILE=str(reader)),
            command("riskcast_server", "signals", "count", *ask_riskcast, RISKCAST_CLIENT_API_KEY_FILE=str(reader)),
        )
    assert process == denied
    assert reconcile == denied
    assert seal == (4, "", "SCOPE_MISSING: the key lacks the scope ledger.read\n")
    assert (count[0], count[2]) == (0, "")


async def test_a_server_that_others_reach_starts_with_keys_and_without_tls_with_one_warning(tmp_path: Path) -> None:
    keys, health_port = tmp_path / "keys.json", closed_port()
    write_keys(keys)
    settings = {
        "OMEN_LEDGER_DIR": str(tmp_path / "ledger"),
        "OMEN_API_KEYS_FILE": str(keys),
        "OMEN_HEALTH_LISTEN": f"0.0.0.0:{health_port}",
    }
    server = Server("omen_server", settings, host="0.0.0.0")
    await server.start()
    try:
        async with serving.channel(f"127.0.0.1:{health_port}") as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            answer = await health.Check(health_pb2.HealthCheckRequest(service="readiness"), timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
    finally:
        assert await server.stop() == 0
    assert len([line for line in server.log if "exposed_without_tls" in line and '"warning"' in line]) == 1
