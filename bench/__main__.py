"""`python -m bench`: what the whole costs, mostly as ratios taken in one run."""

import argparse
import sys
import tempfile
from pathlib import Path

from bench.emit import bare_echo, emitting
from bench.ledger_append import Appending, OneByOne, RawOneByOne, RawSync
from bench.ledger_scan import Hashing, Scanning, scanned_segment
from bench.plot import draw
from bench.restart import restart_figures
from bench.rounds import Figure, environment, measure, report

RECORDS_TO_RESTART = 1_000_000
RECORDS_TO_RESTART_QUICK = 100_000
RECORDS_TO_RESTART_LARGE = 10_000_000
RESULTS = Path("bench-results.json")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="three rounds instead of seven, and a smaller restart")
    size.add_argument("--large", action="store_true", help="only the restart, of 10 million records (11 GB of disk)")
    given = parser.parse_args()
    rounds = 3 if given.quick else 7
    around = environment(rounds)
    # Never on a tmpfs, where syncing costs nothing: beside the checkout.
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as name:
        folder = Path(name)
        if given.large:
            figures = restart_figures(folder, RECORDS_TO_RESTART_LARGE, rounds)
        else:
            restarted = RECORDS_TO_RESTART_QUICK if given.quick else RECORDS_TO_RESTART
            figures = [
                append_figure(folder, rounds),
                latency_figure(folder, rounds),
                scan_figure(folder, rounds),
                *restart_figures(folder, restarted, rounds),
                emit_figure(folder, rounds),
            ]
    is_reached = report(figures, around, RESULTS)
    draw(figures, RESULTS.with_suffix(".svg"))
    print(f"written: {RESULTS} and {RESULTS.with_suffix('.svg')}")
    return 0 if is_reached else 1


def append_figure(folder: Path, rounds: int) -> Figure:
    return Figure(
        "ledger append, 64 in flight",
        "records/s",
        "20,000 payloads of 1 KiB, 1 process, one fdatasync a batch; against 2,000, one fdatasync each",
        measure(Appending(folder, 20_000), rounds, RawSync(folder, 2_000)),
        compared_with="write + fdatasync of the same",
        at_least=8.0,
    )


def latency_figure(folder: Path, rounds: int) -> Figure:
    with OneByOne(folder, 1_000) as one_by_one:
        return Figure(
            "ledger append, 1 in flight, p50",
            "µs",
            "1,000 payloads of 1 KiB (frames of 1,072 bytes), 1 process, one fdatasync each, both sides",
            measure(one_by_one, rounds, RawOneByOne(folder, 1_000)),
            compared_with="write + fdatasync of the same",
            at_most=2.0,
        )


def scan_figure(folder: Path, rounds: int) -> Figure:
    surveyed = scanned_segment(folder / "to scan", 60_000)
    return Figure(
        "ledger scan, every CRC checked",
        "MB/s",
        "one segment of 60,000 payloads of 1 KiB, 1 process, nothing synced, file in the page cache",
        measure(Scanning(surveyed), rounds, Hashing(surveyed.path)),
        compared_with="sha256 of the same file",
        at_least=0.5,
    )


def emit_figure(folder: Path, rounds: int) -> Figure:
    with emitting(folder) as emit, bare_echo(folder) as echo:
        return Figure(
            "Emit, unary, delivered, 64 in flight",
            "calls/s",
            "4,000 events of about 700 bytes, 3 processes, ledger and SQLite synced before each answer; "
            "against 2 processes and no disk",
            measure(emit, rounds, echo),
            compared_with="grpc.aio unary echo of the same",
        )


if __name__ == "__main__":
    sys.exit(main())
