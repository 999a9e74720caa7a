"""What an operator runs beside the servers."""

import asyncio
import json
from typing import Any

from serving.console import Exit
from tests.system.processes import Server, run_module, target_of


async def told(*arguments: str, **settings: str) -> str:
    """What `python -m ARGUMENTS` writes on stdout; it exits with 0."""
    done = await asyncio.to_thread(run_module, *arguments, **settings)
    assert done.returncode == Exit.OK, done.stderr
    return done.stdout


async def reconciled(riskcast: Server, expected: Exit) -> list[dict[str, Any]]:
    """What `riskcast reconcile --include-open` says of each partition."""
    command = ("riskcast_server", "reconcile", "--include-open", "-o", "json")
    done = await asyncio.to_thread(run_module, *command, "--target", target_of(riskcast))
    assert done.returncode == expected, done.stderr
    partitions: list[dict[str, Any]] = json.loads(done.stdout)
    return partitions
