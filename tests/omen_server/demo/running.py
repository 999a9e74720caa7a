"""The demo as a process of its own, in a temporary directory of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
WITHIN_S = 60.0  # what `make demo` promises
# Of what surrounds the demo none may reach it: each of these would stop it.
OF_NO_CONCERN = {
    "OMEN_LISTEN": "nowhere",
    "RISKCAST_NO_SUCH_SETTING": "1",
    "http_proxy": "http://127.0.0.1:9",
    "no_proxy": "",
}
AS_COMMAND = "from omen_server.cli import main\nmain()\n"


def demo_process(directory: Path, *options: str, prelude: str = "") -> subprocess.Popen[str]:
    """`omen demo` with these options, in a process group of its own; `prelude` is Python that runs before it."""
    return subprocess.Popen(
        [sys.executable, "-c", prelude + AS_COMMAND, "demo", *options],
        cwd=ROOT,
        env=os.environ | OF_NO_CONCERN | {"TMPDIR": str(directory)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )


def run_demo(directory: Path, *options: str, prelude: str = "") -> subprocess.CompletedProcess[str]:
    """The same, to its end."""
    process = demo_process(directory, *options, prelude=prelude)
    return ended(process)


def ended(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """What a demo said and how it ended, once it has."""
    try:
        stdout, stderr = process.communicate(timeout=WITHIN_S)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.communicate()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def press_ctrl_c(process: subprocess.Popen[str]) -> None:
    """As a terminal does it: the demo and whatever it has started are told at once."""
    os.killpg(process.pid, signal.SIGINT)


def left_in(directory: Path) -> list[str]:
    """Files in `directory`, and command lines of processes that were told of it."""
    lines = [command_line(path) for path in Path("/proc").glob("[0-9]*/cmdline")]
    return [*map(str, directory.iterdir()), *(line for line in lines if str(directory) in line)]


def command_line(path: Path) -> str:
    try:
        return path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
        return ""
