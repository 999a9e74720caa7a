"""Both servers as processes of their own, as an operator runs them, to be stopped, killed and started again."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 20.0


def environment(settings: dict[str, str]) -> dict[str, str]:
    """The environment of the tests without settings of the servers, and these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMEN_", "RISKCAST_"))}
    path = os.pathsep.join([str(ROOT), str(ROOT / "protos")])
    return {**kept, "PYTHONPATH": path, **settings}


@dataclass
class Server:
    """`python -m MODULE serve` on a free port of its own, which it keeps when it is started again."""

    module: str
    settings: dict[str, str]
    port: int = 0
    log: list[str] = field(default_factory=list)
    process: asyncio.subprocess.Process | None = None
    _drain: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when it serves."""
        prefix = self.module.removesuffix("_server").upper()
        settings = self.settings | {f"{prefix}_LISTEN": f"127.0.0.1:{self.port}"}
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", self.module, "serve"),
            env=environment(settings),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        assert self.process.stderr
        async with asyncio.timeout(DEADLINE_S):
            async for line in self.process.stderr:
                self.log.append(line.decode())
                if (said := told(line)).get("event") == "serving":
                    self.port = said["port"]
                    self._drain = asyncio.create_task(self._keep(self.process.stderr))
                    return
        raise AssertionError(f"{self.module} has ended: {self.log[-20:]}")

    async def _keep(self, stderr: asyncio.StreamReader) -> None:
        async for line in stderr:
            self.log.append(line.decode())

    async def kill(self) -> None:
        """kill -9, and what is left of it is gone."""
        assert await self.end(signal.SIGKILL) == -signal.SIGKILL

    async def stop(self) -> int:
        """SIGTERM; its exit code."""
        return await self.end(signal.SIGTERM)

    async def end(self, number: signal.Signals) -> int:
        assert self.process
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        async with asyncio.timeout(DEADLINE_S):
            code = await self.process.wait()
        if self._drain:
            await self._drain
        self.process = None
        return code


def told(line: bytes) -> dict[str, Any]:
    """A line of the log as data; {} when it is none."""
    try:
        said = json.loads(line)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


@dataclass(frozen=True)
class Pair:
    """An OMEN that delivers to a RiskCast."""

    omen: Server
    riskcast: Server
    ledger: Path
    database: Path


@asynccontextmanager
async def pair(directory: Path) -> AsyncIterator[Pair]:
    """Both, started; whatever of them still runs after the block is killed."""
    ledger, database = directory / "ledger", directory / "riskcast.db"
    riskcast = Server("riskcast_server", {"RISKCAST_DATABASE_URL": f"sqlite:///{database}"})
    omen = Server("omen_server", {"OMEN_LEDGER_DIR": str(ledger)})
    try:
        await riskcast.start()
        omen.settings["OMEN_RISKCAST_TARGET"] = f"127.0.0.1:{riskcast.port}"
        await omen.start()
        yield Pair(omen, riskcast, ledger, database)
    finally:
        for server in (omen, riskcast):
            if server.process:
                await server.kill()
