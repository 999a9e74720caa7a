"""The `omen` command as a process of its own, beside a server in this one."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from tests.system.processes import run_module


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
    ended = await asyncio.to_thread(run_module, "omen_server", *arguments, given=given, **settings)
    return Ended(ended.returncode, ended.stdout, ended.stderr)
