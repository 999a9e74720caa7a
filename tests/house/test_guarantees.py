"""docs/guarantees.md names a proof for each promise, and every proof it names is an ordinary test that runs."""

import ast
import re

import pytest

from tests.house.tree import ROOT, parsed

GUARANTEES = (ROOT / "docs" / "guarantees.md").read_text("utf-8")
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
NAMED = sorted(set(TEST.findall(GUARANTEES)))


def test_every_promise_of_the_readme_has_a_section() -> None:
    readme = (ROOT / "README.md").read_text("utf-8").partition("## The promise")[2].partition("\n## ")[0]
    promised = re.findall(r"^(\d+)\. ", readme, re.MULTILINE)
    assert len(promised) == 11
    assert re.findall(r"^## (\d+)\. ", GUARANTEES, re.MULTILINE) == promised


def test_every_promise_names_a_proof_or_says_that_it_is_open() -> None:
    sections = re.split(r"^## ", GUARANTEES, flags=re.MULTILINE)[1:]
    silent = [section.splitlines()[0] for section in sections if not (TEST.search(section) or "**Open:**" in section)]
    assert silent == []


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[f"{file}::{name}" for file, name in NAMED])
def test_a_proof_that_is_named_exists_and_is_not_skipped(file: str, name: str) -> None:
    found = [
        node
        for node in ast.walk(parsed(ROOT / file))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name
    ]
    assert len(found) == 1
    marks = [ast.unparse(decorator) for decorator in found[0].decorator_list]
    marks += [
        ast.unparse(node.value)
        for node in parsed(ROOT / file).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
    ]
    assert [mark for mark in marks if "skip" in mark or "xfail" in mark or "soak" in mark] == []
