"""P11: opening a ledger of many full records whose writer was killed with -9, in a fresh process.

`fill` and `open` are those two processes. Before each round the last segment is put back as the kill left it, so that
each opening has the same to recover.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from bench.ledger_append import PAYLOAD_BYTES, fill
from bench.rounds import Figure, measure
from ledger import Ledger
from ledger.format import frame_bytes

_FREE_BYTES_KEPT = 1 << 30
_OPEN_TIMEOUT_S = 300.0


def restart_figures(folder: Path, count: int, rounds: int) -> list[Figure]:
    """With what the page cache holds, and with the ledger's own files dropped from it."""
    needed = count * frame_bytes(PAYLOAD_BYTES) + _FREE_BYTES_KEPT
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise SystemExit(
            f"{count:,} records need {needed / 1e9:.1f} GB of disk below {folder}; {free / 1e9:.1f} are free"
        )
    killed = Killed(folder / "to restart", count)
    settings = (
        f"{count:,} records of {PAYLOAD_BYTES} bytes by real appends, writer killed with -9, no FOOTER; new process"
    )
    cases = (("page cache as it is", killed.opened_warm_s), ("page cache dropped", killed.opened_cold_s))
    return [
        Figure(f"restart of {count:,} records, {name}", "s", settings, measure(workload, rounds), at_most=2.0)
        for name, workload in cases
    ]


class Killed:
    """A ledger as kill -9 of its writer left it."""

    def __init__(self, directory: Path, count: int) -> None:
        self._directory = directory
        command = _command("fill", directory, str(count))
        filler = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            if not filler.stdout or filler.stdout.readline() != "filled\n":
                raise RuntimeError(f"the writer ended with {filler.wait()} before everything was acknowledged")
        finally:
            filler.kill()
            filler.communicate()
        self._last = max(directory.glob("*/segment-*.log"))
        self._as_left = directory.with_suffix(".last")
        shutil.copyfile(self._last, self._as_left)

    def opened_warm_s(self) -> float:
        """Seconds until Ledger.open() has returned."""
        self._put_back()
        return self._opened_s()

    def opened_cold_s(self) -> float:
        self._put_back()
        for path in self._directory.glob("**/*"):
            if path.is_file():
                drop_cache(path)
        return self._opened_s()

    def _put_back(self) -> None:
        shutil.copyfile(self._as_left, self._last)

    def _opened_s(self) -> float:
        command = _command("open", self._directory)
        told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=_OPEN_TIMEOUT_S)
        return float(told.stdout)


def drop_cache(path: Path) -> None:
    """Only clean pages can be dropped."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _command(what: str, directory: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", __name__, what, str(directory), *more]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["fill", "open"])
    parser.add_argument("directory", type=Path)
    parser.add_argument("count", type=int, nargs="?", default=0)
    given = parser.parse_args()
    if given.command == "fill":
        fill(given.directory, given.count)
        print("filled", flush=True)
        sys.stdin.read()  # stays as it is until it is killed
        return
    began = time.perf_counter()
    ledger = Ledger.open(given.directory, on_commit=lambda results: None)
    took_s = time.perf_counter() - began
    ledger.close()
    print(took_s)


if __name__ == "__main__":
    main()
