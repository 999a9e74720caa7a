"""Each mutant is killed by ordinary tests: were one of these bugs in RiskCast, `make test` would say so."""

from collections.abc import Sequence

import pytest

from tests.mutation import assert_killed
from tests.riskcast_server.mutants import MUTANTS

AFTER_A_POWER_CUT = (
    "power/test_power_loss.py"
    "::test_after_a_power_cut_everything_answered_is_there_and_is_answered_again_in_the_same_words"
)

CONTRACT = "store/test_contract.py"
REPLICAS = "store/test_postgres_replicas.py"
SIMULATION = "tests/simulation/test_simulation.py::test_the_cores_keep_their_promises[0-19]"

KILLED_BY: dict[str, Sequence[str]] = {
    "synchronous=NORMAL": [f"{AFTER_A_POWER_CUT}[settle]"],
    "journal_mode=DELETE": [f"{AFTER_A_POWER_CUT}[settle]"],
    "log of a killed process taken for synced": [f"{AFTER_A_POWER_CUT}[restart before a sync]"],
    "acknowledged before the commit": [
        f"{AFTER_A_POWER_CUT}[settle]",
        f"{CONTRACT}::test_what_is_settled_is_committed_when_the_answer_comes[sqlite_database]",
        SIMULATION,
    ],
    "covered outside the transaction": [
        f"{AFTER_A_POWER_CUT}[settle]",
        f"{CONTRACT}::test_rows_settlements_and_coverage_are_written_together_or_not_at_all[sqlite_database-coverage]",
        SIMULATION,
    ],
    "conflict counted as duplicate": ["test_settlement.py::test_the_table_of_outcomes", SIMULATION],
    "coverage trusted without counting": [
        f"{CONTRACT}::test_coverage_says_what_the_tables_say_whatever_is_settled_and_whatever_is_deleted[sqlite_database-0]",
        SIMULATION,
    ],
    "coverage trusted when the count is right": [
        f"{CONTRACT}::test_as_many_records_as_were_counted_may_be_others[sqlite_database-a hole]",
        f"{CONTRACT}::test_as_many_records_as_were_counted_may_be_others[sqlite_database-no hole]",
    ],
    "PostgreSQL: places given out without holding the segment": [
        f"{REPLICAS}::test_a_place_goes_to_one_signal_whoever_asks_for_it_at_once"
    ],
    "PostgreSQL: nothing in order": [
        f"{REPLICAS}::test_a_batch_takes_what_it_needs_in_one_order_whatever_its_own[{of}]"
        for of in ("known segments", "new segments", "signals")
    ],
    "PostgreSQL: another replica's signal taken for its own": [
        f"{REPLICAS}::test_a_batch_that_another_replica_outran_is_decided_again"
    ],
    "PostgreSQL: synchronous_commit as it comes": [
        "store/test_postgres_faults.py"
        "::test_a_server_that_would_lose_commits_is_refused_at_the_start_and_unavailable_later"
    ],
}


def test_every_mutant_has_its_tests() -> None:
    assert set(KILLED_BY) == set(MUTANTS)
    assert all(KILLED_BY.values())


@pytest.mark.parametrize(("mutant", "tests"), KILLED_BY.items(), ids=KILLED_BY)
def test_the_mutant_is_killed(mutant: str, tests: Sequence[str]) -> None:
    assert_killed("tests.riskcast_server.mutants", mutant, [at(test) for test in tests])


def at(test: str) -> str:
    return test if test.startswith("tests/") else f"tests/riskcast_server/{test}"
