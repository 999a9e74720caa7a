"""RiskCast as a process of its own: to be killed, stopped, and asked by its own commands."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.house.tree import ROOT
from tests.riskcast_server.running import url

DEADLINE_S = 20.0
COMMAND = (sys.executable, "-m", "riskcast_server")


def environment(**settings: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RISKCAST_")}
    return {**clean, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "protos")]), **settings}


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """A command, to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


@dataclass
class Server:
    child: subprocess.Popen[bytes]
    port: int

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextmanager
def server(directory: Path, **settings: str) -> Iterator[Server]:
    """Ready when entered; killed when left, if it still runs."""
    port_file = directory / "port"
    port_file.unlink(missing_ok=True)
    told = {"RISKCAST_LISTEN": "127.0.0.1:0", "RISKCAST_DATABASE_URL": url(directory), **settings}
    arguments = [*COMMAND, "serve", "--port-file", str(port_file)]
    with subprocess.Popen(arguments, env=environment(**told), stderr=subprocess.PIPE) as child:
        try:
            assert child.stderr
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
