"""Each mutant is killed by an ordinary test: were one of these bugs in the ledger, `make test` would say so."""

import pytest

from tests.ledger.mutants import MUTANTS
from tests.mutation import assert_killed

AFTER_A_POWER_CUT = (
    "test_power_loss.py::test_after_a_power_cut_everything_acknowledged_is_there_and_nothing_is_called_damaged"
)
ROT = "test_rot.py::test_whatever_rots_is_named_exactly_and_everything_else_is_served"

KILLED_BY = {
    "no directory fsync": f"{AFTER_A_POWER_CUT}[append]",
    "no file fsync": f"{AFTER_A_POWER_CUT}[append]",
    "acknowledged first": f"{AFTER_A_POWER_CUT}[append]",
    "no CRC of headers": f"{ROT}[0]",
    "no CRC of payloads": f"{ROT}[0]",
    "late group acknowledgement": (
        "test_group_commit.py::test_what_joins_while_a_batch_is_synced_is_not_acknowledged_with_that_sync"
    ),
    "fsync retried": "test_disk_failures.py::test_after_a_failed_fsync_every_waiter_fails_with_outcome_unknown",
    "short write ignored": "test_writer.py::test_a_short_write_is_followed_by_the_rest",
    "mark counted as durable before its fsync": f"{AFTER_A_POWER_CUT}[append]",
    "SEAL before the FOOTER is durable": f"{AFTER_A_POWER_CUT}[seal]",
    "FOOTER found and taken for durable": f"{AFTER_A_POWER_CUT}[seal after a death over a FOOTER]",
    "SEAL found and taken for durable": f"{AFTER_A_POWER_CUT}[seal after a death over a SEAL]",
}


def test_every_mutant_has_its_test() -> None:
    assert set(KILLED_BY) == set(MUTANTS)


@pytest.mark.parametrize(("mutant", "test"), KILLED_BY.items(), ids=KILLED_BY)
def test_the_mutant_is_killed(mutant: str, test: str) -> None:
    assert_killed("tests.ledger.mutants", mutant, [f"tests/ledger/{test}"])
