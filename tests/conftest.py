"""A skipped test proves nothing: a run fails when one skips for a reason that is not listed here.

And a soak that fails can be run again: its chance comes from `soak_seed` alone.
"""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import structlog
from hypothesis import settings
from structlog.typing import EventDict

from tests.power.exploration import STATES_EXAMINED

# Reason, as the skip gives it -> why a machine may lack what the test needs.
ALLOWED_SKIPS: dict[str, str] = {
    "node or npm is not installed": "the Node client is one more proof, not a need of the project",
    "the packages of the Node client cannot be had": "they come from the npm registry, which a machine may not reach",
}

TESTS = Path(__file__).parent
MEMORY = Path("/dev/shm")

# Where few tests take long: begun last, they would keep one processor busy while the others have nothing left to do.
LONG = ("simulation", "faults", "hostile", "system")

# The same examples in every run, however long a busy machine takes for one.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


def without_calls(_logger: object, _name: str, event: EventDict) -> EventDict:
    """The line of each call is for the tests that capture it; others read what else is printed."""
    if event["event"] == "call":
        raise structlog.DropEvent
    return event


structlog.configure(processors=[without_calls, *structlog.get_config()["processors"]])
UNEXPECTED = pytest.StashKey[list[str]]()


@pytest.fixture
def soak_seed(request: pytest.FixtureRequest) -> int:
    """Whatever a test marked soak leaves to chance derives from this: SOAK_SEED where that is set, else a new one."""
    seed = int(os.environ.get("SOAK_SEED") or secrets.randbits(32))
    print(f"\n{request.node.nodeid}: SOAK_SEED={seed}")  # noqa: T201 - it repeats the run
    return seed


@pytest.fixture
def where(tmp_path: Path) -> Iterator[Path]:
    """An empty directory for thousands of small files: in memory, where a machine lends some for that."""
    with TemporaryDirectory(dir=MEMORY if MEMORY.exists() else tmp_path) as path:
        yield Path(path)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[UNEXPECTED] = []
    config.pluginmanager.register(SkipWatch(config.stash[UNEXPECTED]), "skip-watch")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.relative_to(TESTS).parts[0] not in LONG)


class SkipWatch:
    """Notes each skip, of a test or of a whole module, that nothing allows."""

    def __init__(self, unexpected: list[str]) -> None:
        self.unexpected = unexpected

    def note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail") and isinstance(report.longrepr, tuple):
            reason = report.longrepr[2].removeprefix("Skipped: ")
            if reason not in ALLOWED_SKIPS:
                self.unexpected.append(f"{report.nodeid}: {reason}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self.note(report)


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    if session.config.stash[UNEXPECTED] and session.exitstatus in (
        pytest.ExitCode.OK,
        pytest.ExitCode.NO_TESTS_COLLECTED,
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for report in terminalreporter.getreports("passed"):
        for name, told in report.user_properties:
            if name == STATES_EXAMINED:
                terminalreporter.write_line(f"{name}: {told}")
    if unexpected := config.stash[UNEXPECTED]:
        terminalreporter.section("skips that nothing allows (tests/conftest.py)", red=True)
        for line in unexpected:
            terminalreporter.line(line)
