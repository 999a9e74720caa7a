"""Every metric of OMEN beside those of its calls: its name, and what its labels may be. docs/metrics.md tells more.

Labels have few values, all of them known here: never a signal, a partition, a peer, or a text that somebody sent.
"""

import collections
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from contract.errors import Reason
from contract.versions import CONTRACT_VERSION, SCHEMA_VERSION
from ledger import Disk, LedgerIndex, LedgerReader, PartitionInfo, SegmentState
from ledger.format import FORMAT_VERSION
from omen.v1.delivery_service_pb2 import BreakerState, DeliveryPhase
from omen_server.domain import RULESET_VERSION
from riskcast.v1 import ingest_service_pb2 as ingest_pb
from serving.telemetry.call_meters import GO_CODES, call_meters
from serving.telemetry.registry import MaybeGauge, registry_of

DURABLE = "durable"
# What may become of an append instead.
REFUSALS = (
    Reason.QUEUE_FULL,
    Reason.PARTITION_CLOSED,
    Reason.LEDGER_FULL,
    Reason.LEDGER_UNAVAILABLE,
    Reason.SHUTTING_DOWN,
)
BATCH_RECORDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16_384)  # up to what the queue holds
# From flash that lies to a disk that is about to fail.
FSYNC_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

OUTCOMES = {
    ingest_pb.RECORD_OUTCOME_STORED: "stored",
    ingest_pb.RECORD_OUTCOME_DUPLICATE: "duplicate",
    ingest_pb.RECORD_OUTCOME_CONFLICT: "conflict",
    ingest_pb.RECORD_OUTCOME_REJECTED: "rejected",
}
# Why a stream ended: a status as Go spells it, or one of these.
PROTOCOL = "protocol"  # RiskCast said what the contract does not allow
NO_HELLO = "no_hello"  # it did not answer the hello in time
NO_ANSWER = "no_answer"  # it did not answer a message in time
LEDGER = "ledger"  # ours could not be read, or took no conflict
CAUSES = (PROTOCOL, NO_HELLO, NO_ANSWER, LEDGER, *GO_CODES.values())

PHASES = {
    DeliveryPhase.DELIVERY_PHASE_CONNECTING: "connecting",
    DeliveryPhase.DELIVERY_PHASE_FOLLOWING: "following",
    DeliveryPhase.DELIVERY_PHASE_PAUSED: "paused",
    DeliveryPhase.DELIVERY_PHASE_HELD: "held",
}
BREAKER_STATES = {
    BreakerState.BREAKER_STATE_CLOSED: "closed",
    BreakerState.BREAKER_STATE_OPEN: "open",
    BreakerState.BREAKER_STATE_HALF_OPEN: "half_open",
}
PARTITION_STATES = ("open", "due", "sealed", "pruned", "damaged")


class OmenMetrics:
    """One registry, and what each part of the server counts in it."""

    def __init__(self) -> None:
        self.registry = registry_of("omen", versions())
        self.calls_made = call_meters("client", self.registry)
        self.ledger = LedgerMetrics(self.registry)
        self.delivery = DeliveryMetrics(self.registry)
        self.scrub = ScrubMetrics(self.registry)


