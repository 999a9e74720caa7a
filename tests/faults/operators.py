"""What an operator runs beside the servers."""

import asyncio
import json
import sys
from typing import Any

from serving.console import Exit
from tests.system.processes import Server, run, target_of


async def told(*arguments: str, **settings: str) -> str:
    """What `python -m ARGUMENTS` writes on stdout; it exits with 0."""
    done = await asyncio.to_thread(run, sys.executable, "-m", *arguments, **settings)
    assert done.returncode == Exit.OK, done.stderr
    return done.stdout


async def reconciled(riskcast: Server, expected: Exit) -> list[dict[str, Any]]:
    """What `riskcast reconcile --include-open` says of each partition."""
    command = (sys.executable, "-m", "riskcast_server", "reconcile", "--include-open", "-o", "json")
    done = await asyncio.to_thread(run, *command, "--target", target_of(riskcast))
    assert done.returncode == expected, done.stderr
    partitions: list[dict[str, Any]] = json.loads(done.stdout)
    return partitions
