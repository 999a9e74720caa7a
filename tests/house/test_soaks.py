"""A soak that has found something can be run again: its chance comes from `soak_seed` (tests/conftest.py) alone."""

import ast
import re

from tests.house.tree import parsed, place, python_files

SOAK = re.compile(r"\bpytest\.mark\.soak\b")
# What would make a seed of its own, in a test or in what it is built from.
OWN_CHANCE = re.compile(
    r"\bsecrets\.(rand|token|choice)|\bSystemRandom\b|\bos\.urandom\b|\brandom\.seed\b|\bRandom\(\)"
    r"|\brandom\.(random|rand\w+|choices?|sample|shuffle|uniform)\("
)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def soaks() -> dict[str, Function]:
    return {
        place(path, node.lineno): node
        for path in python_files("tests")
        for node in ast.walk(parsed(path))
        if isinstance(node, Function) and any(SOAK.search(ast.unparse(each)) for each in node.decorator_list)
    }


def is_seeded(soak: Function) -> bool:
    """It asks for the seed, and hands it on."""
    asked = "soak_seed" in [argument.arg for argument in soak.args.args]
    return asked and any(isinstance(node, ast.Name) and node.id == "soak_seed" for node in ast.walk(soak))


def test_every_soak_uses_the_seed_that_it_prints() -> None:
    assert soaks()
    assert [where for where, soak in soaks().items() if not is_seeded(soak)] == []


def test_a_test_is_marked_as_a_soak_where_it_is_defined() -> None:
    marks = [place(path) for path in python_files("tests") for _ in SOAK.findall(ast.unparse(parsed(path)))]
    assert len(marks) == len(soaks()), marks


def test_no_test_has_a_seed_that_cannot_be_given_back() -> None:
    found = [
        place(path, number)
        for path in python_files("tests")
        if path.parts[-2:] not in [("tests", "conftest.py"), ("house", "test_soaks.py")]
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if OWN_CHANCE.search(line)
    ]
    assert found == []