class LedgerMetrics:
    """What happens to the ledger."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._appends = Counter(
            "omen_ledger_appends_total", "Appends, by what became of them.", ["outcome"], registry=registry
        )
        for reason in REFUSALS:
            self._appends.labels(reason.lower())
        self._durable = self._appends.labels(DURABLE)
        self._batch_records = Histogram(
            "omen_ledger_batch_records",
            "Records that became durable together.",
            buckets=BATCH_RECORDS,
            registry=registry,
        )
        self.fsync_seconds = Histogram(
            "omen_ledger_fsync_seconds",
            "Seconds of each fdatasync, which every append waits for.",
            buckets=FSYNC_SECONDS,
            registry=registry,
        )

    def committed(self, count: int) -> None:
        self._durable.inc(count)
        self._batch_records.observe(count)

    def refused(self, reason: Reason) -> None:
        self._appends.labels(reason.lower()).inc()


class TimedDisk(Disk):
    """A disk whose fdatasync is timed. One that fails is not: it ends the ledger."""

    def __init__(self, metrics: LedgerMetrics) -> None:
        self._observe = metrics.fsync_seconds.observe

    def fdatasync(self, fd: int) -> None:
        began = time.perf_counter()
        super().fdatasync(fd)
        self._observe(time.perf_counter() - began)


class DeliveryMetrics:
    """What delivery does, and what RiskCast answers."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        records = Counter(
            "omen_delivery_records_total", "Records that RiskCast answered for.", ["outcome"], registry=registry
        )
        self._outcomes = {outcome: records.labels(OUTCOMES[outcome]).inc for outcome in OUTCOMES}
        self.retry = Counter(
            "omen_delivery_retries_total", "Calls of RiskCast that followed a failure.", registry=registry
        ).inc
        self.opened = Counter(
            "omen_delivery_breaker_opened_total", "How often the circuit breaker opened.", registry=registry
        ).inc
        self.message = Counter(
            "omen_delivery_messages_total", "Messages of records that RiskCast answered.", registry=registry
        ).inc
        self.stream_opened = Counter(
            "omen_delivery_streams_total", "Streams to RiskCast whose hello was answered.", registry=registry
        ).inc
        self._disconnects = Counter(
            "omen_delivery_disconnects_total",
            "Attempts and streams that ended, by cause.",
            ["cause"],
            registry=registry,
        )
        for cause in (PROTOCOL, NO_HELLO, NO_ANSWER, LEDGER, "Unavailable"):
            self._disconnects.labels(cause)

    def answered(self, results: Iterable[ingest_pb.RecordResult]) -> None:
        for outcome, count in collections.Counter(result.outcome for result in results).items():
            self._outcomes[outcome](count)

    def disconnected(self, cause: str) -> None:
        """One of CAUSES."""
        self._disconnects.labels(cause).inc()


