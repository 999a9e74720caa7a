"""What a process says and answers its starter when something in it dies that must not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.omen_server.running import closed_port
from tests.system.processes import ROOT, environment

DYING = """
import {module}.app
from {module}.cli import main

async def dying(*arguments):
    raise ZeroDivisionError("nobody foresaw it")

{module}.app.{task} = dying
main()
"""


@pytest.mark.parametrize(
    ("module", "task", "settings"),
    [
        ("omen_server", "seal_due", {"OMEN_LISTEN": "127.0.0.1:0", "OMEN_LEDGER_DIR": "ledger"}),
        ("riskcast_server", "keep_schedule", {"RISKCAST_LISTEN": "127.0.0.1:0"}),
    ],
)
def test_a_process_in_which_a_task_dies_exits_with_1_and_its_last_line_tells_the_reason(
    tmp_path: Path, module: str, task: str, settings: dict[str, str]
) -> None:
    if module == "omen_server":
        settings = {**settings, "OMEN_RISKCAST_TARGET": f"127.0.0.1:{closed_port()}"}
    ended = subprocess.run(
        [sys.executable, "-c", DYING.format(module=module, task=task), "serve"],
        cwd=tmp_path,
        env={**environment(settings), "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    last = json.loads(ended.stderr.splitlines()[-1])
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert (last["level"], last["event"]) == ("critical", "server_failed")
    assert last["reason"] == "ZeroDivisionError: nobody foresaw it"
