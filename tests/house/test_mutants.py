"""A mutant whose text has moved would be noticed only where its tests wait for minutes, in a soak."""

from importlib import import_module

import pytest

from tests.house.tree import ROOT
from tests.mutation import Mutants, edited

TABLES = sorted(f"tests.{path.parent.name}.mutants" for path in ROOT.glob("tests/*/mutants.py"))


def test_the_tables_are_found() -> None:
    assert TABLES == ["tests.ledger.mutants", "tests.omen_server.mutants", "tests.riskcast_server.mutants"]


@pytest.mark.parametrize("table", TABLES)
def test_what_each_mutant_replaces_stands_in_its_module_once(table: str) -> None:
    mutants: Mutants = import_module(table).MUTANTS
    stale: list[str] = []
    for name, edits in mutants.items():
        for module in {module for module, _, _ in edits}:
            try:
                compile(edited(module, edits), module, "exec")
            except (pytest.UsageError, SyntaxError) as error:
                stale.append(f"{name}: {error}")
    assert stale == []
