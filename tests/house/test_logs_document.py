"""docs/logs.md lists the events that are logged, and no others."""

import ast
import re
from collections.abc import Iterator

from tests.house.tree import PRODUCT, ROOT, parsed, place, python_files

DOCUMENT = (ROOT / "docs" / "logs.md").read_text("utf-8")
TELLING = {"info", "warning", "error", "critical"}


def logged() -> Iterator[tuple[str, str]]:
    """Each event with the name of the function it is told by; `tell` is one of a level that was chosen."""
    for path in python_files(*PRODUCT):
        if "structlog" in path.read_text("utf-8"):
            for node in ast.walk(parsed(path)):
                if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                    if isinstance(node.func, ast.Attribute) and node.func.attr in TELLING:
                        yield str(node.args[0].value), node.func.attr
                    elif isinstance(node.func, ast.Name) and node.func.id == "tell":
                        yield str(node.args[0].value), "tell"
    yield "log_lines_lost", "warning"  # rendered by itself, when there is a place for it again


def documented() -> dict[str, set[str]]:
    table = DOCUMENT.partition("## Events")[2].partition("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("| `")
    ]
    return {name: set(row[1].split(", ")) for row in rows for name in re.findall(r"`(\w+)`", row[0])}


def test_every_event_that_is_logged_is_listed_and_no_other() -> None:
    assert {name for name, _ in logged()} == documented().keys()


def test_the_listed_level_is_the_one_it_is_logged_at() -> None:
    levels: dict[str, set[str]] = {}
    for name, level in logged():
        levels.setdefault(name, set()).add(level)
    assert {name: told for name, told in levels.items() if told != {"tell"}} == {
        name: told for name, told in documented().items() if levels[name] != {"tell"}
    }


def test_every_logger_has_the_name_of_its_module() -> None:
    nameless = [
        place(path, node.lineno)
        for path in python_files(*PRODUCT)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("get_logger")
        if ast.unparse(node) != "structlog.get_logger(__name__)"
    ]
    assert nameless == []
