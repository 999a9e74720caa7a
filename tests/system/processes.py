"""Both servers as processes of their own, as an operator runs them, to be stopped, killed and started again.

Started by a fork server or `subprocess`, never by the event loop: uvloop forks, and gRPC's threads do not survive that.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import IO, Any

from tests.system.forked import Forked, run_forked

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 20.0
MOMENT_S = 0.01  # between two looks: whoever waits leaves the processor to those it waits for


def environment(settings: dict[str, str]) -> dict[str, str]:
    """The environment of the tests without settings of the servers, and these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMEN_", "RISKCAST_"))}
    path = os.pathsep.join([str(ROOT), str(ROOT / "protos")])
    return {**kept, "PYTHONPATH": path, **settings}


def run(*command: str, given: str = "", **settings: str) -> "subprocess.CompletedProcess[str]":
    """Runs a command to its end; `given` is its standard input."""
    return subprocess.run(
        command, env=environment(settings), input=given, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


def run_module(module: str, *arguments: str, given: str = "", **settings: str) -> "subprocess.CompletedProcess[str]":
    """What `python -m MODULE ARGUMENTS` does."""
    return run_forked(module, *arguments, environment=environment(settings), given=given, within_s=DEADLINE_S)


Process = Forked | subprocess.Popen[bytes]
Begin = Callable[[str, Sequence[str], Mapping[str, str]], Process]


def spawned(module: str, arguments: Sequence[str], environment: Mapping[str, str]) -> Process:
    """`python -m MODULE ARGUMENTS` by an interpreter of its own."""
    return _popen([sys.executable, "-m", module, *arguments], environment)


def with_open_files(most: int) -> Begin:
    """The same, with so many file descriptors at the most."""

    def begin(module: str, arguments: Sequence[str], environment: Mapping[str, str]) -> Process:
        command = [sys.executable, "-m", module, *arguments]
        return _popen(["sh", "-c", f'ulimit -n {most}; exec "$@"', "sh", *command], environment)

    return begin


def _popen(command: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


class Ended(AssertionError):
    """A server ended before it served."""


@dataclass
class Server:
    """`python -m MODULE serve` on a free port of its own, which it keeps when it is started again.

    `program` takes the place of MODULE: another module, with its arguments, that runs it.
    """

    module: str
    settings: dict[str, str]
    arguments: tuple[str, ...] = ()
    program: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 0
    begin: Begin = Forked  # how its process does
    log: list[str] = field(default_factory=list)
    process: Process | None = None
    _drain: Thread | None = None

    async def start(self) -> None:
        """Returns when it serves."""
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.to_thread(self._start)

    def _start(self) -> None:
        prefix = self.module.removesuffix("_server").upper()
        settings = self.settings | {f"{prefix}_LISTEN": f"{self.host}:{self.port}"}
        module, *before = self.program or (self.module,)
        self.process = self.begin(module, [*before, "serve", *self.arguments], environment(settings))
        assert self.process.stderr
        for line in self.process.stderr:
            self.log.append(line.decode())
            if (said := told(line)).get("event") == "serving":
                self.port = said["port"]
                self._drain = Thread(target=self._keep, args=(self.process.stderr,), daemon=True)
                self._drain.start()
                return
        self.process.stderr.close()
        raise Ended(f"{self.module} has ended: {self.log[-20:]}")

    def _keep(self, stderr: IO[bytes]) -> None:
        with stderr:
            self.log.extend(line.decode() for line in stderr)

    async def kill(self) -> None:
        """kill -9, and what is left of it is gone."""
        assert await self.end(signal.SIGKILL) == -signal.SIGKILL

    async def stop(self) -> int:
        """SIGTERM; its exit code."""
        return await self.end(signal.SIGTERM)

    @asynccontextmanager
    async def frozen(self) -> AsyncIterator[None]:
        """SIGSTOP, and SIGCONT after the block."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    async def end(self, number: signal.Signals) -> int:
        """Its exit code after this signal."""
        assert self.process
        self.process.send_signal(number)
        return await self.ended()

    async def ended(self) -> int:
        """Its exit code, once it has ended by itself."""
        assert self.process
        code = await asyncio.to_thread(self.process.wait, DEADLINE_S)
        if self._drain:
            await asyncio.to_thread(self._drain.join)
        self.process = self._drain = None
        return code


def target_of(server: Server) -> str:
    """Where its clients reach it."""
    return f"{server.host}:{server.port}"


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
async def pair(directory: Path, begin: Begin = Forked) -> AsyncIterator[Pair]:
    """Both, started; whatever of them still runs after the block is killed."""
    ledger, database = directory / "ledger", directory / "riskcast.db"
    riskcast = Server("riskcast_server", {"RISKCAST_DATABASE_URL": f"sqlite:///{database}"}, begin=begin)
    omen = Server("omen_server", {"OMEN_LEDGER_DIR": str(ledger)}, begin=begin)
    try:
        await riskcast.start()
        omen.settings["OMEN_RISKCAST_TARGET"] = f"127.0.0.1:{riskcast.port}"
        await omen.start()
        yield Pair(omen, riskcast, ledger, database)
    finally:
        for server in (omen, riskcast):
            if server.process:
                await server.kill()
