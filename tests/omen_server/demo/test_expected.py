"""The committed ids are those that today's rules give."""

import subprocess
import sys

from contract.validation import check_observation
from omen.v1.signal_event_pb2 import SignalEvent
from omen_server.demo.expected import another, computed_ids, expected_ids, observations
from omen_server.domain import process
from tests.omen_server.demo.running import ROOT


def test_the_committed_ids_are_those_of_the_rules() -> None:
    assert expected_ids() == computed_ids()


def test_the_documented_command_writes_the_committed_file() -> None:
    command = [sys.executable, "-m", "omen_server.demo.expected"]
    written = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    assert written == (ROOT / "omen_server" / "demo" / "expected.json").read_bytes()


def test_every_observation_is_valid_and_has_a_name_of_its_own() -> None:
    for observation in observations():
        check_observation(observation)
    names = [observation.source_event_id for observation in observations()]
    assert len(set(names)) == len(names)


def test_the_same_text_under_another_name_is_another_signal() -> None:
    first = next(each for each in observations() if each.source_event_id in expected_ids())
    other = another(first, "again")
    check_observation(other)
    event = process(other)
    assert isinstance(event, SignalEvent)
    assert event.signal_id not in expected_ids().values()
