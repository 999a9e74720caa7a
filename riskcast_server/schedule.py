"""Reconcile without being asked, by one RiskCast of those that share a store."""

import asyncio
from contextlib import aclosing, suppress
from random import Random
from uuid import uuid4

import structlog

from contract.errors import ContractError
from riskcast.v1 import reconcile_service_pb2 as pb
from riskcast_server.leases import LEASE_S
from riskcast_server.reconcile import Reconciler
from riskcast_server.store import Runs

log = structlog.get_logger(__name__)

SCHEDULE = "schedule"  # the lease of whoever keeps it
JITTER = 0.1  # so that servers started together do not ask their ledgers together


async def keep_schedule(reconciler: Reconciler, runs: Runs, interval_s: float, draw: Random) -> None:
    """Reconciles the default scope once an interval, a tenth more or less, for ever; never when it is 0.

    Whoever has the lease goes on having it; when it stops another takes over, when it dies an interval later.
    """
    if not interval_s:
        return
    holder = str(uuid4())
    try:
        while True:
            await asyncio.sleep(interval_s * draw.uniform(1 - JITTER, 1 + JITTER))
            with suppress(ContractError):  # the store cannot be used now: logged by it, and tried again
                lease = await runs.lease(SCHEDULE, holder, interval_s * (1 + JITTER) + LEASE_S)
                if lease.holder == holder:
                    await run_once(reconciler)
    finally:
        await asyncio.shield(_leave(runs, holder))


async def _leave(runs: Runs, holder: str) -> None:
    """Whether it holds the lease is asked anew: it may have been stopped in the middle of taking it."""
    with suppress(ContractError):
        lease = await runs.lease(SCHEDULE, holder, 0)
        if lease.holder == holder:
            await runs.release(lease)


async def run_once(reconciler: Reconciler) -> None:
    """What of a run needs an operator is logged by the run itself."""
    try:
        async with aclosing(reconciler.run(pb.ReconcileRequest())) as messages:
            async for message in messages:
                if message.HasField("run_finished"):
                    log.info("scheduled_run", **counts(message.run_finished))
    except ContractError as error:  # somebody runs it by hand, or the store went away
        log.info("scheduled_run_left_out", reason=error.reason)


def counts(run: pb.RunFinished) -> dict[str, object]:
    return {
        "run_id": run.run_id,
        "status": pb.ReconcileStatus.Name(run.status),
        "partitions": run.partition_count,
        "replayed": run.replayed_record_count,
        "failed": run.failed_record_count,
    }
