"""Server processes of ours, started with settings of their own and stopped with SIGTERM."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Served:
    """A server that serves."""

    target: str
    pid: int


@contextmanager
def served(port_file: Path, module: str, *arguments: str, **settings: str) -> Iterator[Served]:
    """A server process of ours, once it has written its port. What it says goes to a file beside that."""
    port_file.unlink(missing_ok=True)
    command = [sys.executable, "-m", module, "serve", "--port-file", str(port_file), *arguments]
    with (port_file.with_suffix(".log")).open("ab") as log:
        process = subprocess.Popen(command, env={"PATH": os.defpath, **settings}, stderr=log, stdout=log)
        try:
            yield Served(f"127.0.0.1:{port_of(process, port_file)}", process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=START_TIMEOUT_S)


@contextmanager
def server(port_file: Path, module: str, *arguments: str, **settings: str) -> Iterator[str]:
    """The target alone."""
    with served(port_file, module, *arguments, **settings) as running:
        yield running.target


def port_of(process: "subprocess.Popen[Any]", port_file: Path) -> int:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not port_file.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{port_file.stem} did not start: {port_file.with_suffix('.log').read_text()}")
        time.sleep(0.01)
    return int(port_file.read_text())
