"""Holding leases while something is done: taken before, renewed beside it, released after it."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress

import structlog

from contract.errors import ContractError, Reason
from riskcast_server.store import Lease, Runs

log = structlog.get_logger(__name__)

LEASE_S = 30.0  # how long a ledger stays occupied by a RiskCast that was killed
RENEW_S = LEASE_S / 3  # two renewals may fail


@asynccontextmanager
async def held(runs: Runs, names: Collection[str], holder: str) -> AsyncIterator[dict[str, Lease]]:
    """The leases by name. Raises ContractError RECONCILE_RUNNING when somebody else holds one.

    One that is lost meanwhile shows when it is used: the store refuses it.
    """
    leases: dict[str, Lease] = {}
    renewing = asyncio.create_task(_renew(runs, leases))
    try:
        for name in sorted(names):
            lease = await runs.lease(name, holder, LEASE_S)
            if lease.holder != holder:
                metadata = {"run_id": lease.holder}
                raise ContractError(Reason.RECONCILE_RUNNING, "a run of this ledger is on", metadata=metadata)
            leases[name] = lease
        yield leases
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
        for lease in leases.values():
            with suppress(ContractError):  # it runs out by itself
                await runs.release(lease)


async def _renew(runs: Runs, leases: dict[str, Lease]) -> None:
    while True:
        await asyncio.sleep(RENEW_S)
        for lease in list(leases.values()):
            try:
                if not await runs.renew(lease, LEASE_S):
                    log.warning("lease_lost", name=lease.name)
            except ContractError as error:  # the next renewal may come in time
                log.warning("lease_not_renewed", name=lease.name, reason=error.reason)
