"""Names say what a thing is; these say nothing."""

import re

import pytest

from tests.house.tree import ROOT, definitions, place, python_files

BANNED_MODULE = re.compile(r"(^|_)(utils?|commons?|helpers?|misc)(_|$)")
BANNED_DEFINITION = re.compile(
    r"Manager$|Helper$|Engine$|^_?Enhanced|^_?Unified|V2$|_v2$|(^|_)(enhanced|unified|helper|utils?|misc)(_|$)"
)


def test_no_module_or_folder_has_a_name_that_says_nothing() -> None:
    parts = {part for path in python_files() for part in (*path.relative_to(ROOT).parent.parts, path.stem)}
    assert sorted(part for part in parts if BANNED_MODULE.search(part)) == []


def test_no_class_or_function_has_a_name_that_says_nothing() -> None:
    found = [
        f"{place(path, node.lineno)} {node.name}"
        for path in python_files()
        for node in definitions(path)
        if BANNED_DEFINITION.search(node.name)
    ]
    assert found == []


@pytest.mark.parametrize("name", ["LedgerManager", "EnhancedSignal", "SignalV2", "parse_v2", "date_helper"])
def test_the_rule_for_definitions_catches(name: str) -> None:
    assert BANNED_DEFINITION.search(name)


@pytest.mark.parametrize("name", ["utils", "string_utils", "common", "test_helpers"])
def test_the_rule_for_modules_catches(name: str) -> None:
    assert BANNED_MODULE.search(name)
