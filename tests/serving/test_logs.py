"""What is logged reads the same wherever it comes from, and tells no secrets."""

import json
import os
import pty
import subprocess

import pytest

from tests.serving.child import child

LOGS = """
serving.configure_logging()
def fail():
    api_key = "hunter" + "2"
    raise RuntimeError("it broke")
structlog.get_logger("ours").info("serving", port=50051)
structlog.get_logger("ours").debug("not shown")
logging.getLogger("grpc._cython.cygrpc").warning("from %s", "gRPC", extra={"peer": "ipv4"})
logging.getLogger("asyncio").debug("not shown")
warnings.warn("old", DeprecationWarning)
try:
    fail()
except RuntimeError as error:
    structlog.get_logger("ours").error("failed", exc_info=error)
    logging.getLogger("theirs").exception("failed too")
structlog.get_logger("ours").info("said", text=HOSTILE, texts=[HOSTILE], path=os.path)
logging.getLogger("theirs").warning(HOSTILE)
logging.getLogger("theirs").warning("%d of %d", 1)
structlog.get_logger("ours").info("long", text="a" * 100_000 + "z", few=["b" * 100_000])
structlog.contextvars.bind_contextvars(signal_id="OMEN-886183D04566")
structlog.get_logger("ours").info("bound")
logging.getLogger("theirs").info("bound too")
"""
# What would clear a screen, name a window, hide a text or begin a line of its own.
HOSTILE = "\x1b[2J\x1b]0;owned\x07\u202e\r\n{}"
LOGS = f"HOSTILE = {HOSTILE!r}\n{LOGS}"
LINE_CHARS_MAX = 64 * 1024


@pytest.fixture(scope="module")
def stderr_of_a_program() -> str:
    with child(LOGS) as process:
        out, err = process.communicate(timeout=20)
    assert out == ""
    return err


def test_every_line_on_stderr_is_json_with_its_level_time_and_logger(stderr_of_a_program: str) -> None:
    err = stderr_of_a_program
    lines = [json.loads(line) for line in err.splitlines()][:5]
    found = [(line["level"], line["logger"], line["event"].split("\n")[0]) for line in lines]
    warning = found.pop(2)
    assert found == [
        ("info", "ours", "serving"),
        ("warning", "grpc._cython.cygrpc", "from gRPC"),
        ("error", "ours", "failed"),
        ("error", "theirs", "failed too"),
    ]
    assert warning[:2] == ("warning", "py.warnings")
    assert "DeprecationWarning: old" in warning[2]
    assert all(line["timestamp"].endswith("Z") for line in lines)
    assert (lines[0]["port"], lines[1]["peer"]) == (50051, "ipv4")
    for line in lines[3:]:
        assert line["exception"].endswith("RuntimeError: it broke")
    assert "hunter2" not in err


def test_whatever_a_text_holds_its_line_is_one_short_line_of_ascii(stderr_of_a_program: str) -> None:
    err = stderr_of_a_program
    assert err.isascii()
    assert all(each.isprintable() for each in err.splitlines())
    assert max(len(line) for line in err.splitlines()) < LINE_CHARS_MAX
    ours, theirs, unfit, long, *_ = [json.loads(line) for line in err.splitlines()][5:]
    assert (ours["text"], ours["texts"], theirs["event"]) == (HOSTILE, [HOSTILE], HOSTILE)
    assert ours["path"].startswith("<module")
    assert unfit["event"] == "%d of %d (1,)"
    assert (long["text"][:3], long["text"][-3:]) == ("aaa", "aaz")


def test_what_a_call_has_bound_is_on_the_lines_of_other_libraries_too(stderr_of_a_program: str) -> None:
    err = stderr_of_a_program
    bound = [json.loads(line) for line in err.splitlines() if "OMEN-886183D04566" in line]
    assert [line["event"] for line in bound] == ["bound", "bound too"]


def test_on_a_terminal_people_read_lines_with_tracebacks_without_the_values_of_variables() -> None:
    controller, terminal = pty.openpty()
    with child(LOGS, stderr=terminal) as process:
        os.close(terminal)
        shown = read_to_the_end(controller)
        assert process.wait(20) == 0
    assert "serving" in shown
    assert "50051" in shown
    assert "RuntimeError: it broke" in shown
    assert "hunter2" not in shown
    assert '{"' not in shown
    for harmful in ("\x1b[2J", "\x1b]", "\x07", "\u202e", "owned\r"):
        assert harmful not in shown
    assert "\\x1b]0;owned" in shown


def read_to_the_end(controller: int) -> str:
    """A terminal has no end of file: its controller fails once nobody holds the other side."""
    read = b""
    try:
        while chunk := os.read(controller, 65536):
            read += chunk
    except OSError:
        pass
    finally:
        os.close(controller)
    return read.decode()


def test_output_that_is_piped_has_no_colours() -> None:
    with child(LOGS, stderr=subprocess.STDOUT) as process:
        out, _ = process.communicate(timeout=20)
    assert "\x1b" not in out
