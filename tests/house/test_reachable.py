"""Every module is used: each can be reached by imports from a command, the benchmark or a conftest."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.house.tree import PRODUCT, ROOT, parsed, python_files

COMMAND = re.compile(r"[a-z_]+(\.[a-z_]+)+:[a-z_]+")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(path: Path) -> Iterator[str]:
    """Dotted names a file imports; `from a import b` may mean the module a.b, so both are named.

    And those of the commands of a table, as `serving.commands` loads them.
    """
    package = module_name(path) if path.stem == "__init__" else module_name(path).rpartition(".")[0]
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and COMMAND.fullmatch(node.value):
            yield node.value.partition(":")[0]


def reached(roots: list[str], modules: dict[str, Path]) -> set[str]:
    """Modules loaded when `roots` are: imports, theirs in turn, and the packages around each."""
    seen: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name in seen or name not in modules:
            continue
        seen.add(name)
        waiting += [*imported_names(modules[name]), name.rpartition(".")[0]]
    return seen


def test_every_module_of_the_product_is_reachable() -> None:
    modules = {module_name(path): path for path in python_files(*PRODUCT, "tests")}
    roots = ["omen_server.cli", "riskcast_server.cli"]
    roots += [name for name in modules if name.rpartition(".")[2] in ("__main__", "conftest")]
    unreached = modules.keys() - reached(roots, modules)
    assert sorted(name for name in unreached if not name.startswith("tests.")) == []


def test_every_support_module_of_the_tests_is_used_by_a_test() -> None:
    modules = {module_name(path): path for path in python_files("tests")}
    roots = [name for name in modules if name.rpartition(".")[2].startswith(("test_", "conftest"))]
    assert sorted(modules.keys() - reached(roots, modules)) == []
