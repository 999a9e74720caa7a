"""What a server may answer, and what may be stored: judged by the contract's words, not by the code that keeps them."""

import math
import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import Any

import grpc
from google.protobuf.message import Message

from contract.reasons import CODES, Reason
from omen.v1.signal_event_pb2 import SignalEvent
from tests.contract.image import comment_of
from tests.contract.test_comments import statuses
from tests.hostile.servers import Answer, package_of
from tests.hostile.values import DURATION, MIB, TIMESTAMP, kind_of

MESSAGE_BYTES_MAX = 4 * MIB
EVENT_BYTES_MAX = 256 * 1024
TEXT_CHARS_MAX = 20_000  # of the longest text that a signal may have
ITEMS_MAX = 64
TIMES = range(946_684_800, 4_102_444_800)  # 2000-01-01 to before 2100-01-01
# What is between 0 and 1 wherever it stands.
SHARES = {"probability", "raw_probability", "low", "high", "confidence_score", "value", "weight", "score"}
BUGS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}


def flaw_of(path: str, sent_bytes: int, answer: Answer) -> str:
    """What is wrong with an answer; "" if it is one that the contract names."""
    if answer.code is grpc.StatusCode.OK:
        return ""
    if answer.code in BUGS:
        return "a bug"
    if answer.details is None:
        is_too_large = answer.code is grpc.StatusCode.RESOURCE_EXHAUSTED and sent_bytes > MESSAGE_BYTES_MAX
        return "" if is_too_large else "no details"
    if answer.reason not in Reason.__members__ or CODES[Reason(answer.reason)] != answer.code.value[0]:
        return "a reason of another code"
    if answer.details.domain != package_of(path):
        return "a domain of another package"
    return "" if answer.reason in promised(path) else "a reason that its comment does not name"


@cache
def promised(path: str) -> set[str]:
    """The reasons that the comments of an RPC and its service name; bytes that are no message are INVALID_SIGNAL."""
    service, _, method = path.strip("/").partition("/")
    comment = comment_of(f"{service}.{method}")
    found = [comment_of(service), comment]
    if other := re.search(r"(?:what|statuses of) (?:Emit|Process)\b", comment):
        found.append(comment_of(f"{service}.{other[0].split()[-1]}"))
    reasons = {reason for text in found for named in statuses(" ".join(text.split())).values() for reason in named}
    return reasons | {Reason.INVALID_SIGNAL}


def flaws_of(encoded: bytes) -> list[str]:
    """Everything in a stored event that no event may hold."""
    event = SignalEvent.FromString(encoded)
    size = [f"{len(encoded)} bytes"] if len(encoded) > EVENT_BYTES_MAX else []
    return size + list(flaws_in(event, "event"))


def flaws_in(message: Message, place: str) -> Iterator[str]:
    for field, value in message.ListFields():
        where = f"{place}.{field.name}"
        values = list(value) if field.is_repeated else [value]
        if len(values) > ITEMS_MAX:
            yield f"{where}: {len(values)} items"
        for each in values:
            if kind_of(field) == TIMESTAMP:
                yield from time_flaws(each, where)
            elif isinstance(each, Message) and kind_of(field) != DURATION:
                yield from flaws_in(each, where)
            elif isinstance(each, str):
                yield from text_flaws(each, where)
            elif isinstance(each, float):
                yield from number_flaws(field.name, each, where)


def time_flaws(at: Any, where: str) -> Iterator[str]:
    if at.seconds not in TIMES or not 0 <= at.nanos < 10**9:
        yield f"{where}: {at.seconds} s"


def text_flaws(text: str, where: str) -> Iterator[str]:
    if "\0" in text or not unicodedata.is_normalized("NFC", text) or len(text) > TEXT_CHARS_MAX:
        yield f"{where}: {text[:20]!r}"


def number_flaws(name: str, number: float, where: str) -> Iterator[str]:
    if not math.isfinite(number) or (name in SHARES and not 0 <= number <= 1):
        yield f"{where}: {number}"
