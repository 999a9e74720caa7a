"""How one field is checked, and how a table of such rules walks a message.

A check takes the value of a field and answers what is wrong with it: nothing (None, or an empty list), words, or the
violations found inside it. Words never repeat the value: it may be long, and it may be secret.
"""

import functools
import re
import unicodedata
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, NamedTuple

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from contract.errors import Violation
from contract.limits import DURATION_S_MAX, REPEATED_ITEMS_MAX, TIME_BEFORE_S, TIME_MIN_S

Wrong = str | list[Violation] | None
Check = Callable[[Any], Wrong]

REQUIRED = "required"


class Presence(Enum):
    """Whether a field of a message type, or an `optional` one, must be set for its check to run."""

    REQUIRED = "required"
    OPTIONAL = "optional"


class Rule(NamedTuple):
    """`presence` is None for fields that protobuf cannot tell unset from empty: their check judges the empty value."""

    field: str
    check: Check
    presence: Presence | None = None


class MessageRules:
    """The rules of one type of message, in the order of its fields.

    `relations` judge fields against each other; they run only when each field is right by itself.
    """

    def __init__(self, *fields: Rule, relations: Sequence[Callable[[Any], list[Violation]]] = ()) -> None:
        self.fields = fields
        self.relations = relations


def violations_of(message: Message, rules: MessageRules) -> list[Violation]:
    """Every violation in the order of the table, without a bound: whoever shows them cuts."""
    found: list[Violation] = []
    for field, check, presence in rules.fields:
        if presence is not None and not message.HasField(field):
            if presence is Presence.REQUIRED:
                found.append(Violation(field, REQUIRED))
        elif wrong := check(getattr(message, field)):
            found += placed(field, wrong)
    if not found:
        for relation in rules.relations:
            found += relation(message)
    return found


def placed(place: str, wrong: str | list[Violation]) -> list[Violation]:
    """What is wrong at `place`, with paths that begin there."""
    if isinstance(wrong, str):
        return [Violation(place, wrong)]
    return [Violation(joined(place, each.field), each.description) for each in wrong]


def joined(place: str, inner: str) -> str:
    return f"{place}{inner}" if inner.startswith("[") or not inner else f"{place}.{inner}"


def nested(rules: MessageRules) -> Check:
    return functools.partial(violations_of, rules=rules)


def repeated(check: Check, *, most: int = REPEATED_ITEMS_MAX) -> Check:
    def every(values: Sequence[Any]) -> Wrong:
        if not values:
            return None
        if len(values) > most:
            return f"must have at most {most} items, has {len(values)}"
        found: list[Violation] = []
        for index, value in enumerate(values):
            if wrong := check(value):
                found += placed(f"[{index}]", wrong)
        return found

    return every


def labels(check: Check) -> Check:
    """Texts in ascending order, each once."""
    every = repeated(check)
    return lambda values: (every(values) or ascending(list(values))) if values else None


def ascending(keys: list[Any]) -> str | None:
    return None if len(keys) < 2 or sorted(set(keys)) == keys else "must be sorted and unique"


def text(most: int, *, least: int = 0) -> Check:
    """NFC without NUL, so many characters (code points)."""

    def check(value: str) -> str | None:
        if not least <= len(value) <= most:
            return length_wrong(value, least, most)
        if "\0" in value:
            return "must not contain NUL"
        return None if value.isascii() or unicodedata.is_normalized("NFC", value) else "must be in Unicode form NFC"

    return check


def ascii_text(most: int, *, least: int = 0) -> Check:
    """Printable ASCII, so many characters."""

    def check(value: str) -> str | None:
        if not least <= len(value) <= most:
            return length_wrong(value, least, most)
        return None if value.isascii() and value.isprintable() else "must be printable ASCII"

    return check


def identifier(most: int) -> Check:
    """1 to so many characters of printable ASCII but "|", which joins ids to what they are the ids of."""
    plain = ascii_text(most, least=1)
    return lambda value: plain(value) or ("must not contain '|'" if "|" in value else None)


def length_wrong(value: str, least: int, most: int) -> str:
    return REQUIRED if least and not value else f"must be {least} to {most} characters, is {len(value)}"


def pattern(expression: str, words: str) -> Check:
    """Text that matches as a whole."""
    matches = re.compile(expression).fullmatch
    return lambda value: None if matches(value) else (words if value else REQUIRED)


def optional(check: Check) -> Check:
    """The empty value is right too."""
    return lambda value: check(value) if value else None


def between(low: float, high: float) -> Check:
    """Ends included; NaN is between nothing."""
    words = f"must be a finite number from {low:g} to {high:g}"
    return lambda value: None if low <= value <= high else words


def at_least_zero(value: float) -> str | None:
    return None if 0 <= value < float("inf") else "must be a finite number, not negative"


def finite(value: float) -> str | None:
    return None if float("-inf") < value < float("inf") else "must be a finite number"


def chosen(value: int) -> str | None:
    """An enum that is set. A number unknown here, of a newer peer, is right: it survives."""
    return None if value else REQUIRED


def anything(value: object) -> None:
    """Every value means something."""


def instant(value: Timestamp) -> str | None:
    if TIME_MIN_S <= value.seconds < TIME_BEFORE_S and 0 <= value.nanos < 1_000_000_000:
        return None
    return "must be a valid time from 2000-01-01 to before 2100-01-01 UTC"


def span(value: Duration) -> str | None:
    if 0 <= value.seconds <= DURATION_S_MAX and 0 <= value.nanos < 1_000_000_000:
        return None
    return "must be a valid duration, not negative"


def positive_span(value: Duration) -> str | None:
    return span(value) or (None if value.seconds or value.nanos else "must be more than zero")
