"""Bugs that the product could have, to be let in on purpose: a pytest plugin, and the proof that a test notices.

    python -m pytest -p tests.mutation --mutant "tests.ledger.mutants:no file fsync" tests/ledger/...

A mutant replaces lines in the source of a module before that is imported. Text that is not there (any more) is a usage
error, so a mutant cannot quietly become no mutant. The tables of mutants lie beside the tests that kill them.
"""

import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

Edit = tuple[str, str, str]  # module, what stands there once, what shall stand there instead
Mutants = dict[str, tuple[Edit, ...]]  # by name, each a module's MUTANTS

ROOT = Path(__file__).parents[1]
DEADLINE_S = 110  # a test may take 120
# A difference of two ledgers takes seconds to print, and nobody reads it. Other plugins than the one that our settings
# name take longer to load than most of these tests to fail.
QUICKLY = ["-q", "--assert=plain", "--tb=line", "-p", "no:cacheprovider"]
QUICKLY += ["--disable-plugin-autoload", "-p", "pytest_timeout"]


def assert_killed(table: str, mutant: str, nodes: Sequence[str]) -> None:
    """Each of the tests fails. That they pass without the mutant is what the run shows that this one is part of."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.mutation",
        "--mutant",
        f"{table}:{mutant}",
        *nodes,
        *QUICKLY,
    ]
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert child.returncode == pytest.ExitCode.TESTS_FAILED, child.stdout + child.stderr
    assert [node for node in nodes if f"\nFAILED {node}" not in child.stdout] == [], child.stdout
    assert "\nERROR " not in child.stdout, child.stdout


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--mutant", required=True, help="the bug to let in: MODULE:NAME in its MUTANTS")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Before any conftest imports what is to be mutated."""
    table, _, name = early_config.known_args_namespace.mutant.partition(":")
    mutants: Mutants = import_module(table).MUTANTS
    if name not in mutants:
        raise pytest.UsageError(f"{table} has no mutant {name!r}, only {sorted(mutants)}")
    edits = mutants[name]
    assert not sys.modules.keys() & {module for module, _, _ in edits}
    sys.meta_path.insert(0, Mutated({module: edited(module, edits) for module, _, _ in edits}))


def edited(module: str, edits: Sequence[Edit]) -> str:
    """The text of the module with those of the edits that are its own."""
    text = _path_of(module).read_text("utf-8")
    for name, old, new in edits:
        if name == module:
            if text.count(old) != 1:
                raise pytest.UsageError(f"{module} holds {old!r} {text.count(old)} times, not once")
            text = text.replace(old, new)
    return text


def _path_of(module: str) -> Path:
    return ROOT.joinpath(*module.split(".")).with_suffix(".py")


class Mutated(MetaPathFinder, Loader):
    """Compiles the edited text each time, and caches nothing."""

    def __init__(self, texts: dict[str, str]) -> None:
        self._texts = texts

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return spec_from_loader(name, self, origin=str(_path_of(name))) if name in self._texts else None

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._texts[module.__name__], str(_path_of(module.__name__)), "exec"), module.__dict__)
