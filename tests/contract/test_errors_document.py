"""docs/errors.md, the reasons and their codes are one table."""

import re

from google.rpc import code_pb2

from contract.reasons import CODES, Reason
from tests.contract.image import ROOT

ROW = re.compile(r"^\| `(\w+)` \| `(\w+)` \| (.+?) \| (.+?) \| (.*?) ?\|$", re.MULTILINE)
DOCUMENT = (ROOT / "docs" / "errors.md").read_text("utf-8")


def test_the_document_lists_every_reason_once_with_its_code_in_the_order_of_the_code() -> None:
    rows = [(reason, code) for reason, code, *_ in ROW.findall(DOCUMENT)]
    assert rows == [(reason.value, code_pb2.Code.Name(CODES[reason])) for reason in Reason]


def test_every_row_says_what_happened_and_what_to_do() -> None:
    table = [line for line in DOCUMENT.splitlines() if line.startswith("| `")]
    rows = ROW.findall(DOCUMENT)
    assert len(rows) == len(table)
    assert [reason for reason, _, meaning, action, _ in rows if len(meaning) < 5 or len(action) < 5] == []


def test_the_document_promises_a_retry_delay_where_waiting_helps() -> None:
    promised = {reason for reason, _, _, _, details in ROW.findall(DOCUMENT) if "RetryInfo" in details}
    waiting = {code_pb2.RESOURCE_EXHAUSTED, code_pb2.UNAVAILABLE}
    assert promised == {reason.value for reason in Reason if CODES[reason] in waiting} - {"SHUTTING_DOWN"}
