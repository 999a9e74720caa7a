"""Whoever has one id of a signal finds its life in the logs of both servers, and a collector shows it as a trace."""

import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import serving
from omen.v1 import delivery_service_pb2 as delivery_pb
from omen.v1 import signal_service_pb2 as pb
from omen.v1.delivery_service_pb2_grpc import DeliveryServiceStub
from omen.v1.signal_service_pb2_grpc import SignalServiceStub
from riskcast.v1 import reconcile_service_pb2 as reconcile_pb
from riskcast.v1 import signal_service_pb2 as stored_pb
from riskcast.v1.reconcile_service_pb2_grpc import ReconcileServiceStub
from riskcast.v1.signal_service_pb2_grpc import SignalServiceStub as StoredSignalsStub
from tests.omen_server.running import DELIVERED, LEDGER_ONLY, closed_port, event
from tests.serving.collector import Collector, attributes, collector
from tests.system.processes import DEADLINE_S, ROOT, Server

DOCUMENT = (ROOT / "docs" / "logs.md").read_text("utf-8")
TRACES = [f"{number:032x}" for number in range(1, 5)]
EMIT = "/omen.v1.SignalService/Emit"
GET = "/omen.v1.SignalService/GetSignal"
FETCHING = [f"/omen.v1.LedgerService/{method}" for method in ("ListPartitions", "GetPartition", "Replay")]
GET_STORED = "/riskcast.v1.SignalService/GetSignal"


def metadata(trace_id: str) -> list[tuple[str, str]]:
    return [("traceparent", f"00-{trace_id}-b7ad6b7169203331-01")]


@dataclass(frozen=True)
class Both:
    """Clients of an OMEN and of the RiskCast that it delivers to."""

    omen: Server
    riskcast: Server
    signals: Any
    delivery: Any
    stored: Any
    reconcile: Any

    async def emit(self, number: int, trace_id: str) -> pb.Emission:
        request = pb.EmitRequest(event=event(number))
        answer = await self.signals.Emit(request, metadata=metadata(trace_id), timeout=DEADLINE_S)
        emission: pb.Emission = answer.emission
        return emission


@asynccontextmanager
async def both(folder: Path, endpoint: str) -> AsyncIterator[Both]:
    """Leaving the block stops both and writes their logs into the folder."""
    riskcast = Server("riskcast_server", {"RISKCAST_DATABASE_URL": f"sqlite:///{folder}/riskcast.db"})
    omen = Server("omen_server", {"OMEN_LEDGER_DIR": str(folder / "ledger")}, port=closed_port())
    riskcast.settings |= {"RISKCAST_OMEN_TARGETS": f"127.0.0.1:{omen.port}", "RISKCAST_TRACES_ENDPOINT": endpoint}
    try:
        await riskcast.start()
        omen.settings |= {"OMEN_RISKCAST_TARGET": f"127.0.0.1:{riskcast.port}", "OMEN_TRACES_ENDPOINT": endpoint}
        await omen.start()
        async with (
            serving.channel(f"127.0.0.1:{omen.port}") as to_omen,
            serving.channel(f"127.0.0.1:{riskcast.port}") as to_riskcast,
        ):
            emitting, delivering = SignalServiceStub(to_omen), DeliveryServiceStub(to_omen)
            stored, reconciling = StoredSignalsStub(to_riskcast), ReconcileServiceStub(to_riskcast)
            yield Both(omen, riskcast, emitting, delivering, stored, reconciling)
        assert await omen.stop() == 0
        assert await riskcast.stop() == 0
    finally:
        for server in (omen, riskcast):
            if server.process:
                await server.kill()
            (folder / f"{server.module.removesuffix('_server')}.log").write_text("".join(server.log), "utf-8")


def documented(folder: Path, identifier: str) -> list[str]:
    """What the command of docs/logs.md finds; where there is no jq, the same filter."""
    script = re.search(r"^    id=OMEN-886183D04566\n    (jq .*)\n", DOCUMENT, re.MULTILINE)
    assert script
    found = filtered(folder, identifier)
    if shutil.which("jq"):
        command = ["bash", "-o", "pipefail", "-c", f"id={identifier}\n{script[1]}"]
        said = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=DEADLINE_S, check=True)
        assert [json.loads(line) for line in said.stdout.splitlines()] == [json.loads(line) for line in found]
    return found


