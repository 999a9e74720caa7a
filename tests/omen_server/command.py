"""The `omen` command as a process of its own, beside a server in this one."""

import asyncio
import json
import sys
from dataclasses import dataclass
from typing import Any

from tests.system.processes import environment

DEADLINE_S = 30.0


@dataclass(frozen=True)
class Ended:
    """What a command left: `out` is data alone, `err` is for people."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[Any]:
        """Of `-o jsonl`."""
        return [json.loads(line) for line in self.out.splitlines()]


async def omen_command(*arguments: str, given: str = "", **settings: str) -> Ended:
    """Runs it to its end; `given` is its standard input."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "omen_server", *arguments),
        env=environment(settings),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(DEADLINE_S):
        out, err = await process.communicate(given.encode())
    return Ended(process.returncode or 0, out.decode(), err.decode())
