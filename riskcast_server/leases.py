"""Holding leases while something is done: taken before, renewed beside it, released after it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress

import structlog

from contract.errors import ContractError, Reason
from riskcast_server.store import Lease, Runs

log = structlog.get_logger(__name__)

LEASE_S = 30.0  # how long a ledger stays occupied by a RiskCast that was killed
RENEW_S = LEASE_S / 3  # two renewals may fail
STALLED_S = 60.0  # a client that has not read for so long may never


class Holding:
    """Leases by name, renewed for as long as whoever holds them goes on."""

    def __init__(self) -> None:
        self.leases: dict[str, Lease] = {}
        self._waiting_since: float | None = None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While the block runs, somebody else has to go on: the client, by reading."""
        self._waiting_since = asyncio.get_running_loop().time()
        try:
            yield
        finally:
            self._waiting_since = None

    @property
    def is_stalled(self) -> bool:
        since = self._waiting_since
        return since is not None and asyncio.get_running_loop().time() - since > STALLED_S


@asynccontextmanager
async def held(
    runs: Runs, names: Collection[str], holder: str, on_lost: Callable[[], object] = lambda: None
) -> AsyncIterator[Holding]:
    """The leases, until the block ends. Raises ContractError RECONCILE_RUNNING when somebody else holds one.

    One that is lost meanwhile shows when it is used: the store refuses it. `on_lost` hears of it when it is renewed.
    """
    holding = Holding()
    renewing = asyncio.create_task(_renew(runs, holding, on_lost))
    try:
        for name in sorted(names):
            lease = await runs.lease(name, holder, LEASE_S)
            if lease.holder != holder:
                metadata = {"run_id": lease.holder}
                raise ContractError(Reason.RECONCILE_RUNNING, "a run of this ledger is on", metadata=metadata)
            holding.leases[name] = lease
        yield holding
    finally:
        renewing.cancel()
        # Also when the run is cancelled once more meanwhile, by a server that stops.
        await asyncio.shield(_release(runs, list(holding.leases.values()), renewing))


async def _release(runs: Runs, leases: Sequence[Lease], renewing: asyncio.Task[None]) -> None:
    await asyncio.gather(renewing, return_exceptions=True)
    for lease in leases:
        with suppress(ContractError):  # it runs out by itself
            await runs.release(lease)


async def _renew(runs: Runs, holding: Holding, on_lost: Callable[[], object]) -> None:
    while True:
        await asyncio.sleep(RENEW_S)
        if holding.is_stalled:
            continue  # a client that does not read keeps nobody else from it
        for lease in list(holding.leases.values()):
            try:
                if not await runs.renew(lease, LEASE_S):
                    on_lost()
                    log.warning("lease_lost", name=lease.name)
            except ContractError as error:  # the next renewal may come in time
                log.warning("lease_not_renewed", name=lease.name, reason=error.reason)
