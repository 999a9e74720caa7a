"""`riskcast check`: whether this RiskCast could serve, and what speaks against it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from uuid import uuid4

import grpc

from contract.errors import ContractError
from omen.v1.ledger_service_pb2 import ListPartitionsRequest
from omen.v1.ledger_service_pb2_grpc import LedgerServiceStub
from riskcast.v1.ingest_service_pb2 import DESCRIPTOR
from riskcast_server.cli.connection import Shape
from riskcast_server.readiness import PROBE
from riskcast_server.settings import RiskcastSettings
from riskcast_server.store import StoreInUse, StoreRefused, StoreUnknown, maybe_file_of, open_store, schema_versions
from serving.checking.checks import (
    CALL_TIMEOUT_S,
    MIB,
    Check,
    Outcome,
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
from serving.dialled import refuse_unusable
from serving.security import ClientSecurity

# A write-ahead log grows to some 4 MiB before it is written back, a batch beside a long read to more.
FREE_BYTES_MIN = 64 * MIB
STORE_TIMEOUT_S = 5.0
# Of a SQLite file that another program has locked: a start waits two seconds for this check to end.
FILE_TIMEOUT_S = 1.0

SERVICE = DESCRIPTOR.services_by_name["IngestService"].full_name
WITHOUT_OMEN = "RiskCast serves all the same"


def check(output: Shape = Output.TABLE) -> None:
    """Look at settings, store, keys, certificates and the OMENs. Exit code 1 when a check fails.

    Works beside a server and without one, and changes nothing that is stored. It writes, though: a file without a name
    beside a SQLite store, and a lease in the store that is taken and let go. A SQLite store that a server has is left
    alone; of one that was killed its log is written back and its leases end, as at the next start.

    RiskCast serves without any OMEN too.
    """
    run_checks(RiskcastSettings, checks_of, output)


async def checks_of(settings: RiskcastSettings) -> AsyncIterator[Check]:
    now, security = datetime.now(UTC), settings.security()
    yield check_listen(settings.listen, security)
    for check in await check_addresses(settings, settings.listen, SERVICE):
        yield check
    if folder := maybe_folder(settings.database_url):
        yield await asyncio.to_thread(check_directory, "disk", folder)
        yield check_space("free space", folder, FREE_BYTES_MIN)
    yield await check_store(settings)
    yield check_keys(settings.api_keys_file, now)
    yield check_tls(security.tls, now)
    yield check_traces(settings.traces_endpoint, "riskcast")
    if not settings.omen_targets:
        yield checked("OMEN", partial(_without_omens, settings.omen_security()))
    for target in settings.omen_targets:
        yield await check_peer("OMEN", target, settings.omen_security(), _may_replay, WITHOUT_OMEN)


def maybe_folder(url: str) -> Path | None:
    """Of a SQLite store, if it is there."""
    with suppress(StoreUnknown):
        if (file := maybe_file_of(url)) and file.parent.is_dir():
            return file.absolute().parent
    return None


async def check_store(settings: RiskcastSettings) -> Check:
    """Whether the schema fits and a commit goes through, of a lease that is taken and let go."""
    try:
        maybe_file = maybe_file_of(settings.database_url)
        if told := to_come(maybe_file):
            return Check("store", Outcome.OK, told)
        store = open_store(
            settings.database_url,
            timeout_s=FILE_TIMEOUT_S if maybe_file else STORE_TIMEOUT_S,
            lock_wait_s=0,
            statements_cached=settings.database_statements_cached,
        )
        async with store as opened:
            await opened.runs.lease(PROBE, str(uuid4()), 0)
    except StoreInUse:
        return Check("store", Outcome.OK, "in use by a RiskCast: left alone")
    except (StoreRefused, ContractError) as refused:
        return Check("store", Outcome.FAILED, str(refused))
    return Check("store", Outcome.OK, "the schema fits, and a commit went through")


def to_come(maybe_file: Path | None) -> str:
    """What the next start does to a SQLite file, which is then left alone here; else "". Raises StoreRefused."""
    if maybe_file is None:
        return ""
    file = maybe_file
    if not file.parent.is_dir():
        raise StoreRefused(f"no directory {file.parent}")
    found, known = schema_versions(file)
    if found is None:
        return f"{file} is yet to be made"
    return f"{file} has schema version {found}: brought up to {known} at the next start" if found < known else ""


def _without_omens(security: ClientSecurity) -> Seen:
    """A start refuses a key or certificates that it cannot read even so. Raises SecurityRefused."""
    refuse_unusable(security)
    return "no OMEN is set: nothing is reconciled", ()


async def _may_replay(channel: grpc.aio.Channel) -> Seen:
    await LedgerServiceStub(channel).ListPartitions(ListPartitionsRequest(page_size=1), timeout=CALL_TIMEOUT_S)
    return "ready, and lets this RiskCast read its ledger", ()
