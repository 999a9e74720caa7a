from functools import partial
from pathlib import Path

import pytest

from ledger import Ledger
from tests.ledger.faults import Clock
from tests.omen_server.watched import House
from tests.serving.conftest import pytest_pyfunc_call as pytest_pyfunc_call


@pytest.fixture
def house(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setattr("omen_server.journal.Ledger.open", partial(Ledger.open, now=clock))
    return House(tmp_path / "ledger", clock)


@pytest.fixture
def clock() -> Clock:
    return Clock()
