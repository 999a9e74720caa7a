"""Ready while the store commits: probes are told when it stops, and when it goes on."""

import asyncio
from contextlib import suppress
from uuid import uuid4

import structlog

from contract.errors import ContractError
from riskcast_server.committer import Committer
from riskcast_server.store import Runs
from serving import Running

PROBE_S = 1.0  # a store that came back is used again within this
PROBE = "readiness"  # the lease that is taken and let go: a commit that changes nothing of what is stored

log = structlog.get_logger(__name__)


async def keep_ready(running: Running, committer: Committer, runs: Runs) -> None:
    """Not ready from the first commit that the store refuses until one goes through, for ever.

    Who is not ready is sent nothing, so it has to find out by itself.
    """
    while True:
        await committer.refused.wait()
        running.set_not_ready()
        log.error("store_does_not_commit")
        await until_committing(runs)
        committer.refused.clear()
        running.set_ready()
        log.info("store_commits_again")


async def until_committing(runs: Runs) -> None:
    holder = str(uuid4())
    while True:
        await asyncio.sleep(PROBE_S)
        with suppress(ContractError):
            await runs.lease(PROBE, holder, 0)
            return
