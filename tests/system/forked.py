"""`python -m MODULE ARGUMENTS` in a process forked from one that has loaded both programs.

Most of the processor time of a start is imports. The standard library's fork server takes that once for a whole run of
tests; what it forks is a process like any other, to be signalled, killed and waited for. It has loaded gRPC and not
begun to use it, so that there is no thread that a fork could lose. What a start itself does, or the end of the
interpreter, is proved by tests that take `subprocess`.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

import omen_server.cli
import riskcast_server.cli
from serving.commands import Group, Table


def places(table: Table) -> list[str]:
    """Where its commands are, "module:function"."""
    return [
        place
        for entry in table.values()
        for place in (entry.commands.values() if isinstance(entry, Group) else [entry])
    ]


COMMANDS = [*places(omen_server.cli.COMMANDS), *places(riskcast_server.cli.COMMANDS)]
# And what `serving` offers them.
LOADED = [*sorted({place.partition(":")[0] for place in COMMANDS}), "serving.channels", "serving.server"]
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(LOADED)
BEGINNING = Lock()  # one that begins looks which others have ended: two at once would both take what one left


class Forked:
    """As `subprocess.Popen` has it; its standard error can be read."""

    def __init__(self, module: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        read, write = FORKS.Pipe(duplex=False)
        with read, write:
            self._process = begun(FORKS.Process(target=_serve, args=(module, arguments, environment, write)))
            self.stderr = os.fdopen(os.dup(read.fileno()), "rb")
        assert self._process.pid
        self.pid = self._process.pid

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        with BEGINNING:
            return self._process.exitcode

    def wait(self, timeout: float) -> int:
        return exit_code(self._process, timeout)


def run_forked(
    module: str, *arguments: str, environment: Mapping[str, str], given: str, within_s: float
) -> "subprocess.CompletedProcess[str]":
    """A command to its end; `given` is its standard input."""
    with TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("in", "out", "err")]
        files[0].write_text(given, "utf-8")
        code = exit_code(begun(FORKS.Process(target=_answer, args=(module, arguments, environment, files))), within_s)
        _, out, err = files
        return subprocess.CompletedProcess([module, *arguments], code, out.read_text("utf-8"), err.read_text("utf-8"))


def begun(process: ForkServerProcess) -> ForkServerProcess:
    """It is killed with whoever runs the tests, at the latest."""
    process.daemon = True
    with BEGINNING:
        process.start()
    return process


def exit_code(process: ForkServerProcess, within_s: float) -> int:
    if not wait([process.sentinel], within_s):
        process.kill()
        raise TimeoutError(f"it has not ended within {within_s:g} s")
    with BEGINNING:
        process.join()
        assert process.exitcode is not None
        return process.exitcode


def _serve(module: str, arguments: Sequence[str], environment: Mapping[str, str], stderr: Connection) -> None:
    with open(os.devnull, "r+b") as nothing, stderr:
        for number, target in enumerate((nothing.fileno(), nothing.fileno(), stderr.fileno())):
            os.dup2(target, number)
    _become(module, arguments, environment)


def _answer(module: str, arguments: Sequence[str], environment: Mapping[str, str], files: Sequence[Path]) -> None:
    for number, (path, mode) in enumerate(zip(files, ("rb", "wb", "wb"), strict=True)):
        with path.open(mode) as file:
            os.dup2(file.fileno(), number)
    _become(module, arguments, environment)


def _become(module: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
