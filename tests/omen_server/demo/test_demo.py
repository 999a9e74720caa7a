"""`omen demo` shows what it says, fails when it does not, and leaves nothing behind."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omen_server.demo.expected import expected_ids, observations
from omen_server.demo.programme import ACTS
from tests.omen_server.demo.running import demo_process, ended, left_in, press_ctrl_c, run_demo

WRONG_ID = """
import omen_server.demo.acts as acts
right = acts.expected_ids()
acts.expected_ids = lambda: right | {"demo-polymarket:512345": "OMEN-000000000000"}
"""
NO_DATABASE = """
import omen_server.demo.servers as servers
servers.database = lambda directory: directory / "no such folder" / "riskcast.db"
"""


def test_every_act_passes_and_its_facts_add_up(tmp_path: Path) -> None:
    result = run_demo(tmp_path, "-o", "json")
    assert result.returncode == 0, result.stderr
    whole = json.loads(result.stdout)
    assert whole["passed"] is True
    assert [act["act"] for act in whole["acts"]] == list(range(1, len(ACTS) + 1))
    check_facts(*(act["facts"] for act in whole["acts"]), signals=len(expected_ids()))
    assert left_in(tmp_path) == []


def check_facts(
    file: Any, ids: Any, outage: Any, back: Any, refilled: Any, once: Any, burst: Any, *, signals: int
) -> None:
    assert (file["observations"], file["signals"]) == (len(observations()), signals)
    assert len(file["rejections"]) == len(observations()) - signals
    assert all(each["rule"] for each in file["rejections"])
    assert (file["ledger"], file["riskcast"]) == (signals, signals)
    assert ids["ids"] == expected_ids()
    assert (outage["status"], outage["ledger"], outage["backlog"]) == ("LEDGER_ONLY", signals + 2, 2)
    assert back == {"ledger": signals + 2, "riskcast": signals + 2}
    assert (refilled["replayed"], refilled["riskcast"]) == (signals + 2, signals + 2)
    assert once["at_once"] == {"OK": 1, "ALREADY_EXISTS": 19}
    assert (once["repeat"], once["different_ack_ids"], once["rows"]) == ("ALREADY_EXISTS", 1, 1)
    assert burst["cut"] > 0
    assert burst["ledger"] == burst["riskcast"] >= signals + 3 + burst["acknowledged"]


def test_an_id_that_is_not_the_committed_one_fails_the_demo_in_one_line(tmp_path: Path) -> None:
    result = run_demo(tmp_path, "-o", "json", prelude=WRONG_ID)
    assert result.returncode == 7
    whole = json.loads(result.stdout)
    assert whole["passed"] is False
    assert "expected OMEN-000000000000, saw OMEN-" in whole["failure"]
    assert [act["act"] for act in whole["acts"]] == [1]
    first, *logs = result.stderr.splitlines()
    assert first == f"failed: {whole['failure']}"
    assert {line.partition(":")[0] for line in logs} == {"OMEN", "RiskCast"}
    assert left_in(tmp_path) == []


def test_a_server_that_does_not_come_up_fails_the_demo_with_what_it_said(tmp_path: Path) -> None:
    result = run_demo(tmp_path, prelude=NO_DATABASE)
    assert result.returncode == 5
    assert "failed: RiskCast ended with exit code" in result.stderr
    assert "RiskCast: " in result.stderr
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("stop", [subprocess.Popen.terminate, press_ctrl_c], ids=["SIGTERM", "Ctrl-C"])
def test_a_demo_that_is_stopped_between_acts_takes_its_servers_with_it(
    stop: Callable[[subprocess.Popen[str]], None], tmp_path: Path
) -> None:
    process = demo_process(tmp_path, "-o", "jsonl")
    assert process.stdout
    assert json.loads(process.stdout.readline())["act"] == 1
    stop(process)
    result = ended(process)
    assert (result.returncode, result.stderr) == (1, "stopped before the end\n")
    assert left_in(tmp_path) == []
