"""OMEN put together: the ledger is opened, RiskCast is dialled, delivery follows the ledger, calls are served."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

import serving
from omen.v1 import delivery_service_pb2 as delivery_pb
from omen.v1 import delivery_service_pb2_grpc as delivery_grpc
from omen.v1 import ledger_service_pb2 as ledger_pb
from omen.v1 import ledger_service_pb2_grpc as ledger_grpc
from omen.v1 import pipeline_service_pb2 as pipeline_pb
from omen.v1 import pipeline_service_pb2_grpc as pipeline_grpc
from omen.v1 import signal_service_pb2 as signal_pb
from omen.v1 import signal_service_pb2_grpc as signal_grpc
from omen.v1 import stats_service_pb2 as stats_pb
from omen.v1 import stats_service_pb2_grpc as stats_grpc
from omen_server.dead_letters import DeadLetters
from omen_server.delivery import Delivery
from omen_server.delivery.breaker import Breaker
from omen_server.delivery.contact import Contact
from omen_server.delivery.line import GrpcLine, Line
from omen_server.delivery.retry import RetryPolicy
from omen_server.delivery.settling import Settling
from omen_server.delivery_file import DELIVERY_FILE, open_delivery_file
from omen_server.emission import Emitter
from omen_server.intake import Intake
from omen_server.journal import Journal, open_journal
from omen_server.metrics import DeliveryMetrics, DeliveryState, LedgerState, LettersState, OmenMetrics
from omen_server.pause import PauseSwitch
from omen_server.reading.signal_index import SignalIndex, open_signal_index
from omen_server.reading.stored_signals import StoredSignals
from omen_server.reading.watching import Watching
from omen_server.recent import RecentSignals
from omen_server.services.delivery import DeliveryService
from omen_server.services.ledger import LedgerService
from omen_server.services.pipeline import PipelineService
from omen_server.services.signals import SignalService
from omen_server.services.stats import StatsService
from omen_server.settings import OmenSettings
from omen_server.upkeep.retention import Retention
from omen_server.upkeep.scrub import scrub
from omen_server.upkeep.sealing import seal_due
from omen_server.upkeep.settlement import Settlement
from omen_server.waiting import WaitingRoom
from riskcast.v1.reconcile_service_pb2_grpc import ReconcileServiceStub
from serving import Mount
from serving.tasks import beside
from serving.telemetry.collector import recorded

DOMAIN = "omen.v1"

log = structlog.get_logger(__name__)


class LedgerFailed(Exception):
    """The ledger can promise nothing more in this process."""


async def serve(settings: OmenSettings, stop: asyncio.Event, on_ready: Callable[[int], None]) -> None:
    """Serve until `stop` is set, then drain: calls first, then delivery, then the ledger.

    `on_ready` is given the bound port. Raises ListenError, SecurityRefused, LedgerError, LedgerFailed and whatever else
    ended a task that must not end.
    """
    metrics = OmenMetrics()
    async with (
        serving.exposed(metrics.registry, settings.metrics_listen),
        recorded(settings.traces_endpoint, "omen") as maybe_spans,
        serving.channel(settings.riskcast_target, settings.riskcast_security(), metrics.calls_made) as riskcast,
        open_journal(settings.ledger_dir, metrics=metrics.ledger) as journal,
        open_signal_index(settings.ledger_dir, journal) as index,
        open_delivery_file(settings.ledger_dir / DELIVERY_FILE) as delivery_file,
    ):
        pause, letters = await PauseSwitch.of(delivery_file), await DeadLetters.of(delivery_file)
        recent = RecentSignals()
        line = GrpcLine(riskcast)
        delivery = delivery_of(settings, journal, index, line, recent, pause, letters, metrics.delivery)
        await delivery.survey()
        settlement = Settlement(journal, letters, ReconcileServiceStub(riskcast), line)
        retention = Retention(journal, index, delivery, letters, settlement, now=utc_now)
        await retention.survey()
        parts = Parts(journal, index, recent, delivery, pause, letters, retention)
        await watch(metrics, parts)
        async with (
            beside(
                delivery.run(),
                seal_due(journal, utc_now),
                scrub(journal, random.Random(), metrics.scrub),
                fail_with(journal),
            ),
            serving.serve(
                settings.listen,
                mounts(parts),
                domain=DOMAIN,
                security=settings.security(),
                registry=metrics.registry,
                maybe_spans=maybe_spans,
            ) as running,
        ):
            running.set_ready()
            log.info("serving", port=running.port, ledger_id=journal.ledger_id)
            on_ready(running.port)
            await stop.wait()
            log.info("draining")
            delivery.stop_waiting("OMEN is shutting down")  # they are in the ledger, and delivered after the next start


@dataclass(frozen=True, slots=True)
class Parts:
    """What a server is made of, and its services are served from."""

    journal: Journal
    index: SignalIndex
    recent: RecentSignals
    delivery: Delivery
    pause: PauseSwitch
    letters: DeadLetters
    retention: Retention


async def watch(metrics: OmenMetrics, parts: Parts) -> None:
    """From now on a scrape sees how these stand."""
    journal, pause = parts.journal, parts.pause
    reader = await journal.read(lambda ledger: ledger.reader())
    torn_files = await asyncio.to_thread(reader.torn_files)
    ledger = LedgerState(
        reader,
        parts.index.ledger_index,
        due_at=journal.due_at,
        free_bytes_min=journal.free_bytes_min,
        torn_count=len(torn_files),
    )
    metrics.registry.register(ledger)
    metrics.registry.register(DeliveryState(parts.delivery, reader, lambda: pause.current is not None))
    metrics.registry.register(LettersState(parts.letters.counts))


def delivery_of(
    settings: OmenSettings,
    journal: Journal,
    index: SignalIndex,
    line: Line,
    recent: RecentSignals,
    pause: PauseSwitch,
    letters: DeadLetters,
    metrics: DeliveryMetrics,
) -> Delivery:
    """Its parts, put together."""
    waiting = WaitingRoom()
    contact = Contact(line, Breaker(settings.breaker_open_s), RetryPolicy(), random.Random(), metrics)
    settling = Settling(journal, waiting, recent, pause, letters, index.holds, utc_now)
    return Delivery(journal, line, contact, settling, waiting, recent, pause, letters, now=utc_now, metrics=metrics)


def mounts(parts: Parts) -> list[Mount]:
    """Every service of omen.v1 and what serves it."""
    journal, delivery, letters = parts.journal, parts.delivery, parts.letters
    emitter = Emitter(journal, parts.recent, delivery, now=utc_now)
    stored, watching = StoredSignals(journal, parts.index), Watching(journal)
    signals = SignalService(emitter, stored, watching, delivery, letters, journal.ledger_id)
    pipeline = PipelineService(Intake(emitter))
    ledger = LedgerService(journal, letters, parts.retention)
    deliveries = DeliveryService(journal, delivery, parts.pause, letters, now=utc_now)
    stats = StatsService()
    return [
        serving.mount(signal_pb, "SignalService", signal_grpc.add_SignalServiceServicer_to_server, signals),
        serving.mount(pipeline_pb, "PipelineService", pipeline_grpc.add_PipelineServiceServicer_to_server, pipeline),
        serving.mount(ledger_pb, "LedgerService", ledger_grpc.add_LedgerServiceServicer_to_server, ledger),
        serving.mount(delivery_pb, "DeliveryService", delivery_grpc.add_DeliveryServiceServicer_to_server, deliveries),
        serving.mount(stats_pb, "StatsService", stats_grpc.add_StatsServiceServicer_to_server, stats),
    ]


async def fail_with(journal: Journal) -> None:
    """Ends, by raising LedgerFailed, when the ledger has failed for good."""
    raise LedgerFailed(str(await journal.failure()))


def utc_now() -> datetime:
    return datetime.now(UTC)
