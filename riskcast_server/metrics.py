"""Every metric of RiskCast beside those of its calls: its name, what its labels may be. docs/metrics.md tells more.

Labels have few values, all of them known here: never a signal, a ledger, a peer, or a text that somebody sent.
"""

import asyncio
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from contract.errors import ContractError, Reason
from contract.limits import PAGE_SIZE_MAX
from contract.versions import CONTRACT_VERSION, SCHEMA_VERSION
from riskcast.v1 import reconcile_service_pb2 as pb
from riskcast.v1.ingest_service_pb2 import RecordOutcome, RecordResult
from riskcast.v1.signal_service_pb2 import (
    ARRIVAL_PATH_DELIVERY,
    ARRIVAL_PATH_INGEST,
    ARRIVAL_PATH_REPLAY,
)
from riskcast_server.settlement import Entry, Outcome, Verdict
from riskcast_server.store import Runs, StatesQuery
from serving.telemetry.call_meters import call_meters
from serving.telemetry.registry import registry_of

PATHS = {ARRIVAL_PATH_INGEST: "ingest", ARRIVAL_PATH_DELIVERY: "delivery", ARRIVAL_PATH_REPLAY: "replay"}
OUTCOMES = {
    RecordOutcome.RECORD_OUTCOME_STORED: "stored",
    RecordOutcome.RECORD_OUTCOME_DUPLICATE: "duplicate",
    RecordOutcome.RECORD_OUTCOME_CONFLICT: "conflict",
    RecordOutcome.RECORD_OUTCOME_REJECTED: "rejected",
}
# Why the door takes nothing of a call or a message; others are possible and rare.
REFUSALS = (
    Reason.INVALID_SIGNAL,
    Reason.SIGNAL_ID_MISMATCH,
    Reason.SCHEMA_VERSION_UNSUPPORTED,
    Reason.QUEUE_FULL,
    Reason.STORE_UNAVAILABLE,
)
COMMIT_RECORDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)  # the largest batch
# From one row on flash to a store that is locked for as long as a verb waits.
COMMIT_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
RUN_SECONDS = (0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)  # from nothing missing to a whole ledger

# What a partition is once it was compared. A status that a newer program wrote is in no count.
COMPARED = {
    pb.RECONCILE_STATUS_COMPLETED: "COMPLETED",
    pb.RECONCILE_STATUS_PARTIAL: "PARTIAL",
    pb.RECONCILE_STATUS_FAILED: "FAILED",
}
SKIPPED, DRY_RUN, CUT = "SKIPPED", "DRY_RUN", "CUT"

# Other RiskCasts of the same store reconcile too: this is how late their runs are seen here.
STATES_S = 60.0


class RiskcastMetrics:
    """One registry, and what each part of the server counts in it."""

    def __init__(self) -> None:
        versions = {"version": version("omen-riskcast"), "contract": CONTRACT_VERSION, "schema": SCHEMA_VERSION}
        self.registry = registry_of("riskcast", versions)
        self.calls_made = call_meters("client", self.registry)
        self.ingest = IngestMetrics(self.registry)
        self.reconcile = ReconcileMetrics(self.registry)


