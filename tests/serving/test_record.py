"""The one line that each call leaves behind."""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

import serving
from contract.errors import ContractError, Reason
from serving.access.keys import new_key, sha256_of
from serving.calls.record import ERRORS
from serving.security import Security
from serving.telemetry.names import bind_signal
from tests.serving.probe import DOMAIN, KINDS, SERVICE, Context, Probe, answers, failure, mount, open_call, served

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE = "0af7651916cd43dd8448eb211c80319c"
SIGNAL = "OMEN-886183D04566"
TRACE_ID = "886183d04566fffd"

Lines = Sequence[Mapping[str, Any]]


@contextmanager
def told() -> Iterator[Lines]:
    """The lines of the block, as they are rendered."""
    with capture_logs(processors=[merge_contextvars]) as logs:
        yield logs


def calls(lines: Lines) -> list[Mapping[str, Any]]:
    return [line for line in lines if line["event"] == "call"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_of_any_kind_leaves_one_line_that_says_who_called_what_and_how_it_ended(kind: str) -> None:
    with told() as lines:
        async with served(Probe()) as running, serving.channel(running.target) as channel:
            assert await answers(open_call(channel, kind)) == ["hello"]
    [line] = lines
    duration_ms, peer = line["duration_ms"], line["peer"]
    assert line == {
        "event": "call",
        "log_level": "info",
        "method": f"/{SERVICE.full_name}/{kind}",
        "code": "OK",
        "reason": "",
        "duration_ms": duration_ms,
        "peer": peer,
        "key_id": "",
    }
    assert 0 < duration_ms < 10_000
    assert peer.startswith("ipv4:127.0.0.1:")


@pytest.mark.parametrize(
    ("ending", "code", "level"),
    [
        (ContractError(Reason.DUPLICATE_SIGNAL, "again"), "ALREADY_EXISTS", "info"),
        (ContractError(Reason.LEDGER_DAMAGED, "rotten"), "DATA_LOSS", "error"),
        (ContractError(Reason.QUEUE_FULL, "later"), "RESOURCE_EXHAUSTED", "info"),
        (KeyError("x" * 100_000), "INTERNAL", "error"),
    ],
)
async def test_the_line_says_the_code_and_reason_and_what_the_server_did_wrong_is_an_error(
    ending: Exception, code: str, level: str
) -> None:
    async def script(_context: Context) -> None:
        raise ending

    with told() as lines:
        async with served(Probe(script)) as running, serving.channel(running.target) as channel:
            found = await failure(open_call(channel, "UnaryUnary"))
    [line] = calls(lines)
    assert (line["code"], line["reason"], line["log_level"]) == (code, found.reason, level)
    assert len(str(line)) < 1_000


def test_every_code_that_only_a_servers_own_fault_leads_to_is_an_error() -> None:
    assert {code.name for code in ERRORS} == {"INTERNAL", "UNKNOWN", "DATA_LOSS"}


async def test_a_call_that_its_client_cancels_is_told_as_cancelled() -> None:
    async def script(_context: Context) -> None:
        await asyncio.Event().wait()

    probe = Probe(script)
    with told() as lines:
        async with served(probe) as running, serving.channel(running.target) as channel:
            call = open_call(channel, "UnaryUnary")
            waiting = asyncio.ensure_future(failure(call))
            await probe.reached(entered=1)
            call.cancel()
            await asyncio.wait([waiting])
            await probe.reached(left=1)
    assert [(line["code"], line["log_level"]) for line in calls(lines)] == [("CANCELLED", "info")]


async def test_what_a_client_calls_that_is_not_there_is_not_repeated() -> None:
    with told() as lines:
        async with served(Probe()) as running, serving.channel(running.target) as channel:
            await failure(open_call(channel, "UnaryUnary", method="/nobody.knows/This"))
    assert [(line["method"], line["code"]) for line in calls(lines)] == [("", "UNIMPLEMENTED")]
    assert "nobody" not in str(lines)


async def test_the_line_names_the_key_and_never_the_secret(tmp_path: Path) -> None:
    key, keys_file = new_key("team-7"), tmp_path / "keys.json"
    keys_file.write_text(json.dumps({"keys": [{"id": "team-7", "sha256": sha256_of(key), "scopes": []}]}), "utf-8")
    with told() as lines:
        async with (
            serving.serve("127.0.0.1:0", [mount(Probe())], domain=DOMAIN, security=Security(keys_file)) as running,
            serving.channel(running.target) as channel,
        ):
            await failure(open_call(channel, "UnaryUnary", metadata=[("x-api-key", key)]))
            await failure(open_call(channel, "UnaryUnary", metadata=[("x-api-key", f"{key}x")]))
    assert [(line["key_id"], line["code"], line["reason"]) for line in calls(lines)] == [
        ("team-7", "PERMISSION_DENIED", "SCOPE_MISSING"),
        ("", "UNAUTHENTICATED", "BAD_CREDENTIALS"),
    ]
    assert key not in str(lines)


async def test_probes_leave_no_lines() -> None:
    with told() as lines:
        async with served(Probe()) as running, serving.channel(running.target) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
    assert lines == []


async def test_what_a_request_binds_is_on_every_line_of_it_and_on_no_other() -> None:
    async def script(_context: Context) -> None:
        bind_signal(SIGNAL, TRACE_ID)
        await asyncio.to_thread(structlog.get_logger().info, "on_a_thread")
        await asyncio.gather(asyncio.create_task(a_part_of_it()))

    async def a_part_of_it() -> None:
        structlog.get_logger().info("in_a_task")

    probe = Probe(script)
    with told() as lines:
        async with served(probe) as running, serving.channel(running.target) as channel:
            await answers(open_call(channel, "UnaryUnary", metadata=[("traceparent", PARENT)]))
            probe.script = None
            await answers(open_call(channel, "UnaryUnary"))
    *of_the_first, of_the_second = lines
    assert [line["event"] for line in of_the_first] == ["on_a_thread", "in_a_task", "call"]
    for line in of_the_first:
        names = {name: line[name] for name in ("signal_id", "deterministic_trace_id", "trace_id")}
        assert names == {"signal_id": SIGNAL, "deterministic_trace_id": TRACE_ID, "trace_id": TRACE}
    assert not {"signal_id", "deterministic_trace_id", "trace_id"} & of_the_second.keys()


async def test_a_name_that_is_not_well_formed_is_not_told() -> None:
    async def script(_context: Context) -> None:
        bind_signal("OMEN-" + "A" * 100_000, "not hexadecimal!", "00-1-2-01")

    with told() as lines:
        async with served(Probe(script)) as running, serving.channel(running.target) as channel:
            await answers(open_call(channel, "UnaryUnary"))
    [line] = calls(lines)
    assert not {"signal_id", "deterministic_trace_id", "trace_id"} & line.keys()


async def test_a_call_that_is_not_let_in_is_told_with_its_trace(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text('{"keys": []}', "utf-8")
    security = Security(tmp_path / "keys.json")
    with told() as lines:
        async with (
            serving.serve("127.0.0.1:0", [mount(Probe())], domain=DOMAIN, security=security) as running,
            serving.channel(running.target) as channel,
        ):
            found = await failure(open_call(channel, "UnaryUnary", metadata=[("traceparent", PARENT)]))
    assert found.code is grpc.StatusCode.UNAUTHENTICATED
    assert [line["trace_id"] for line in calls(lines)] == [TRACE]
