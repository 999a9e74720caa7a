"""OMEN and RiskCast keep their promises together, whatever goes wrong, in whatever order, in every seed that is tried.

A failure prints its seed and how it ended; `simulated(seed).trace` is all of it, and the same again on any machine.
"""

import os
import subprocess
import sys
from collections import Counter
from functools import cache
from itertools import islice
from pathlib import Path

import pytest

from tests.simulation.simulation import Report, simulated
from tests.simulation.world import FAULTS_MIN, FOLDER, OPERATIONS_MIN, Fault, Sight

ROOT = Path(__file__).parents[2]
SEEDS = range(300)
SEEDS_PER_TEST = 20
SOAK_SEEDS = int(os.environ.get("SOAK_SEEDS", "20000"))  # an hour and a half; a million take three days
PORTIONS = [SEEDS[start : start + SEEDS_PER_TEST] for start in range(0, len(SEEDS), SEEDS_PER_TEST)]

report_of = cache(simulated)


def check(report: Report) -> None:
    assert not report.flaws, str(report)
    assert report.operation_count >= OPERATIONS_MIN, str(report)
    assert report.faults.total() >= FAULTS_MIN, str(report)


@pytest.mark.parametrize("seeds", PORTIONS, ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_the_cores_keep_their_promises(seeds: range) -> None:
    for seed in seeds:
        check(report_of(seed))


def test_every_fault_strikes_and_every_answer_is_seen() -> None:
    """Over all seeds of a run, or they prove less than they seem to."""
    faults, seen = Counter[Fault](), Counter[Sight]()
    for seed in SEEDS:
        faults += report_of(seed).faults
        seen += report_of(seed).seen
    assert set(faults) == set(Fault)
    assert set(seen) == set(Sight)


def test_a_seed_repeats_in_every_process() -> None:
    """Also where sets have another order, and in another folder, of which errors tell the name."""
    telling = (seed for seed in SEEDS if f"{FOLDER}/" in "".join(report_of(seed).trace))
    repeated = [*islice(telling, 2)]
    program = f"from tests.simulation.simulation import simulated; print(*(simulated(n).digest for n in {repeated}))"
    environment = {"PYTHONHASHSEED": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}"}
    elsewhere = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    digests = [report_of(seed).digest for seed in repeated]
    assert elsewhere.stdout.split() == digests
    assert simulated(repeated[0]).digest == digests[0] != digests[1]


@pytest.mark.soak
def test_the_cores_keep_their_promises_seed_after_seed(soak_seed: int) -> None:
    for seed in range(soak_seed, soak_seed + SOAK_SEEDS):
        check(simulated(seed))
