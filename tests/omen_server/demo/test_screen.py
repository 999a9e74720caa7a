"""The demo as JSON: one object, or a line per act, with what is kept."""

import json
from pathlib import Path

import pytest

from omen_server.demo.acts import Finding, Shown
from omen_server.demo.keep import Kept, Try
from omen_server.demo.programme import ACTS
from omen_server.demo.screen import screen_of
from serving.console import Output

KEPT = Kept(Path("/tmp/somewhere"), "127.0.0.1:1", "127.0.0.1:2", [Try("a question", "grpcurl x", "buf curl x")])
SHOWN = Shown([Finding("seen", ("in detail",))], {"count": 2})
ABOUT = {"act": 1, "title": ACTS[0].title, "promise": ACTS[0].promise, "duration_s": 0.25, "facts": {"count": 2}}


def test_json_is_one_object_with_the_acts_and_what_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    screen = screen_of(Output.JSON)
    screen.shown(1, ACTS[0], SHOWN, 0.25)
    screen.passed(1.5, KEPT)
    assert json.loads(capsys.readouterr().out) == {
        "passed": True,
        "duration_s": 1.5,
        "kept": {
            "directory": "/tmp/somewhere",
            "omen": "127.0.0.1:1",
            "riskcast": "127.0.0.1:2",
            "commands": [{"about": "a question", "grpcurl": "grpcurl x", "buf": "buf curl x"}],
        },
        "acts": [ABOUT],
    }


def test_jsonl_is_a_line_per_act_as_soon_as_it_is_over(capsys: pytest.CaptureFixture[str]) -> None:
    screen = screen_of(Output.JSONL)
    screen.shown(1, ACTS[0], SHOWN, 0.25)
    assert json.loads(capsys.readouterr().out) == ABOUT
    screen.failed("rows: expected 1, saw 2")
    assert json.loads(capsys.readouterr().out) == {"passed": False, "failure": "rows: expected 1, saw 2"}
