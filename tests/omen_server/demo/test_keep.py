"""`omen demo --keep`: the servers stay up, and the commands it prints work as printed."""

import json
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import pytest

from omen_server.demo.expected import expected_ids
from omen_server.demo.keep import BUF_EXIT_ALREADY_EXISTS
from omen_server.demo.programme import ACTS
from riskcast.v1.ingest_service_pb2 import DuplicateSignal
from tests.ledger.modes import exposed
from tests.omen_server.demo.running import ROOT, demo_process, ended, left_in, press_ctrl_c

TIMEOUT_S = 30.0
# What each buf command asks for, and what its answer says.
ANSWERS = [
    ("--list-services", "omen.v1.PipelineService"),
    ("--list-services", "riskcast.v1.IngestService"),
    ("grpc.health.v1.Health/Check", '"SERVING"'),
    ("grpc.health.v1.Health/Check", '"SERVING"'),
    ("omen.v1.PipelineService/Process", '"EMISSION_STATUS_DELIVERED"'),
    ("omen.v1.SignalService/GetSignal", '"DELIVERY_STATUS_SETTLED"'),
    ("riskcast.v1.SignalService/GetSignal", '"ackId"'),
    ("riskcast.v1.SignalService/CountSignals", '"signalCount"'),
    ("riskcast.v1.IngestService/Ingest", '"already_exists"'),
    ("riskcast.v1.ReconcileService/Reconcile", '"RECONCILE_STATUS_COMPLETED"'),
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def printed(directory: Path) -> Iterator[list[str]]:
    """What a kept demo has printed, while it is kept."""
    process = demo_process(directory, "--keep")
    assert process.stdout
    lines: list[str] = []
    while not (lines and lines[-1].startswith("Ctrl-C stops")):
        line = process.stdout.readline()
        if not line:
            pytest.fail(f"the demo ended: {ended(process).stderr}")
        lines.append(line.rstrip())
    try:
        yield lines
        press_ctrl_c(process)
        result = ended(process)
    finally:
        process.terminate()
        process.wait(TIMEOUT_S)
    assert (result.returncode, result.stderr) == (0, "")
    assert left_in(directory) == []


def buf_commands(printed: list[str]) -> list[str]:
    return [line for line in printed if " curl --protocol grpc " in line]


def run(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def test_the_story_names_every_act_and_every_promise(printed: list[str]) -> None:
    text = "\n".join(printed)
    assert [act.title for act in ACTS if f"  {act.title}\n" not in text] == []
    assert [act.promise for act in ACTS if f"Promised: {act.promise}" not in " ".join(text.split())] == []
    assert "Every promise held" in text
    assert text.count("✗") == 0


def test_a_buf_command_is_printed_for_each_thing_to_try(printed: list[str]) -> None:
    commands = buf_commands(printed)
    assert len(commands) == len(ANSWERS)
    assert [asked for (asked, _), command in zip(ANSWERS, commands, strict=True) if asked not in command] == []


@pytest.mark.parametrize(("number", "answer"), list(enumerate(answer for _, answer in ANSWERS)))
def test_a_buf_command_answers_as_printed(printed: list[str], number: int, answer: str) -> None:
    result = run(buf_commands(printed)[number])
    is_repeat = answer == '"already_exists"'
    assert result.returncode == (BUF_EXIT_ALREADY_EXISTS if is_repeat else 0), result.stderr
    assert answer in result.stdout + result.stderr


def test_the_repeat_carries_the_first_acknowledgement(printed: list[str]) -> None:
    by_method = {command.rpartition("/")[2]: command for command in buf_commands(printed)}
    stored = next(command for command in buf_commands(printed) if "riskcast.v1.SignalService/GetSignal" in command)
    ack_id = json.loads(run(stored).stdout)["signal"]["ackId"]
    error = json.loads(run(by_method["Ingest"]).stderr)
    (duplicate,) = [each for each in error["details"] if each["type"] == "riskcast.v1.DuplicateSignal"]
    assert DuplicateSignal.FromString(b64decode(f"{duplicate['value']}==")).ack_id == ack_id


def test_grpcurl_commands_ask_the_same(printed: list[str]) -> None:
    grpcurl = [line for line in printed if line.startswith("grpcurl ")]
    assert len(grpcurl) == len(ANSWERS)
    called = [method for method, _ in ANSWERS if "/" in method]
    assert [line for line, method in zip(grpcurl[2:], called, strict=True) if f" {method}" not in line] == []


def test_what_is_counted_includes_the_file(printed: list[str]) -> None:
    (count,) = [command for command in buf_commands(printed) if command.endswith("CountSignals")]
    assert int(json.loads(run(count).stdout)["signalCount"]) > len(expected_ids())


def test_everything_that_both_servers_and_the_demo_made_is_for_its_owner_alone(
    printed: list[str], directory: Path
) -> None:
    assert printed
    [stage] = directory.iterdir()
    assert {"omen-ledger", "riskcast.db", "riskcast.db-wal", "riskcast.db-shm", "riskcast.db.lock"} <= {
        path.name for path in stage.iterdir()
    }
    assert list(stage.glob("*.port"))
    assert list(stage.glob("*.log"))
    assert {"LOCK", "index.db", "index.db-wal", "delivery.db"} <= {path.name for path in stage.glob("omen-ledger/*")}
    assert exposed(stage) == {}
