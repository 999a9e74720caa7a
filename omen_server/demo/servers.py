"""The server processes of the demo. Each keeps its port for as long as the demo runs, whatever happens to it."""

import asyncio
import random
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from omen_server.demo.expectation import until
from serving import channel

# Below the ports that systems hand out by themselves: while a server is down, nobody's outgoing connection takes its
# port, least of all the one that OMEN dials RiskCast with.
PORTS = range(20_000, 32_000)
START_WITHIN_S = 30.0
STOP_WITHIN_S = 30.0  # a drain takes at most 20 s


class ServerFailed(Exception):
    """A server did not come up, or did not go as it should: one line."""


class Server:
    """One process at a time, started with nothing but these settings in its environment.

    It stays in the demo's process group, so that Ctrl-C and a closed terminal reach it too.
    """

    def __init__(self, name: str, package: str, port: int, directory: Path, settings: Mapping[str, str]) -> None:
        self.name = name
        self.target = f"127.0.0.1:{port}"
        self._directory = directory
        self._port_file = directory / f"{package}.port"
        self._log = directory / f"{package}.log"
        self._command = [sys.executable, "-P", "-m", package, "serve", "--port-file", str(self._port_file)]
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: grpc.aio.Channel | None = None

    @property
    def channel(self) -> grpc.aio.Channel:
        """To the process that was started last."""
        assert self._channel is not None, "not started"
        return self._channel

    async def start(self) -> None:
        """Returns once it is ready. Raises ServerFailed and ExpectationFailed."""
        await self._hang_up()
        self._spawn()
        await until(f"{self.name} is ready", self._is_ready, True, START_WITHIN_S)
        self._channel = channel(self.target)

    async def kill(self) -> None:
        """kill -9."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """As an operator stops it: SIGTERM, and it drains. Raises ServerFailed if it does not end well."""
        exit_code = await self._end(signal.SIGTERM)
        if exit_code != 0:
            raise ServerFailed(f"{self.name} ended with exit code {exit_code} when it was told to stop")

    async def close(self) -> None:
        """Whatever state it is in, nothing of it runs afterwards."""
        await self._hang_up()
        try:
            await self._end(signal.SIGTERM)
        except ServerFailed:
            await self._end(signal.SIGKILL)

    def log_tail(self, lines_max: int) -> list[str]:
        """The last lines of what it said, over all its lives."""
        return self._log.read_text("utf-8", "replace").splitlines()[-lines_max:] if self._log.exists() else []

    def _spawn(self) -> None:
        self._port_file.unlink(missing_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._directory, env=self._settings, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    async def _is_ready(self) -> bool:
        if self._process and (exit_code := self._process.poll()) is not None:
            raise ServerFailed(f"{self.name} ended with exit code {exit_code} before it was ready")
        return self._port_file.exists()

    async def _end(self, number: signal.Signals) -> int:
        """Its exit code, once it has ended. A process that ended before is left alone: its id may be another's."""
        if self._process is None:
            return 0
        self._process.send_signal(number)
        try:
            return await asyncio.to_thread(self._process.wait, STOP_WITHIN_S)
        except subprocess.TimeoutExpired as error:
            raise ServerFailed(f"{self.name} still runs {STOP_WITHIN_S:g} s after {number.name}") from error

    async def _hang_up(self) -> None:
        if self._channel is not None:
            await self._channel.close()
            self._channel = None


@asynccontextmanager
async def two_servers(directory: Path) -> AsyncIterator[tuple[Server, Server]]:
    """OMEN and RiskCast, which know each other; to be started, and gone afterwards. Raises ServerFailed."""
    omen_port, riskcast_port = free_ports(2)
    at_omen, at_riskcast = f"127.0.0.1:{omen_port}", f"127.0.0.1:{riskcast_port}"
    omen_settings = {
        "OMEN_LISTEN": at_omen,
        "OMEN_LEDGER_DIR": str(directory / "omen-ledger"),
        "OMEN_RISKCAST_TARGET": at_riskcast,
    }
    riskcast_settings = {
        "RISKCAST_LISTEN": at_riskcast,
        "RISKCAST_DATABASE_URL": f"sqlite:///{database(directory)}",
        "RISKCAST_OMEN_TARGETS": at_omen,
    }
    omen = Server("OMEN", "omen_server", omen_port, directory, omen_settings)
    riskcast = Server("RiskCast", "riskcast_server", riskcast_port, directory, riskcast_settings)
    try:
        yield omen, riskcast
    finally:
        await asyncio.gather(omen.close(), riskcast.close())


def database(directory: Path) -> Path:
    return directory / "riskcast.db"


def free_ports(count: int) -> list[int]:
    """Raises ServerFailed when there are not so many."""
    free: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        if len(free) == count:
            return free
        if is_free(port):
            free.append(port)
    raise ServerFailed(f"fewer than {count} free ports from {PORTS.start} to {PORTS.stop - 1}")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gRPC binds it
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
