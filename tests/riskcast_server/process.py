"""RiskCast as a process of its own: to be killed, stopped, and asked by its own commands."""

import json
import os
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.riskcast_server.running import url
from tests.system.forked import Forked
from tests.system.processes import DEADLINE_S, Begin, Process, environment, run_module

MODULE = "riskcast_server"


def run(*arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """A command, to its end."""
    return run_module(MODULE, *arguments, **settings)


@dataclass
class Server:
    child: Process
    port: int

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextmanager
def server(directory: Path, begin: Begin = Forked, **settings: str) -> Iterator[Server]:
    """Ready when entered; killed when left, if it still runs."""
    port_file = directory / "port"
    port_file.unlink(missing_ok=True)
    told = {"RISKCAST_LISTEN": "127.0.0.1:0", "RISKCAST_DATABASE_URL": url(directory), **settings}
    child = begin(MODULE, ["serve", "--port-file", str(port_file)], environment(told))
    assert child.stderr
    with child.stderr:
        try:
            lines = b""
            while b'"serving"' not in lines:
                assert select.select([child.stderr], [], [], DEADLINE_S)[0], "it does not come up"
                part = os.read(child.stderr.fileno(), 65_536)
                assert part, lines.decode()
                lines += part
            told_line = next(line for line in lines.splitlines() if b'"serving"' in line)
            yield Server(child, int(json.loads(told_line)["port"]))
        finally:
            child.kill()
            child.wait(DEADLINE_S)
