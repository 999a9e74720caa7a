"""`python -m bench`: what the whole costs, as ratios taken in one run."""

import argparse
import sys
import tempfile
from pathlib import Path

from bench.emit import bare_echo, emitting
from bench.ledger_append import Appending, RawSync
from bench.rounds import Figure, compare, report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three rounds instead of seven")
    rounds = 3 if parser.parse_args().quick else 7
    # Never on a tmpfs, where syncing costs nothing: beside the checkout.
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as name:
        folder = Path(name)
        figures: list[Figure] = [
            compare(
                "ledger append, 1 KiB, 64 in flight",
                Appending(folder, 20_000),
                "write + fdatasync of the same",
                RawSync(folder, 2_000),
                target=8.0,
                rounds=rounds,
            )
        ]
        with emitting(folder) as emit, bare_echo(folder) as echo:
            figures.append(
                compare(
                    "Emit, unary, delivered (fsync + commit), 64 in flight",
                    emit,
                    "grpc.aio unary echo of the same",
                    echo,
                    target=None,
                    rounds=rounds,
                )
            )
    return 0 if report(figures, Path("bench-results.json")) else 1


if __name__ == "__main__":
    sys.exit(main())