class ScrubMetrics:
    """How far the ledger has been read again."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.read_bytes = Counter(
            "omen_scrub_read_bytes_total", "Bytes of the ledger that were read again.", registry=registry
        ).inc
        self._interruptions = Counter(
            "omen_scrub_interruptions_total",
            "Partitions that could not be read when their turn came.",
            registry=registry,
        )
        self._last_round = MaybeGauge(
            "omen_scrub_last_round_timestamp_seconds", "When all of the ledger had last been read again.", registry
        )
        self._is_whole = True

    def interrupted(self) -> None:
        self._interruptions.inc()
        self._is_whole = False

    def round_done(self) -> None:
        """Of a round that left something out no time is told."""
        if self._is_whole:
            self._last_round.value = time.time()
        self._is_whole = True


class LedgerState(Collector):
    """What the ledger holds, from the memory of its writer; of the disk nothing is asked but the free space.

    Collected on the thread of a scrape. `torn_count`: found when the ledger was opened, which alone makes more.
    """

    def __init__(
        self,
        reader: LedgerReader,
        index: LedgerIndex,
        *,
        due_at: Callable[[str], int],
        free_bytes_min: int,
        torn_count: int,
    ) -> None:
        self._reader = reader
        self._index = index
        self._due_at = due_at
        self._free_bytes_min = free_bytes_min
        self._torn_count = torn_count

    def collect(self) -> Iterator[GaugeMetricFamily]:
        partitions = self._reader.partitions()
        held = [partition for partition in partitions if not partition.is_pruned]
        segments = [segment for partition in held for segment in partition.segments]
        damaged = [segment for segment in segments if segment.state is SegmentState.DAMAGED]
        lost = sum(last - first + 1 for segment in damaged for first, last in segment.damaged)
        unsound_seals = sum(partition.is_seal_damaged for partition in partitions)
        records = sum(segment.record_count for segment in segments)
        yield gauge("omen_ledger_records", "Durable records, damaged ones included.", records)
        yield gauge("omen_ledger_bytes", "Durable bytes.", sum(segment.byte_length for segment in segments))
        yield gauge("omen_ledger_segments", "Files of records.", len(segments))
        yield self._by_state(partitions)
        yield gauge("omen_ledger_highwater_sequence", "The last sequence of the newest partition.", newest(partitions))
        yield gauge("omen_ledger_damaged_records", "Durable records that cannot be read.", lost)
        yield gauge("omen_ledger_damaged_segments", "Files with bytes that cannot be read.", len(damaged))
        yield gauge("omen_ledger_damaged_seals", "SEALs that cannot be read or do not fit.", unsound_seals)
        yield gauge("omen_ledger_torn_files", "Torn tails that were kept, as of the start.", self._torn_count)
        yield gauge("omen_ledger_free_bytes", "Bytes free on the disk of the ledger.", self._maybe_free_bytes())
        yield gauge("omen_ledger_free_bytes_min", "Below so many, nothing is appended.", self._free_bytes_min)
        behind = self._index.missing_count(partitions)
        yield gauge("omen_index_behind_records", "Durable records that are not indexed yet.", behind)

    def _by_state(self, partitions: list[PartitionInfo]) -> GaugeMetricFamily:
        now = time.time() * 1e6
        counts = dict.fromkeys(PARTITION_STATES, 0)
        for partition in partitions:
            counts[state_of(partition, lambda name: self._due_at(name) <= now)] += 1
        family = GaugeMetricFamily("omen_ledger_partitions", "Partitions, each in one state.", labels=["state"])
        for state, count in counts.items():
            family.add_metric([state], count)
        return family

    def _maybe_free_bytes(self) -> int | None:
        try:
            return Disk().free_bytes(self._reader.directory)
        except OSError:
            return None


class Following(Protocol):
    """What delivery says of itself."""

    @property
    def phase(self) -> DeliveryPhase.ValueType: ...

    @property
    def backlog_record_count(self) -> int | None: ...

    @property
    def backlog_bytes(self) -> int | None: ...

    @property
    def breaker_state(self) -> "BreakerState.ValueType": ...

    def oldest_written_at(self, reader: LedgerReader) -> int | None: ...

    @property
    def last_success_at(self) -> datetime | None: ...


class DeliveryState(Collector):
    """How delivery stands. Collected on the thread of a scrape."""

    def __init__(self, delivery: Following, reader: LedgerReader, is_paused: Callable[[], bool]) -> None:
        self._delivery = delivery
        self._reader = reader
        self._is_paused = is_paused

    def collect(self) -> Iterator[GaugeMetricFamily]:
        backlog, success = self._delivery.backlog_record_count, self._delivery.last_success_at
        yield gauge("omen_delivery_backlog_records", "Durable records that RiskCast has not settled.", backlog)
        yield gauge("omen_delivery_backlog_bytes", "Their bytes in the ledger.", self._delivery.backlog_bytes)
        yield gauge(
            "omen_delivery_oldest_unsettled_age_seconds", "How long the oldest of them has waited.", self._maybe_age_s()
        )
        yield gauge(
            "omen_delivery_last_success_timestamp_seconds",
            "When RiskCast last answered for records.",
            success.astimezone(UTC).timestamp() if success else None,
        )
        yield gauge("omen_delivery_paused", "1 while delivery is paused.", int(self._is_paused()))
        family = GaugeMetricFamily("omen_delivery_phase", "1 for the phase delivery is in.", labels=["phase"])
        for phase, name in PHASES.items():
            family.add_metric([name], int(self._delivery.phase == phase))
        yield family
        family = GaugeMetricFamily("omen_delivery_breaker", "1 for the state the breaker is in.", labels=["state"])
        for state, name in BREAKER_STATES.items():
            family.add_metric([name], int(self._delivery.breaker_state == state))
        yield family

    def _maybe_age_s(self) -> float | None:
        if self._delivery.backlog_record_count == 0:
            return 0.0
        written_at = self._delivery.oldest_written_at(self._reader)
        return None if written_at is None else max(0.0, time.time() - written_at / 1e6)


class LettersState(Collector):
    """How many dead letters are in which state, as of now. Collected on the thread of a scrape."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[GaugeMetricFamily]:
        name, help = "omen_dead_letters", "Records that RiskCast rejected, each in one state."
        family = GaugeMetricFamily(name, help, labels=["state"])
        for state, count in self._counts.items():
            family.add_metric([state], count)
        yield family


def gauge(name: str, help: str, maybe_value: float | None) -> GaugeMetricFamily:
    """Without a sample when it is not known."""
    return GaugeMetricFamily(name, help, value=maybe_value)


def state_of(partition: PartitionInfo, is_due: Callable[[str], bool]) -> str:
    """The one that matters most. Due: it takes nothing more, and is not sealed yet."""
    if partition.damaged:
        return "damaged"
    if partition.is_pruned:
        return "pruned"
    if partition.is_sealed:
        return "sealed"
    return "due" if is_due(partition.name) else "open"


def newest(partitions: list[PartitionInfo]) -> int | None:
    return partitions[-1].highwater_sequence if partitions else None


def versions() -> dict[str, str]:
    return {
        "version": version("omen-riskcast"),
        "contract": CONTRACT_VERSION,
        "ledger_format": str(FORMAT_VERSION),
        "ruleset": RULESET_VERSION,
        "schema": SCHEMA_VERSION,
    }
