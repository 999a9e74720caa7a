"""Servers and commands of which everything they say is kept, to be searched."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.system.processes import DEADLINE_S, environment, run_module

MOMENT_S = 0.05


@dataclass
class Recorder:
    """Whatever was said, by who said it; what servers say goes to files in `directory`."""

    directory: Path
    said: dict[str, str] = field(default_factory=dict)

    def keep(self, who: str, what: object) -> None:
        self.said[f"{len(self.said)} {who}"] = str(what)

    def tellers_of(self, secret: str) -> list[str]:
        """Who said it."""
        return [who for who, said in self.said.items() if secret in said]

    def command(self, module: str, *arguments: str, given: str = "", **settings: str) -> int:
        """Runs a command to its end; its exit code."""
        ended = run_module(module, *arguments, given=given, **settings)
        self.keep(f"{module} {' '.join(arguments)} {sorted(settings)}", ended.stdout + ended.stderr)
        return ended.returncode

    @contextmanager
    def server(self, module: str, port: int, **settings: str) -> Iterator["subprocess.Popen[bytes]"]:
        """Serves on that port while the block runs; then it is stopped with SIGTERM, unless it has ended."""
        listen = {f"{module.removesuffix('_server').upper()}_LISTEN": f"127.0.0.1:{port}"}
        output = self.directory / f"{module}-{len(self.said)}"
        self.keep(module, output)
        with output.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", module, "serve"], env=environment(settings | listen), stdout=file, stderr=file
            )
        try:
            until_serving(process, port)
            self.keep(f"the command line of {module}", Path(f"/proc/{process.pid}/cmdline").read_bytes())
            yield process
            process.send_signal(signal.SIGTERM)
            process.wait(DEADLINE_S)
        finally:
            process.kill()
            process.wait()
            self.keep(f"the output of {module}", output.read_text("utf-8", errors="backslashreplace"))

    def until_told(self, process: "subprocess.Popen[bytes]", text: str) -> None:
        """Its output has it; pytest's timeout ends one that never does."""
        while text.encode() not in Path(os.readlink(f"/proc/{process.pid}/fd/2")).read_bytes():
            assert not has_ended(process)


def until_serving(process: "subprocess.Popen[bytes]", port: int) -> None:
    """pytest's timeout ends one that never listens."""
    while not has_ended(process):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
    raise AssertionError(f"it has ended with {process.returncode}")


def has_ended(process: "subprocess.Popen[bytes]") -> bool:
    """Within a moment, so that whoever asks again and again leaves it the processor."""
    try:
        process.wait(MOMENT_S)
    except subprocess.TimeoutExpired:
        return False
    return True
