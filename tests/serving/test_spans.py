"""Spans of calls, as a collector gets them; and what a collector that is away costs."""

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry import trace
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

import serving
from contract.errors import ContractError, Reason
from serving.settings import SettingsRefused
from serving.telemetry.collector import full, recorded
from serving.telemetry.names import bind_signal
from serving.telemetry.spans import FLUSH_S
from serving.telemetry.traces import TraceParent, current_traceparent, maybe_parent
from tests.serving.child import child
from tests.serving.collector import attributes, collector
from tests.serving.probe import DOMAIN, SERVICE, Context, Probe, Script, answers, failure, mount, open_call
from tests.system.forked import LOADED
from tests.system.processes import run

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
UNARY = f"{SERVICE.full_name}/UnaryUnary"
EXPORT_S = 10.0  # what an export may take: whoever waits for one waits for that


@asynccontextmanager
async def traced(script: Script | None, endpoint: str) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server whose spans go to a collector; leaving the block sends what is left."""
    async with (
        recorded(endpoint, "omen") as spans,
        serving.serve("127.0.0.1:0", [mount(Probe(script))], domain=DOMAIN, maybe_spans=spans) as running,
        serving.channel(running.target) as channel,
    ):
        yield channel


async def test_a_call_is_one_span_of_its_callers_trace_and_says_what_its_line_says() -> None:
    seen = []

    async def script(_context: Context) -> None:
        bind_signal("OMEN-886183D04566", "886183d04566fffd")
        seen.append(current_traceparent())

    with collector() as kept:
        async with traced(script, kept.endpoint) as channel:
            await answers(open_call(channel, "UnaryUnary", "a payload", metadata=[("traceparent", PARENT)]))
    [span] = kept.spans("omen")
    assert kept.paths == {"/v1/traces"}
    assert (span.name, span.kind) == (UNARY, Span.SPAN_KIND_SERVER)
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, SPAN)
    assert (span.status.code, list(span.links), list(span.events)) == (Status.STATUS_CODE_UNSET, [], [])
    assert attributes(span) == {
        "rpc.system": "grpc",
        "rpc.service": SERVICE.full_name,
        "rpc.method": "UnaryUnary",
        "rpc.grpc.status_code": 0,
        "signal_id": "OMEN-886183D04566",
        "deterministic_trace_id": "886183d04566fffd",
    }
    assert seen == [f"00-{TRACE}-{span.span_id.hex()}-01"]
    assert b"a payload" not in b"".join(kept.bodies)


async def test_a_call_without_a_trace_begins_one_and_a_trace_that_is_not_sampled_is_not_sent() -> None:
    seen: list[TraceParent | None] = []

    async def script(_context: Context) -> None:
        seen.append(maybe_parent(current_traceparent()))

    with collector() as kept:
        async with traced(script, kept.endpoint) as channel:
            await answers(open_call(channel, "UnaryUnary"))
            await answers(open_call(channel, "UnaryUnary", metadata=[("traceparent", f"00-{TRACE}-{SPAN}-00")]))
    [span] = kept.spans("omen")
    first, second = seen
    assert first
    assert second
    assert (span.trace_id.hex(), span.parent_span_id) == (first.trace_id, b"")
    assert (second.trace_id, second.flags) == (TRACE, "00")


@pytest.mark.parametrize(
    ("ending", "code", "status"),
    [
        (ContractError(Reason.DUPLICATE_SIGNAL, "again"), grpc.StatusCode.ALREADY_EXISTS, Status.STATUS_CODE_UNSET),
        (ContractError(Reason.INVALID_SIGNAL, "bad"), grpc.StatusCode.INVALID_ARGUMENT, Status.STATUS_CODE_UNSET),
        (ContractError(Reason.STORE_UNAVAILABLE, "away"), grpc.StatusCode.UNAVAILABLE, Status.STATUS_CODE_ERROR),
        (KeyError("a secret"), grpc.StatusCode.INTERNAL, Status.STATUS_CODE_ERROR),
        (None, grpc.StatusCode.CANCELLED, Status.STATUS_CODE_UNSET),
    ],
)
async def test_a_duplicate_and_a_client_that_left_are_no_errors(
    ending: Exception | None, code: grpc.StatusCode, status: int
) -> None:
    entered = asyncio.Event()

    async def script(_context: Context) -> None:
        entered.set()
        if ending is None:
            await asyncio.Event().wait()
        else:
            raise ending

    with collector() as kept:
        async with traced(script, kept.endpoint) as channel:
            call = open_call(channel, "UnaryUnary")
            waiting = asyncio.ensure_future(failure(call))
            await entered.wait()
            if ending is None:
                call.cancel()
            await asyncio.wait([waiting])
    [span] = kept.spans("omen")
    assert (attributes(span)["rpc.grpc.status_code"], span.status.code) == (code.value[0], status)
    assert b"a secret" not in b"".join(kept.bodies)


async def test_probes_and_names_that_clients_make_up_are_in_no_span() -> None:
    with collector() as kept:
        async with traced(None, kept.endpoint) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
            await failure(open_call(channel, "UnaryUnary", method="/nobody.knows/This"))
    [span] = kept.spans("omen")
    assert (span.name, attributes(span)["rpc.method"]) == ("unknown", "unknown")
    assert b"nobody" not in b"".join(kept.bodies)


async def test_nothing_of_opentelemetry_is_global() -> None:
    with collector() as kept:
        async with traced(None, kept.endpoint) as channel:
            await answers(open_call(channel, "UnaryUnary"))
            assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


@pytest.mark.parametrize("answers_the_door", [True, False], ids=["it accepts and says nothing", "nobody listens"])
async def test_a_collector_that_is_away_delays_no_call_and_the_stop_by_less_than_a_second(
    answers_the_door: bool,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        if not answers_the_door:
            silent.shutdown(socket.SHUT_RDWR)
        began = 0.0
        async with traced(None, f"http://127.0.0.1:{silent.getsockname()[1]}") as channel:
            started = time.monotonic()
            await asyncio.gather(
                *(answers(open_call(channel, "UnaryUnary")) for _ in range(600))
            )  # more than one export
            assert time.monotonic() - started < EXPORT_S
            began = time.monotonic()
        assert time.monotonic() - began < EXPORT_S / 2
    assert FLUSH_S < 1.0


def test_without_a_collector_nothing_of_opentelemetry_is_loaded() -> None:
    modules = ", ".join(["omen_server.app", "riskcast_server.app", *LOADED])
    with child(f"import {modules}\nprint([name for name in sys.modules if 'opentelemetry' in name])") as process:
        out, err = process.communicate(timeout=20)
    assert (out, err) == ("[]\n", "")


@pytest.mark.parametrize(("module", "prefix"), [("omen_server", "OMEN"), ("riskcast_server", "RISKCAST")])
def test_without_the_extra_a_server_with_a_collector_says_in_one_line_what_to_install(
    module: str, prefix: str, tmp_path: Path
) -> None:
    settings = {
        f"{prefix}_TRACES_ENDPOINT": "http://127.0.0.1:4318",
        f"{prefix}_LISTEN": "127.0.0.1:0",
        "OMEN_LEDGER_DIR": str(tmp_path / "ledger"),
        "RISKCAST_DATABASE_URL": f"sqlite:///{tmp_path}/db",
    }
    without_it = "import sys; sys.modules['opentelemetry'] = None; sys.argv = ['x', 'serve']"
    ended = run(sys.executable, "-c", f"{without_it}; from {module}.cli import main; main()", **settings)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"{prefix}_TRACES_ENDPOINT needs OpenTelemetry: pip install 'omen-riskcast[traces]'\n"
    assert not (tmp_path / "ledger").exists()


@pytest.mark.parametrize(
    ("told", "used"),
    [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("https://collector.example/", "https://collector.example/v1/traces"),
        ("http://collector.example:4318/otlp/v1/traces", "http://collector.example:4318/otlp/v1/traces"),
    ],
)
def test_an_endpoint_without_a_path_means_the_usual_one(told: str, used: str) -> None:
    assert full(told, "OMEN_TRACES_ENDPOINT") == used


@pytest.mark.parametrize(
    "told",
    [
        "127.0.0.1:4318",
        "",
        "grpc://127.0.0.1:4317",
        "http://",
        "http://user:hunter2@host:4318",
        "http://host/v1/traces?key=hunter2",
        "http://host:99999",
    ],
)
def test_an_endpoint_that_cannot_be_used_is_refused_without_its_value(told: str) -> None:
    with pytest.raises(SettingsRefused, match=r"^OMEN_TRACES_ENDPOINT: expected ") as refused:
        full(told, "OMEN_TRACES_ENDPOINT")
    assert "hunter2" not in str(refused.value)
