"""The simulation notices bugs of the ledger, of delivery and of RiskCast: it fails where one of them is let in."""

from collections.abc import Iterator
from random import Random

import pytest

from tests.ledger.mutants import MUTANTS as OF_THE_LEDGER
from tests.mutation import assert_killed
from tests.omen_server.mutants import MUTANTS as OF_DELIVERY
from tests.riskcast_server.mutants import MUTANTS as OF_RISKCAST

TABLES = {
    "tests.ledger.mutants": OF_THE_LEDGER,
    "tests.omen_server.mutants": OF_DELIVERY,
    "tests.riskcast_server.mutants": OF_RISKCAST,
}
SEEDS = "tests/simulation/test_simulation.py::test_the_cores_keep_their_promises[20-39]"

# Why a bug cannot show there. What kills it is named beside its table.
HIDDEN = {
    "no CRC of headers": "rot strikes payloads there",
    "late group acknowledgement": "a commit is one moment there, in which nobody can join",
    "mark counted as durable before its fsync": "it takes a power cut right behind a mark, and rot behind that",
    "FOOTER found and taken for durable": "it takes two power cuts, and a SEAL between them",
    "SEAL found and taken for durable": "it takes a death in the middle of a SEAL, and a power cut",
    "old records starve new ones": "it is an order, not an outcome",
    "what cannot be read taken again for ever": "rot seldom strikes a record of which all others around are settled",
    "silence waited out": "something else ends a silent stream sooner, nearly always",
    "synchronous=NORMAL": "the database of RiskCast loses no power there, it is killed",
    "journal_mode=DELETE": "the database of RiskCast loses no power there, it is killed",
    "log of a killed process taken for synced": "the database of RiskCast loses no power there, it is killed",
    "coverage trusted when the count is right": "nobody spoils a cache there so that its count stays right",
}
ALWAYS_TRIED = [
    ("tests.ledger.mutants", "acknowledged first"),
    ("tests.ledger.mutants", "no CRC of payloads"),
    ("tests.omen_server.mutants", "settled as soon as it is sent"),
    ("tests.omen_server.mutants", "in-flight records forgotten on a break"),
    ("tests.omen_server.mutants", "conflict swallowed"),
    ("tests.omen_server.mutants", "dead letter not written"),
    ("tests.riskcast_server.mutants", "covered outside the transaction"),
]


def visible() -> Iterator[tuple[str, str]]:
    for table, mutants in TABLES.items():
        for mutant in mutants:
            if mutant not in HIDDEN and not mutant.startswith("PostgreSQL"):  # there is none
                yield table, mutant


def test_what_cannot_show_is_a_mutant() -> None:
    assert HIDDEN.keys() <= {mutant for mutants in TABLES.values() for mutant in mutants}
    assert {*ALWAYS_TRIED} <= {*visible()}


@pytest.mark.parametrize(("table", "mutant"), ALWAYS_TRIED, ids=[mutant for _, mutant in ALWAYS_TRIED])
def test_the_simulation_notices(table: str, mutant: str) -> None:
    assert_killed(table, mutant, [SEEDS])


@pytest.mark.soak
def test_the_simulation_notices_all_that_can_show(soak_seed: int) -> None:
    every = [*visible()]
    for table, mutant in Random(soak_seed).sample(every, len(every)):
        assert_killed(table, mutant, [SEEDS])