def filtered(folder: Path, identifier: str) -> list[str]:
    lines = [line for name in ("omen.log", "riskcast.log") for line in (folder / name).read_text("utf-8").splitlines()]
    return sorted(line for line in lines if line.startswith("{") and mentions(json.loads(line), identifier))


def mentions(value: object, identifier: str) -> bool:
    if isinstance(value, dict | list):
        return any(mentions(each, identifier) for each in (value.values() if isinstance(value, dict) else value))
    return value == identifier


def life(folder: Path, identifier: str) -> list[str]:
    """What happened, in order: the method of a call, or the event."""
    lines = [json.loads(line) for line in documented(folder, identifier)]
    return [line["method"] if line["event"] == "call" else line["event"] for line in lines]


async def test_one_id_of_any_kind_finds_the_life_of_a_signal_in_both_logs(tmp_path: Path) -> None:
    with collector() as kept:
        async with both(tmp_path, kept.endpoint) as servers:
            emission = await servers.emit(1, TRACES[0])
            other = await servers.emit(2, TRACES[1])
            assert (emission.status, other.status) == (DELIVERED, DELIVERED)
            for stub, kind in ((servers.signals, pb), (servers.stored, stored_pb)):
                request = kind.GetSignalRequest(signal_id=emission.signal_id)
                await stub.GetSignal(request, metadata=metadata(TRACES[0]), timeout=DEADLINE_S)
            paused = delivery_pb.PauseDeliveryRequest(reason="so that Reconcile has something to fetch")
            await servers.delivery.PauseDelivery(paused, timeout=DEADLINE_S)
            replayed = await servers.emit(3, TRACES[2])
            assert replayed.status == LEDGER_ONLY
            request = reconcile_pb.ReconcileRequest(include_open=True)
            run = servers.reconcile.Reconcile(request, metadata=metadata(TRACES[3]), timeout=DEADLINE_S)
            assert [message.run_finished.replayed_record_count async for message in run][-1] == 1
    whole = ["records_ingested", EMIT, GET, GET_STORED]  # delivered means: stored before Emit answers
    for identifier in (emission.signal_id, emission.deterministic_trace_id, TRACES[0]):
        assert life(tmp_path, identifier) == whole
    for identifier in (replayed.signal_id, replayed.deterministic_trace_id, TRACES[2]):
        assert life(tmp_path, identifier) == [EMIT, "records_ingested"]
    reconciled = [*FETCHING, "records_ingested", "/riskcast.v1.ReconcileService/Reconcile"]
    assert sorted(life(tmp_path, TRACES[3])) == sorted(reconciled)
    statuses = [json.loads(line).get("status") for line in filtered(tmp_path, emission.signal_id)]
    assert statuses == [None, "DELIVERED", None, None]
    assert_traces_are_whole(kept)


def assert_traces_are_whole(kept: Collector) -> None:
    emits = {span.trace_id.hex(): span.span_id for span in kept.spans("omen") if span.name == EMIT.strip("/")}
    assert set(emits) == set(TRACES[:3])
    [first, _, replay] = [span for span in kept.spans("riskcast") if span.name == "records_ingested"]
    for span, trace_id, path in ((first, TRACES[0], "delivery"), (replay, TRACES[2], "replay")):
        assert [(link.trace_id.hex(), link.span_id) for link in span.links] == [(trace_id, emits[trace_id])]
        assert (attributes(span)["path"], attributes(span)["stored"]) == (path, 1)
    assert first.trace_id.hex() not in TRACES
    [run] = [span for span in kept.spans("riskcast") if span.name == "riskcast.v1.ReconcileService/Reconcile"]
    assert (run.trace_id.hex(), replay.trace_id, replay.parent_span_id) == (TRACES[3], run.trace_id, run.span_id)
    assert b"Will it close?" not in b"".join(kept.bodies)
