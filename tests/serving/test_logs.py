"""What is logged reads the same wherever it comes from, and tells no secrets."""

import json
import os
import pty
import subprocess

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
"""


def test_every_line_on_stderr_is_json_with_its_level_time_and_logger() -> None:
    with child(LOGS) as process:
        out, err = process.communicate(timeout=20)
    assert out == ""
    lines = [json.loads(line) for line in err.splitlines()]
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
