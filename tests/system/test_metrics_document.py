"""docs/metrics.md names every metric that a running pair exports, and nothing else."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import serving
from contract.reasons import Reason
from omen.v1 import (
    delivery_service_pb2,
    ledger_service_pb2,
    pipeline_service_pb2,
    signal_service_pb2,
    stats_service_pb2,
)
from omen_server.dead_letters import LetterState
from omen_server.metrics import BREAKER_STATES, CAUSES, PARTITION_STATES, PHASES, REFUSALS
from riskcast.v1 import ingest_service_pb2, reconcile_service_pb2
from riskcast.v1 import signal_service_pb2 as stored_pb
from riskcast_server.metrics import COMPARED, CUT, DRY_RUN, OUTCOMES, PATHS, SKIPPED
from serving.health import SERVICE as HEALTH
from serving.telemetry.call_meters import GO_CODES, KINDS
from tests.omen_server.running import closed_port, event, omen, riskcast
from tests.riskcast_server.running import Client
from tests.serving.scraping import Scraped, scraper
from tests.system.processes import ROOT

DOCUMENT = (ROOT / "docs" / "metrics.md").read_text("utf-8")
NAME = r"(?:omen|riskcast|grpc_(?:server|client))_[a-z_]+"
ROW = re.compile(rf"^\| `({NAME})` \| (\w+) \| ([\w, ]*) ?\|", re.MULTILINE)
OF_THE_LIBRARY = ("process_", "python_")
OF_HISTOGRAMS = ("_bucket", "_sum", "_count")

STUBS = (
    delivery_service_pb2,
    ledger_service_pb2,
    pipeline_service_pb2,
    signal_service_pb2,
    stats_service_pb2,
    ingest_service_pb2,
    reconcile_service_pb2,
    stored_pb,
)
SERVICES = [HEALTH, *(service for stub in STUBS for service in stub.DESCRIPTOR.services_by_name.values())]

# All that a label may say.
VALUES = {
    "grpc_type": {*KINDS.values()},
    "grpc_service": {*(service.full_name for service in SERVICES)},
    "grpc_method": {*(method.name for service in SERVICES for method in service.methods)},
    "grpc_code": {*GO_CODES.values()},
    "outcome": {"durable", *(reason.lower() for reason in REFUSALS), *OUTCOMES.values()},
    "path": {*PATHS.values()},
    "reason": {*Reason},
    "status": {*COMPARED.values(), SKIPPED, DRY_RUN, CUT},
    "state": {*PARTITION_STATES, *BREAKER_STATES.values(), *LetterState},
    "cause": {*CAUSES},
    "phase": {*PHASES.values()},
    "file": {"database", "log"},
}


@dataclass(frozen=True)
class Documented:
    type: str
    labels: tuple[str, ...]


def documented(*sections: str) -> dict[str, Documented]:
    """By name, in the order of their labels."""
    parts = re.split(r"^## (.+)$", DOCUMENT, flags=re.MULTILINE)
    rows = [
        row
        for title, text in zip(parts[1::2], parts[2::2], strict=True)
        if title in sections
        for row in ROW.findall(text)
    ]
    return {name: Documented(kind, tuple(filter(None, re.split(r", ", labels.strip())))) for name, kind, labels in rows}


def labels_of(scraped: Scraped, name: str, kind: str) -> set[frozenset[str]]:
    """The labels of its series, apart from the bound of a bucket."""
    names = {name + suffix for suffix in OF_HISTOGRAMS} if kind == "histogram" else {name}
    return {frozenset(each.labels) - {"le"} for each in scraped.samples if each.name in names}


@asynccontextmanager
async def traffic(directory: Path) -> AsyncIterator[tuple[Scraped, Scraped]]:
    """What both servers say after a signal went from one to the other and they were compared."""
    of_omen, of_riskcast, port = scraper(), scraper(), closed_port()
    target = f"127.0.0.1:{port}"
    async with (
        riskcast(directory / "db", omen_targets=(target,), metrics_listen=of_riskcast.listen) as store,
        omen(directory / "ledger", store.port, listen=target, metrics_listen=of_omen.listen) as server,
        serving.channel(f"127.0.0.1:{store.port}") as channel,
    ):
        await server.emit(event(1))
        await Client(channel).reconcile(include_open=True)
        compared = "riskcast_reconcile_newest_timestamp_seconds"
        after = await of_riskcast.until(lambda now: now.maybe(compared) is not None)
        yield await of_omen.scrape(), after


async def test_what_is_documented_is_exported_and_what_is_exported_is_documented(tmp_path: Path) -> None:
    async with traffic(tmp_path) as (of_omen, of_riskcast):
        for scraped, section in ((of_omen, "OMEN"), (of_riskcast, "RiskCast")):
            told = documented("Both servers", section)
            own = {name: kind for name, kind in scraped.families.items() if not name.startswith(OF_THE_LIBRARY)}
            assert own == {name: each.type for name, each in told.items()}
            for name, each in told.items():
                assert labels_of(scraped, name, each.type) == {frozenset(each.labels)}, name
            for group in OF_THE_LIBRARY:
                assert f"`{group}*`" in DOCUMENT
                assert any(name.startswith(group) for name in scraped.families)


async def test_the_calls_that_one_makes_to_the_other_are_counted_on_both_sides(tmp_path: Path) -> None:
    async with traffic(tmp_path) as (of_omen, of_riskcast):
        for caller, called, service in (
            (of_omen, of_riskcast, "riskcast.v1.IngestService"),
            (of_riskcast, of_omen, "omen.v1.LedgerService"),
        ):
            made = caller.by("grpc_method", "grpc_client_started_total", grpc_service=service)
            assert made
            assert made == called.by("grpc_method", "grpc_server_started_total", grpc_service=service)


async def test_a_label_says_nothing_but_what_is_known_here(tmp_path: Path) -> None:
    async with traffic(tmp_path) as both:
        said = {
            (name, value)
            for scraped in both
            for each in scraped.samples
            if not each.name.startswith(OF_THE_LIBRARY) and not each.name.endswith("_build_info")
            for name, value in each.labels.items()
            if name != "le"
        }
    assert {name for name, _ in said} <= VALUES.keys()
    assert [(name, value) for name, value in said if value not in VALUES[name]] == []


def test_alerts_ask_for_metrics_that_there_are() -> None:
    alerts = DOCUMENT.partition("## What to alert on")[2].partition("\n## ")[0]
    asked = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(NAME, alerts)}
    assert len(asked) > 10
    assert asked <= documented("Both servers", "OMEN", "RiskCast").keys()


def test_reasons_to_refuse_an_append_are_all_documented() -> None:
    row = re.search(r"^\| `omen_ledger_appends_total`.*$", DOCUMENT, re.MULTILINE)
    assert row
    assert [reason for reason in REFUSALS if f"`{reason.lower()}`" not in row[0]] == []