class IngestMetrics:
    """What comes through the door, and what the store makes of it."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        records = Counter(
            "riskcast_ingest_records_total",
            "Records whose outcome was committed, by how they came.",
            ["path", "outcome"],
            registry=registry,
        )
        self._records = {
            (path, verdict): records.labels(name, verdict) for path, name in PATHS.items() for verdict in Verdict
        }
        self._refused = Counter(
            "riskcast_ingest_refused_total",
            "Calls and messages of which nothing was queued, by reason.",
            ["reason"],
            registry=registry,
        )
        for reason in REFUSALS:
            self._refused.labels(reason)
        self._seconds = Histogram(
            "riskcast_commit_seconds", "Seconds of each commit.", buckets=COMMIT_SECONDS, registry=registry
        )
        self._commit_records = Histogram(
            "riskcast_commit_records",
            "Records that were committed together.",
            buckets=COMMIT_RECORDS,
            registry=registry,
        )
        self._failures = Counter(
            "riskcast_commit_failures_total", "Commits whose outcome is unknown.", registry=registry
        )

    def refused(self, reason: Reason) -> None:
        self._refused.labels(reason).inc()

    def committed(self, entries: Sequence[Entry], outcomes: Sequence[Outcome], seconds: float) -> None:
        counts = Tally((entry.path, outcome.verdict) for entry, outcome in zip(entries, outcomes, strict=True))
        for key, count in counts.items():
            self._records[key].inc(count)
        self._seconds.observe(seconds)
        self._commit_records.observe(len(entries))

    def not_committed(self) -> None:
        self._failures.inc()


class ReconcileMetrics:
    """What runs here come to, and how all that was ever compared stands."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._runs = Counter(
            "riskcast_reconcile_runs_total", "Runs that ended here, by status.", ["status"], registry=registry
        )
        for status in (*COMPARED.values(), SKIPPED, DRY_RUN, CUT):
            self._runs.labels(status)
        self._seconds = Histogram(
            "riskcast_reconcile_run_seconds",
            "Seconds of each run that came to its end.",
            buckets=RUN_SECONDS,
            registry=registry,
        )
        self._replayed = Counter(
            "riskcast_reconcile_replayed_records_total",
            "Records that were missing and fetched, by outcome.",
            ["outcome"],
            registry=registry,
        )
        for outcome in OUTCOMES.values():
            self._replayed.labels(outcome)
        self.lease_lost = Counter(
            "riskcast_reconcile_leases_lost_total",
            "Leases that had run out when they were to be renewed.",
            registry=registry,
        ).inc
        self._readable = Gauge(
            "riskcast_store_readable",
            "0 after a reading of the states that failed, until one succeeds.",
            registry=registry,
        )
        self._readable.set(1)  # opening it has read
        self.states = States()
        self.changed = asyncio.Event()
        if registry:
            registry.register(StatesTold(lambda: self.states))

    def run(self, *, is_dry: bool) -> "RunMeter":
        return RunMeter(self, is_dry)

    def replayed(self, results: Sequence[RecordResult]) -> None:
        for outcome, count in Tally(result.outcome for result in results).items():
            self._replayed.labels(OUTCOMES[outcome]).inc(count)

    def ended(self, status: str) -> None:
        self._runs.labels(status).inc()
        self.changed.set()

    def took(self, seconds: float) -> None:
        self._seconds.observe(seconds)

    async def follow(self, runs: Runs) -> None:
        """Reads the last states now, after each run here, and every minute. Until cancelled."""
        while True:
            self.changed.clear()
            try:
                self.states = States.of(await all_states(runs))
                self._readable.set(1)
            except ContractError:  # logged by the store
                self._readable.set(0)
            with suppress(TimeoutError):
                async with asyncio.timeout(STATES_S):
                    await self.changed.wait()


class RunMeter:
    """Around the comparing of a run: one that leaves it by an error, or by a client that left, was cut."""

    def __init__(self, metrics: ReconcileMetrics, is_dry: bool) -> None:
        self._metrics = metrics
        self._is_dry = is_dry
        self._began_s = 0.0

    async def __aenter__(self) -> Self:
        self._began_s = time.perf_counter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._metrics.ended(CUT)

    def finished(self, status: pb.ReconcileStatus.ValueType) -> None:
        self._metrics.took(time.perf_counter() - self._began_s)
        self._metrics.ended(DRY_RUN if self._is_dry else COMPARED.get(status, SKIPPED))


