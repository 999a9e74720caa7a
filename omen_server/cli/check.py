"""`omen check`: whether this OMEN could serve, and what speaks against it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import grpc
import typer

from contract.errors import ErrorDetails, Reason
from contract.scopes import Scope
from ledger import Disk, LedgerError, LedgerSettings
from ledger.files.layout import maybe_ledger_id
from omen.v1.signal_service_pb2 import DESCRIPTOR
from omen_server.delivery_file import DELIVERY_FILE, DeliveryFileUnreadable
from omen_server.pause import kept_pause
from omen_server.settings import OmenSettings
from riskcast.v1.ingest_service_pb2 import IngestRequest
from riskcast.v1.ingest_service_pb2_grpc import IngestServiceStub
from riskcast.v1.reconcile_service_pb2 import ListReconcileStatesRequest
from riskcast.v1.reconcile_service_pb2_grpc import ReconcileServiceStub
from serving.checking.checks import (
    CALL_TIMEOUT_S,
    Check,
    Seen,
    check_directory,
    check_keys,
    check_listen,
    check_peer,
    check_space,
    check_tls,
    check_traces,
    checked,
    run_checks,
)
from serving.checking.occupancy import check_addresses
from serving.console import Output

SERVICE = DESCRIPTOR.services_by_name["SignalService"].full_name
WITHOUT_RISKCAST = "OMEN serves all the same, and delivers once it can"

Format = Annotated[Output, typer.Option("--output", "-o", help="How to write the data.")]


def check(output: Format = Output.TABLE) -> None:
    """Look at settings, disk, keys, certificates and RiskCast. Exit code 1 when a check fails.

    Works beside a server and without one, and changes nothing that is stored. It writes a file without a name to the
    disk of the ledger, and sends RiskCast an event without anything in it, which is refused.

    OMEN serves without RiskCast too: exit code 1 then says that nothing is delivered. A key that may
    deliver and not read stats there is a warning: nothing can be pruned with it.
    """
    run_checks(OmenSettings, checks_of, output)


async def checks_of(settings: OmenSettings) -> AsyncIterator[Check]:
    now, security = datetime.now(UTC), settings.security()
    yield check_listen(settings.listen, security)
    for check in await check_addresses(settings, settings.listen, SERVICE):
        yield check
    yield await asyncio.to_thread(check_directory, "disk", settings.ledger_dir)
    yield checked("ledger", partial(ledger_of, settings.ledger_dir))
    yield checked("delivery", partial(delivery_of, settings.ledger_dir))
    yield check_space("free space", settings.ledger_dir, LedgerSettings().free_bytes_min)
    yield check_keys(settings.api_keys_file, now)
    yield check_tls(security.tls, now)
    yield check_traces(settings.traces_endpoint, "omen")
    yield await check_peer("RiskCast", settings.riskcast_target, settings.riskcast_security(), _asked, WITHOUT_RISKCAST)


def ledger_of(directory: Path) -> Seen:
    """Raises ValueError, OSError."""
    try:
        maybe_id = maybe_ledger_id(Disk(), directory) if directory.is_dir() else None
    except LedgerError as error:
        raise ValueError(str(error)) from error
    return maybe_id or "yet to be made", ()


def delivery_of(directory: Path) -> Seen:
    """Raises ValueError, OSError."""
    try:
        pause = kept_pause(directory / DELIVERY_FILE)
    except DeliveryFileUnreadable as error:
        raise ValueError(str(error)) from error
    return f"paused since {pause.paused_at:%Y-%m-%d %H:%M} UTC" if pause else "not paused", ()


async def _asked(channel: grpc.aio.Channel) -> Seen:
    await _may_deliver(channel)
    flaws = [flaw] if (flaw := await _maybe_hinders_pruning(channel)) else []
    return "ready, and lets this OMEN deliver", flaws


async def _maybe_hinders_pruning(channel: grpc.aio.Channel) -> str:
    """Why RiskCast would not tell this OMEN what it has reconciled; "" when it would."""
    try:
        request = ListReconcileStatesRequest(page_size=1)
        await ReconcileServiceStub(channel).ListReconcileStates(request, timeout=CALL_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.PERMISSION_DENIED:
            raise
        return f"its key lacks the scope {Scope.STATS_READ}, so that nothing can be pruned"
    return ""


async def _may_deliver(channel: grpc.aio.Channel) -> None:
    """An event without anything in it is refused as such, once the key is found good; nothing is stored."""
    try:
        await IngestServiceStub(channel).Ingest(IngestRequest(), timeout=CALL_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        details = ErrorDetails.from_trailing_metadata(error.trailing_metadata())
        if details is None or details.reason != Reason.INVALID_SIGNAL:
            raise
