"""P11: starting OMEN on a ledger of many full records whose writer was killed with -9, from exec to SERVING.

`python -m bench.restart` is that writer. Before each round the last segment is put back as the kill left it, so that
each start has the same to recover.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from bench.ledger_append import PAYLOAD_BYTES, fill
from bench.processes import server
from bench.rounds import Figure, Scale, measure
from ledger.format import frame_bytes

_FREE_BYTES_KEPT = 1 << 30


def figures(scale: Scale) -> list[Figure]:
    """With what the page cache holds, and with the ledger's own files dropped from it."""
    folder, count = scale.folder, scale.restarted_records
    needed = count * frame_bytes(PAYLOAD_BYTES) + _FREE_BYTES_KEPT
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise SystemExit(
            f"{count:,} records need {needed / 1e9:.1f} GB of disk below {folder}; {free / 1e9:.1f} are free"
        )
    killed = Killed(folder / "to restart", count)
    settings = (
        f"{count:,} records of {PAYLOAD_BYTES} bytes by real appends, writer killed with -9, no FOOTER; exec to SERVING"
    )
    cases = (("page cache as it is", killed.started_warm_s), ("page cache dropped", killed.started_cold_s))
    return [
        Figure(f"restart of {count:,} records, {name}", "s", settings, measure(workload, scale.rounds), at_most=2.0)
        for name, workload in cases
    ]


class Killed:
    """A ledger as kill -9 of its writer left it."""

    def __init__(self, directory: Path, count: int) -> None:
        self._directory = directory
        command = [sys.executable, "-m", __name__, str(directory), str(count)]
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

    def started_warm_s(self) -> float:
        """Seconds until OMEN serves."""
        self._put_back()
        return self._started_s()

    def started_cold_s(self) -> float:
        self._put_back()
        for path in self._directory.glob("**/*"):
            if path.is_file():
                drop_cache(path)
        return self._started_s()

    def _put_back(self) -> None:
        shutil.copyfile(self._as_left, self._last)

    def _started_s(self) -> float:
        settings = {
            "OMEN_LISTEN": "127.0.0.1:0",
            "OMEN_LEDGER_DIR": str(self._directory),
            "OMEN_RISKCAST_TARGET": "127.0.0.1:1",  # nobody is there: what starts is OMEN alone
        }
        port_file = self._directory.with_suffix(".port")
        began = time.perf_counter()
        with server(port_file, "omen_server", **settings):
            return time.perf_counter() - began


def drop_cache(path: Path) -> None:
    """Only clean pages can be dropped."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("count", type=int)
    given = parser.parse_args()
    fill(given.directory, given.count)
    print("filled", flush=True)
    sys.stdin.read()  # stays as it is until it is killed


if __name__ == "__main__":
    main()