@dataclass(frozen=True, slots=True)
class States:
    """The last states of all partitions, over all ledgers and all RiskCasts of the store. Seconds since the epoch."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COMPARED.values(), 0))
    failed_records: int = 0
    extra_records: int = 0
    oldest_s: float | None = None  # of the last times that each ledger was compared
    newest_s: float | None = None

    @classmethod
    def of(cls, states: Sequence[pb.ReconcileState]) -> Self:
        counts = Tally(state.status for state in states)
        by_ledger: dict[str, float] = {}
        for state in states:
            at = state.finished_at.ToMicroseconds() / 1e6
            by_ledger[state.ledger_id] = max(at, by_ledger.get(state.ledger_id, 0.0))
        return cls(
            {name: counts[status] for status, name in COMPARED.items()},
            sum(state.failed_record_count for state in states),
            sum(state.extra_record_count for state in states),
            min(by_ledger.values(), default=None),
            max(by_ledger.values(), default=None),
        )


class StatesTold(Collector):
    """The states as they were read last. Collected on the thread of a scrape."""

    def __init__(self, states: Callable[[], States]) -> None:
        self._states = states

    def collect(self) -> Iterator[GaugeMetricFamily]:
        states = self._states()
        by_status = GaugeMetricFamily(
            "riskcast_reconcile_partitions", "Partitions, by the status of their last comparison.", labels=["status"]
        )
        for status, count in states.counts.items():
            by_status.add_metric([status], count)
        yield by_status
        for name, help, value in (
            ("failed_records", "Records that no comparison can heal, as of the last one.", states.failed_records),
            ("extra_records", "Records stored here that their ledger lacks, as of the last one.", states.extra_records),
            ("oldest_timestamp_seconds", "The last comparison of the ledger that waits longest.", states.oldest_s),
            ("newest_timestamp_seconds", "The last comparison of any ledger.", states.newest_s),
        ):
            yield GaugeMetricFamily(f"riskcast_reconcile_{name}", help, value=value)


class Committing(Protocol):
    """What waits for its commit, and whether the store has refused the last one."""

    queued_records: int
    queued_bytes: int
    refused: asyncio.Event


class DoorState(Collector):
    """What waits at the door, and the size of the store's file. Collected on the thread of a scrape."""

    def __init__(self, committer: Committing, other_content_count: Callable[[], int], maybe_file: Path | None) -> None:
        self._committer = committer
        self._other_content_count = other_content_count
        self._maybe_file = maybe_file

    def collect(self) -> Iterator[Metric]:
        committer = self._committer
        yield GaugeMetricFamily("riskcast_queue_records", "Records that wait.", value=committer.queued_records)
        yield GaugeMetricFamily("riskcast_queue_bytes", "Bytes of events that wait.", value=committer.queued_bytes)
        yield GaugeMetricFamily(
            "riskcast_store_writable",
            "0 from a commit that failed until one goes through.",
            value=int(not committer.refused.is_set()),
        )
        yield CounterMetricFamily(
            "riskcast_ingest_other_content",
            "Repeats that say something else than what is stored.",
            value=self._other_content_count(),
        )
        family = GaugeMetricFamily("riskcast_store_file_bytes", "Size of a SQLite store.", labels=["file"])
        for name, suffix in (("database", ""), ("log", "-wal")):
            size = maybe_size(self._maybe_file, suffix)
            if size is not None:
                family.add_metric([name], size)
        yield family


def maybe_size(maybe_file: Path | None, suffix: str) -> int | None:
    if maybe_file is None:
        return None
    try:
        return maybe_file.with_name(maybe_file.name + suffix).stat().st_size
    except OSError:
        return None


async def all_states(runs: Runs) -> list[pb.ReconcileState]:
    """The last one of each partition."""
    kept = page = await runs.states(StatesQuery(), None, PAGE_SIZE_MAX)
    while len(page) == PAGE_SIZE_MAX:
        page = await runs.states(StatesQuery(), page[-1].key, PAGE_SIZE_MAX)
        kept += page
    return [each.state for each in kept]
