"""Bugs that a ledger could have, to be let in on purpose: a pytest plugin.

    python -m pytest -p tests.ledger.mutants --mutant "no file fsync" tests/ledger/...

A mutant replaces lines in the source of a ledger module before that is imported. Text that is not there (any more) is a
usage error, so a mutant cannot quietly become no mutant.
"""

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

Edit = tuple[str, str, str]  # module, what stands there once, what shall stand there instead

MUTANTS: dict[str, tuple[Edit, ...]] = {
    "no directory fsync": (
        ("ledger.disk", "        disk.rename(temporary, path)\n        disk.fsync_dir(path.parent)\n",
                        "        disk.rename(temporary, path)\n"),
        ("ledger.disk", "    disk.mkdir(path)\n    disk.fsync_dir(path.parent)\n", "    disk.mkdir(path)\n"),
    ),
    "no file fsync": (
        ("ledger.files.segment", "        self._disk.fdatasync(self._fd)\n", ""),
    ),
    "acknowledged first": (  # and synced right afterwards
        ("ledger.writing.commit", "            segment.sync()\n", "            pass\n"),
        ("ledger.writer", "            self._on_commit(self._committer.commit(turn.batch, self._stamp()))\n",
                          "            self._on_commit(self._committer.commit(turn.batch, self._stamp()))\n"
                          "            for segment in self._committer._live.values():\n"
                          "                segment.sync()\n"),
    ),
    "no CRC of headers": (
        ("ledger.format", "    if extend(seed, data[start + 4 : start + HEADER_BYTES]) != crc:\n", "    if False:\n"),
        ("ledger.format", " or extend(seed, data[start + 4 : payload_start]) != crc:\n", ":\n"),
    ),
    "no CRC of payloads": (
        ("ledger.format", "value(payload) != header.payload_crc32c or any(", "any("),
        ("ledger.format", " or value(payload) != payload_crc or (", " or ("),
    ),
    "late group acknowledgement": (  # who joins while a batch is synced is acknowledged with that sync, before its own
        ("ledger.writing.commit", "            segment.sync()\n",
                                  "            segment.sync()\n"
                                  "        joined, more = self._route(self.joined(), now)\n"
                                  "        for partition, entries in joined.items():\n"
                                  "            self._write(partition, entries, now, more)\n"
                                  "        results += more\n"),
        ("ledger.writer", "        self._closing = Lock()\n",
                          "        self._closing = Lock()\n"
                          "        self._committer.joined = self._queue._swap\n"),
    ),
    "fsync retried": (
        ("ledger.files.segment", "        self._disk.fdatasync(self._fd)\n",
                           "        try:\n"
                           "            self._disk.fdatasync(self._fd)\n"
                           "        except OSError:\n"
                           "            self._disk.fdatasync(self._fd)\n"),
    ),
    "short write ignored": (
        ("ledger.disk", "    while written < len(data):\n", "    while False:\n"),
    ),
    "mark counted as durable before its fsync": (  # the next frames claim that it is
        ("ledger.files.segment", "        self.has_unmarked_batch = False\n        self.sync()\n",
                           "        self.has_unmarked_batch = False\n        self._durable_end = self._end\n"),
    ),
    "SEAL before the FOOTER is durable": (
        ("ledger.files.segment", "    write_all(disk, fd, frame)\n    disk.fdatasync(fd)\n",
                           "    write_all(disk, fd, frame)\n"),
    ),
    "FOOTER found and taken for durable": (  # a SEAL is then written, and the FOOTER is gone
        ("ledger.opening.takeover",
         "            disk.fsync(fd)\n            disk.fsync_dir(surveyed.path.parent)\n",
         "            disk.fsync_dir(surveyed.path.parent)\n"),
    ),
    "SEAL found and taken for durable": (  # whoever published it may have died before its name was
        ("ledger.opening.house", "            disk.fsync_dir(directory / info.name)\n", "            pass\n"),
    ),
}  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--mutant", choices=sorted(MUTANTS), required=True, help="the bug to let in")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Before any conftest imports the ledger."""
    assert not any(name.split(".")[0] == "ledger" for name in sys.modules)
    edits = MUTANTS[early_config.known_args_namespace.mutant]
    sys.meta_path.insert(0, Mutated({module: _edited(module, edits) for module, _, _ in edits}))


def _edited(module: str, edits: Sequence[Edit]) -> str:
    text = _path_of(module).read_text("utf-8")
    for name, old, new in edits:
        if name == module:
            if text.count(old) != 1:
                raise pytest.UsageError(f"{module} holds {old!r} {text.count(old)} times, not once")
            text = text.replace(old, new)
    return text


def _path_of(module: str) -> Path:
    return Path(__file__).parents[2].joinpath(*module.split(".")).with_suffix(".py")


class Mutated(MetaPathFinder, Loader):
    """Compiles the edited text each time, and caches nothing."""

    def __init__(self, texts: dict[str, str]) -> None:
        self._texts = texts

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return spec_from_loader(name, self, origin=str(_path_of(name))) if name in self._texts else None

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._texts[module.__name__], str(_path_of(module.__name__)), "exec"), module.__dict__)
