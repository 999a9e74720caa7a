"""How one field is checked, and how a table of such rules walks a message.

A check takes the value of a field and answers what is wrong with it: nothing (None, or an empty list), words, or the
violations found inside it. Words never repeat the value: it may be long, and it may be secret.

Every event passes some forty checks at each of two doors. So a table is made into one straight function when it is
built: beside its words a check has an expression that most right values satisfy, and only the others cost a call.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from types import MappingProxyType
from typing import Any, NamedTuple

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from contract.errors import Violation
from contract.limits import DURATION_S_MAX, REPEATED_ITEMS_MAX, TIME_BEFORE_S, TIME_MIN_S

Wrong = str | list[Violation] | None
Judge = Callable[[Any], Wrong]

REQUIRED = "required"


class Check:
    """`wrong` says what is wrong with a value.

    `right` is a Python expression over `value` that is true of no wrong one; it may be false of right ones, which
    then `wrong` finds right. Names in braces are those of `given`.
    """

    def __init__(self, wrong: Judge, right: str = "False", given: Mapping[str, Any] = MappingProxyType({})) -> None:
        self.wrong = wrong
        self.right = right
        self.given = given

    def __call__(self, value: Any) -> Wrong:
        return self.wrong(value)


def right_if(expression: str) -> Callable[[Judge], Check]:
    """Makes the function below it a check."""
    return lambda wrong: Check(wrong, expression)


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

    `relations` judge fields against each other; they run only when each field is right by itself. `violations` answers
    every violation in the order of the table, without a bound: whoever shows them cuts.
    """

    def __init__(self, *fields: Rule, relations: Sequence[Callable[[Any], list[Violation]]] = ()) -> None:
        self.fields = fields
        self.relations = relations
        self.violations: Callable[[Message], list[Violation]] = self._compiled()

    def _compiled(self) -> Callable[[Message], list[Violation]]:
        names: dict[str, Any] = {"judged": self._judged, "Violation": Violation}
        lines = ["def violations(message):", " found = []"]
        for number, rule in enumerate(self.fields):
            aliases = {name: f"{name}_{number}" for name in rule.check.given}
            names |= {aliases[name]: given for name, given in rule.check.given.items()}
            lines += _lines(number, rule, rule.check.right.format(**aliases))
        for number, relation in enumerate(self.relations):
            names[f"relation_{number}"] = relation
        terms = [f"relation_{number}(message)" for number in range(len(self.relations))]
        lines.append(f" return found or {' + '.join(terms) or 'found'}")
        exec("\n".join(lines), names)  # of nothing but the names and numbers of our tables
        compiled: Callable[[Message], list[Violation]] = names["violations"]
        return compiled

    def _judged(self, number: int, value: Any) -> list[Violation]:
        field, check, _ = self.fields[number]
        return placed(field, check(value) or [])


def _lines(number: int, rule: Rule, right: str) -> list[str]:
    """What the table's function does with one field."""
    field, _, presence = rule
    reads = [f" value = message.{field}", f" if not ({right}):", f"  found += judged({number}, value)"]
    if presence is None:
        return reads
    absent = [" else:", f"  found.append(Violation({field!r}, {REQUIRED!r}))"]
    return [
        f" if message.HasField({field!r}):",
        *(f" {line}" for line in reads),
        *(absent if presence is Presence.REQUIRED else []),
    ]


def placed(place: str, wrong: str | list[Violation]) -> list[Violation]:
    """What is wrong at `place`, with paths that begin there."""
    if isinstance(wrong, str):
        return [Violation(place, wrong)]
    return [Violation(joined(place, each.field), each.description) for each in wrong]


def joined(place: str, inner: str) -> str:
    return f"{place}{inner}" if inner.startswith("[") or not inner else f"{place}.{inner}"


def nested(rules: MessageRules) -> Check:
    return Check(rules.violations, "not {violations}(value)", {"violations": rules.violations})


def repeated(check: Check, *, most: int = REPEATED_ITEMS_MAX) -> Check:
    def every(values: Sequence[Any]) -> Wrong:
        if len(values) > most:
            return f"must have at most {most} items, has {len(values)}"
        found: list[Violation] = []
        for index, value in enumerate(values):
            found += placed(f"[{index}]", check(value) or [])
        return found

    right = f"not value or len(value) <= {most} and all([{check.right} for value in value[:]])"
    return Check(every, right, check.given)


