"""`omen check`: whether this OMEN could serve, and what speaks against it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated

import grpc
import typer

from contract.errors import ErrorDetails, Reason
from ledger import LedgerSettings
from omen_server.settings import OmenSettings
from riskcast.v1.ingest_service_pb2 import IngestRequest
from riskcast.v1.ingest_service_pb2_grpc import IngestServiceStub
from serving.checks import (
    CALL_TIMEOUT_S,
    Check,
    check_directory,
    check_keys,
    check_listen,
    check_peer,
    check_settings,
    check_space,
    check_tls,
    printed,
)
from serving.console import Exit, Output, finish, run_command

Format = Annotated[Output, typer.Option("--output", "-o", help="How to write the data.")]


def check(output: Format = Output.TABLE) -> None:
    """Look at settings, disk, keys, certificates and RiskCast. Exit code 1 when a check fails.

    Works beside a server and without one, and changes nothing. OMEN serves without RiskCast too.
    """
    is_fine = printed(run_command(_checks()), output)
    finish(Exit.OK if is_fine else Exit.UNEXPECTED)


async def _checks() -> list[Check]:
    settings, first = check_settings(OmenSettings)
    return [first, *([each async for each in checks_of(settings)] if settings else [])]


async def checks_of(settings: OmenSettings) -> AsyncIterator[Check]:
    now, security = datetime.now(UTC), settings.security()
    yield check_listen(settings.listen, security)
    yield await asyncio.to_thread(check_directory, "ledger", settings.ledger_dir)
    yield check_space("free space", settings.ledger_dir, LedgerSettings().free_bytes_min)
    yield check_keys(settings.api_keys_file, now)
    yield check_tls(security.tls, now)
    yield await check_peer("RiskCast", settings.riskcast_target, settings.riskcast_security(), _may_deliver)


async def _may_deliver(channel: grpc.aio.Channel) -> str:
    """An event without anything in it is refused as such, once the key is found good; nothing is stored."""
    try:
        await IngestServiceStub(channel).Ingest(IngestRequest(), timeout=CALL_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        details = ErrorDetails.from_trailing_metadata(error.trailing_metadata())
        if details is None or details.reason != Reason.INVALID_SIGNAL:
            raise
    return "ready, and lets this OMEN deliver"
