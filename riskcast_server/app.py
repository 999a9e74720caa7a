"""RiskCast put together: the store is opened, the committer runs, calls are served."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random

import structlog

import serving
from riskcast.v1 import ingest_service_pb2 as ingest_pb
from riskcast.v1 import ingest_service_pb2_grpc as ingest_grpc
from riskcast.v1 import reconcile_service_pb2 as reconcile_pb
from riskcast.v1 import reconcile_service_pb2_grpc as reconcile_grpc
from riskcast.v1 import signal_service_pb2 as signal_pb
from riskcast.v1 import signal_service_pb2_grpc as signal_grpc
from riskcast_server.committer import committing
from riskcast_server.ingest import Door, utc_now
from riskcast_server.ledger_client import LedgerClient
from riskcast_server.metrics import DoorState, RiskcastMetrics
from riskcast_server.pace import Pace
from riskcast_server.readiness import keep_ready
from riskcast_server.reconcile import Reconciler
from riskcast_server.schedule import keep_schedule
from riskcast_server.services.ingest import IngestService
from riskcast_server.services.reconcile import ReconcileService
from riskcast_server.services.signals import SignalService
from riskcast_server.settings import RiskcastSettings
from riskcast_server.store import Store, maybe_file_of, open_store
from serving import Mount
from serving.dialled import refuse_unusable
from serving.tasks import beside, first_of
from serving.telemetry.call_meters import CallMeters
from serving.telemetry.collector import recorded

DOMAIN = "riskcast.v1"

log = structlog.get_logger(__name__)


async def serve(settings: RiskcastSettings, stop: asyncio.Event, on_ready: Callable[[int], None]) -> None:
    """Serves until `stop` is set, then drains: calls first, then the committer, then the store.

    `on_ready` is given the bound port. Raises ListenError, SecurityRefused, StoreRefused, and whatever ended the
    committer.
    """
    metrics = RiskcastMetrics()
    async with (
        serving.exposed(metrics.registry, settings.metrics_listen),
        recorded(settings.traces_endpoint, "riskcast") as maybe_spans,
        ledgers(settings, metrics.calls_made) as omens,
        open_store(settings.database_url, statements_cached=settings.database_statements_cached) as store,
        committing(store, utc_now, metrics.ingest) as committer,
    ):
        door = Door(committer, utc_now, maybe_spans, metrics.ingest)
        pace = Pace(settings.reconcile_max_records_per_second)
        reconciler = Reconciler(store, door, omens, utc_now, pace, metrics.reconcile)
        database = maybe_file_of(settings.database_url)
        metrics.registry.register(DoorState(committer, lambda: door.other_content_count, database))
        async with (
            beside(
                keep_schedule(reconciler, store.runs, settings.reconcile_interval, Random()),
                metrics.reconcile.follow(store.runs),
            ),
            serving.serve(
                settings.listen,
                mounts(store, door, reconciler),
                domain=DOMAIN,
                security=settings.security(),
                registry=metrics.registry,
                maybe_spans=maybe_spans,
            ) as running,
        ):
            running.set_ready()
            log.info("serving", port=running.port)
            on_ready(running.port)
            await first_of(stop.wait(), committer.ended.wait(), keep_ready(running, committer, store.runs))
            log.info("draining")


@asynccontextmanager
async def ledgers(settings: RiskcastSettings, calls_made: CallMeters) -> AsyncIterator[list[LedgerClient]]:
    """A channel to each; it connects when first used. Raises SecurityRefused."""
    security = settings.omen_security()
    refuse_unusable(security)  # without an OMEN too: what is set is wanted
    async with AsyncExitStack() as stack:
        channels = [serving.channel(each, security, calls_made) for each in settings.omen_targets]
        yield [
            LedgerClient(target, await stack.enter_async_context(channel))
            for target, channel in zip(settings.omen_targets, channels, strict=True)
        ]


def mounts(store: Store, door: Door, reconciler: Reconciler) -> list[Mount]:
    """Every service of riskcast.v1 and what serves it."""
    ingest = IngestService(door, store)
    signals = SignalService(store)
    reconcile = ReconcileService(reconciler, store.runs)
    return [
        serving.mount(ingest_pb, "IngestService", ingest_grpc.add_IngestServiceServicer_to_server, ingest),
        serving.mount(signal_pb, "SignalService", signal_grpc.add_SignalServiceServicer_to_server, signals),
        serving.mount(
            reconcile_pb, "ReconcileService", reconcile_grpc.add_ReconcileServiceServicer_to_server, reconcile
        ),
    ]
