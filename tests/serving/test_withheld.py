"""Secrets of the settings that name a collector: OpenTelemetry quotes them, and no line of ours does."""

import json
from typing import Any

import pytest

from tests.serving.child import child

CANARY = "canary-4f1d"
HEADER = f"authorization=Bearer%20{CANARY}"
OK = "HTTP/1.0 200 OK\r\n\r\n"
# The headers that are set, and what the collector answers; "": nobody listens.
CASES = {
    "a misspelt header": (f"authorization: Bearer {CANARY}", OK),
    "a reason that quotes": (HEADER, "HTTP/1.0 401 I know no KEY\r\n\r\n"),
    "headers that quote": (HEADER, "HTTP/1.0 401 No\r\nyou said: KEY\r\nno header KEY\r\n\r\n"),
    "a header that cannot be sent": (f"authorization=Bearer%0A{CANARY}", OK),
    "nobody listens": (HEADER, ""),
}
SENDING = """
import grpc
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from serving.telemetry.collector import recorded

class Answer(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.wfile.write(self.server.answer.replace("KEY", self.headers["authorization"] or "").encode())

    def log_message(self, *args):
        pass

async def send(endpoint):
    async with recorded(endpoint, "omen") as spans:
        spans.call("/a/b", None).ended(grpc.StatusCode.OK, "")

def sent(case, headers, answer):
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        server.answer = answer
        endpoint = f"http://127.0.0.1:{server.server_port}"
        if answer:
            Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        else:
            server.server_close()
        os.environ["OTEL_EXPORTER_OTLP_HEADERS"] = headers
        structlog.get_logger("test").info(case)
        asyncio.run(send(endpoint))
        if answer:
            server.shutdown()

serving.configure_logging()
for case, (headers, answer) in CASES.items():
    sent(case, headers, answer)
os.environ["OTEL_BSP_MAX_QUEUE_SIZE"] = CANARY
sent("a setting", "", "HTTP/1.0 200 OK\\r\\n\\r\\n")
structlog.get_logger("test").info("a text that is not known")
told = logging.getLogger("opentelemetry.new")
told.error(CANARY, extra={"header": CANARY})
told.error("Queue full, dropping %s.", CANARY, CANARY)
told.error("Queue full, dropping %s.", {CANARY: CANARY})
"""


@pytest.fixture(scope="module")
def lines() -> dict[str, list[dict[str, Any]]]:
    """What is logged in each case."""
    with child(f"CANARY = {CANARY!r}\nCASES = {CASES!r}\n{SENDING}") as process:
        out, err = process.communicate(timeout=30)
    assert (out, process.returncode) == ("", 0)
    assert CANARY not in err
    found: dict[str, list[dict[str, Any]]] = {}
    for line in map(json.loads, err.splitlines()):
        if line["logger"] == "test":
            of_case = found[line["event"]] = []
        else:
            of_case.append(line)
    return found


@pytest.mark.parametrize(
    ("case", "level", "logger", "told"),
    [
        ("a misspelt header", "warning", "util.re", "Header format invalid! "),
        ("a reason that quotes", "error", "trace_exporter", "code: 401, reason: [withheld]"),
        ("headers that quote", "warning", "urllib3.connection", "[withheld]"),
        ("a header that cannot be sent", "error", "trace_exporter", "reason: InvalidHeader [withheld]"),
        ("nobody listens", "warning", "trace_exporter", "Transient error ConnectionError [withheld]"),
        ("a setting", "error", "sdk.trace.export", "Unable to parse value for OTEL_BSP_MAX_QUEUE_SIZE as integer."),
        ("a text that is not known", "error", "opentelemetry.new", "[withheld]"),
    ],
)
def test_what_a_collector_is_sent_is_in_no_line_and_the_line_says_what_was_withheld_and_by_whom(
    lines: dict[str, list[dict[str, Any]]], case: str, level: str, logger: str, told: str
) -> None:
    [line, *_] = [line for line in lines[case] if line["logger"].endswith(logger)]
    assert (line["level"], told in line["event"]) == (level, True)
    assert "[withheld]" in f"{line['event']} {line.get('exception')}"
    assert line["said_at"]


def test_arguments_that_do_not_fit_withhold_the_whole_text(lines: dict[str, list[dict[str, Any]]]) -> None:
    assert [line["event"] for line in lines["a text that is not known"]] == ["[withheld]"] * 3


def test_who_left_before_the_answer_is_no_error_and_what_else_grpc_says_is_told() -> None:
    source = """
serving.configure_logging()
said = logging.getLogger("grpc._cython.cygrpc")
said.error("ExecuteBatchError raised in core by servicer method [%s]", "/omen.v1.SignalService/Emit")
said.error("something else")
"""
    with child(source) as process:
        _, err = process.communicate(timeout=30)
    assert [json.loads(line)["event"] for line in err.splitlines()] == ["something else"]
