"""The last good and the first bad values of each kind of rule, and how to put one where a path points."""

import math
import re
from typing import Any, NamedTuple

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp


class Edge(NamedTuple):
    good: list[Any]
    bad: list[Any]


def text(most: int, least: int = 0) -> Edge:
    """é twice: composed it is right and counts one, decomposed it is wrong."""
    empty = [""]
    return Edge(
        ["x" * most, "é" * most, "🚢" * most, "two\nlines"] + (empty if not least else ["x" * least]),
        ["x" * (most + 1), "🚢" * (most + 1), "a\0b", "e\u0301"] + (empty if least else []),
    )


def ascii_text(most: int, least: int = 0) -> Edge:
    empty = [""]
    return Edge(
        ["~" * most, " ", "|"] + (empty if not least else []),
        ["~" * (most + 1), "é", "a\x1fb", "a\x7fb", "a\nb"] + (empty if least else []),
    )


def identifier(most: int) -> Edge:
    plain = ascii_text(most, least=1)
    return Edge([one for one in plain.good if "|" not in one], [*plain.bad, "a|b", "|"])


def labels(count: int) -> Edge:
    names = [f"{number:03}" for number in range(count + 1)]
    return Edge([[], names[:count]], [names, ["b", "a"], ["a", "a"]])


def between(low: float, high: float) -> Edge:
    outside = [math.nextafter(low, -math.inf), math.nextafter(high, math.inf)]
    return Edge([low, high, -0.0, (low + high) / 2], [*outside, math.nan, math.inf, -math.inf])


def count(item: Message, most: int = 64) -> Edge:
    return Edge([[], [item] * most], [[item] * (most + 1)])


SHARE = between(0.0, 1.0)
NOT_NEGATIVE = Edge([0.0, -0.0, 1e300], [-5e-324, math.nan, math.inf])
FINITE = Edge([-1.7e308, 0.0, 1.7e308], [math.nan, math.inf, -math.inf])
CHOSEN = Edge([1, 999], [0])  # 999: a value that only a newer peer knows
OPEN_CHOICE = Edge([0, 1, 999], [])
TIME = Edge(
    [Timestamp(seconds=946_684_800), Timestamp(seconds=4_102_444_799, nanos=999_999_999)],
    [
        Timestamp(),
        Timestamp(seconds=946_684_799, nanos=999_999_999),
        Timestamp(seconds=4_102_444_800),
        Timestamp(seconds=10**17),
        Timestamp(seconds=1_769_000_000, nanos=-1),
        Timestamp(seconds=1_769_000_000, nanos=10**9),
    ],
)
SPAN = Edge(
    [Duration(), Duration(seconds=315_576_000_000, nanos=999_999_999)],
    [
        Duration(seconds=-1),
        Duration(nanos=-1),
        Duration(nanos=10**9),
        Duration(seconds=315_576_000_001),
    ],
)
POSITIVE_SPAN = Edge([Duration(nanos=1), *SPAN.good[1:]], [Duration(), *SPAN.bad])


def put(message: Message, path: str, value: Any) -> None:
    """Sets what `path` points at, such as "signal.evidence[0].url" or "signal.tags[0]"."""
    target: Any = message
    *way, last = re.findall(r"\w+", path)
    for step in way:
        target = target[int(step)] if step.isdigit() else getattr(target, step)
    if last.isdigit():
        target[int(last)] = value
    elif isinstance(value, list):
        del getattr(target, last)[:]
        getattr(target, last).extend(value)
    elif isinstance(value, Message):
        getattr(target, last).CopyFrom(value)
    else:
        setattr(target, last, value)