def labels(most: int) -> Check:
    """Texts of so many characters in ascending order, each once."""
    every = repeated(text(most))

    def ascend(values: list[str]) -> bool:
        before = ""
        for value in values:
            if not (before < value and len(value) <= most and value.isascii() and "\0" not in value):
                return False
            before = value
        return True

    return Check(
        lambda values: every(values) or ascending(list(values)),
        f"not value or len(value) <= {REPEATED_ITEMS_MAX} and {{ascend}}(value[:])",
        {"ascend": ascend},
    )


def ascending(keys: list[Any]) -> str | None:
    return None if len(keys) < 2 or sorted(set(keys)) == keys else "must be sorted and unique"


def text(most: int, *, least: int = 0) -> Check:
    """NFC without NUL, so many characters (code points)."""

    def wrong(value: str) -> str | None:
        if not least <= len(value) <= most:
            return length_wrong(value, least, most)
        if "\0" in value:
            return "must not contain NUL"
        return None if unicodedata.is_normalized("NFC", value) else "must be in Unicode form NFC"

    return Check(wrong, f"{least} <= len(value) <= {most} and value.isascii() and '\\0' not in value")


def ascii_text(most: int, *, least: int = 0) -> Check:
    """Printable ASCII, so many characters."""

    def wrong(value: str) -> str | None:
        if not least <= len(value) <= most:
            return length_wrong(value, least, most)
        return None if value.isascii() and value.isprintable() else "must be printable ASCII"

    return Check(wrong, f"{least} <= len(value) <= {most} and value.isascii() and value.isprintable()")


def identifier(most: int) -> Check:
    """1 to so many characters of printable ASCII but "|", which joins ids to what they are the ids of."""
    plain = ascii_text(most, least=1)
    return Check(
        lambda value: plain(value) or ("must not contain '|'" if "|" in value else None),
        f"{plain.right} and '|' not in value",
    )


def length_wrong(value: str, least: int, most: int) -> str:
    return REQUIRED if least and not value else f"must be {least} to {most} characters, is {len(value)}"


def pattern(expression: str, words: str) -> Check:
    """Text that matches as a whole."""
    matches = re.compile(expression).fullmatch
    wrong = lambda value: None if matches(value) else (words if value else REQUIRED)  # noqa: E731
    return Check(wrong, "{matches}(value)", {"matches": matches})


def optional(check: Check) -> Check:
    """The empty value is right too."""
    return Check(lambda value: check(value) if value else None, f"not value or {check.right}", check.given)


def between(low: float, high: float) -> Check:
    """Ends included; NaN is between nothing."""
    right = f"{low!r} <= value <= {high!r}"
    return Check(
        lambda value: None if low <= value <= high else f"must be a finite number from {low:g} to {high:g}", right
    )


@right_if("0 <= value <= 1e300")
def at_least_zero(value: float) -> str | None:
    return None if 0 <= value < float("inf") else "must be a finite number, not negative"


@right_if("-1e300 <= value <= 1e300")
def finite(value: float) -> str | None:
    return None if float("-inf") < value < float("inf") else "must be a finite number"


@right_if("value")
def chosen(value: int) -> str | None:
    """An enum that is set. A number unknown here, of a newer peer, is right: it survives."""
    return None if value else REQUIRED


@right_if("True")
def anything(value: object) -> None:
    """Every value means something."""


@right_if(f"{TIME_MIN_S} <= value.seconds < {TIME_BEFORE_S} and 0 <= value.nanos < 1_000_000_000")
def instant(value: Timestamp) -> str | None:
    if TIME_MIN_S <= value.seconds < TIME_BEFORE_S and 0 <= value.nanos < 1_000_000_000:
        return None
    return "must be a valid time from 2000-01-01 to before 2100-01-01 UTC"


@right_if(f"0 <= value.seconds <= {DURATION_S_MAX} and 0 <= value.nanos < 1_000_000_000")
def span(value: Duration) -> str | None:
    if 0 <= value.seconds <= DURATION_S_MAX and 0 <= value.nanos < 1_000_000_000:
        return None
    return "must be a valid duration, not negative"


@Check
def positive_span(value: Duration) -> Wrong:
    return span(value) or (None if value.seconds or value.nanos else "must be more than zero")
