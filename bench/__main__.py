"""`python -m bench`: what the whole costs, mostly as ratios taken in one run."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import (
    audit_load,
    chain,
    delivered,
    filled_store,
    ingest,
    ledger_append,
    ledger_scan,
    memory,
    outage,
    restart,
)
from bench.plot import draw
from bench.rounds import Figure, Scale, environment, report

# In the order in which they are measured and shown.
FIGURES: dict[str, Callable[[Scale], Sequence[Figure]]] = {
    "append": ledger_append.figures,
    "scan": ledger_scan.figures,
    "restart": restart.figures,
    "delivered": delivered.figures,
    "outage": outage.figures,
    "memory": memory.figures,
    "chain": chain.figures,
    "ingest": ingest.figures,
    "filled": filled_store.figures,
    "audit": audit_load.figures,
}
LARGE = ("restart", "filled")  # those that grow with what is stored

RESULTS = Path("bench-results.json")


def main() -> int:
    given = arguments()
    around = environment(given.rounds)
    # Never on a tmpfs, where syncing costs nothing: beside the checkout.
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as name:
        scale = Scale(
            Path(name),
            given.rounds,
            given.rows,
            given.restarted,
            loaded_s=10.0 if given.quick else 60.0,
            share=0.25 if given.quick else 1.0,
        )
        figures = [figure for name in given.only for figure in FIGURES[name](scale)]
    is_reached = report(figures, around, RESULTS)
    draw(figures, RESULTS.with_suffix(".svg"))
    print(f"written: {RESULTS} and {RESULTS.with_suffix('.svg')}")
    return 0 if is_reached else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", metavar="PART", help=f"of {', '.join(FIGURES)}; all by default")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="three short rounds instead of seven, a tenth of the rows")
    size.add_argument("--large", action="store_true", help="what grows with what is stored, on 10 million rows")
    parser.add_argument("--rounds", type=int, help="how often each is measured, at least 3")
    parser.add_argument("--rows", type=int, help="rows that RiskCast stores, and records of the ledger beside it")
    parser.add_argument("--restarted", type=int, help="records of the ledger that is restarted")
    given = parser.parse_args()
    stored = 100_000 if given.quick else 10_000_000 if given.large else 1_000_000
    given.rounds = given.rounds or (3 if given.quick or given.large else 7)
    given.rows = given.rows or stored
    given.restarted = given.restarted or stored
    if unknown := set(given.only) - FIGURES.keys():
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    given.only = given.only or (LARGE if given.large else list(FIGURES))
    return given


if __name__ == "__main__":
    sys.exit(main())
