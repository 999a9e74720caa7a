"""Identity: the same observation under the same rules has the same ids, on any machine, for ever.

    canonical   = RFC 8785 JSON of the observation's content
    input_hash  = "sha256:" + sha256(canonical)
    digest      = sha256(source_event_id + "|" + input_hash + "|" + ruleset_version)
    trace_id    = digest[:16]
    signal_id   = "OMEN-" + digest[:12] in upper case; any longer prefix of the digest names the same event

Nothing here depends on how protobuf serialises a message: that is not canonical.
"""

import hashlib
import re
import unicodedata
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import rfc8785
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from contract.limits import SIGNAL_ID_DIGITS_MAX, SIGNAL_ID_DIGITS_MIN, TRACE_ID_DIGITS
from omen.v1.observation_pb2 import Observation
from omen.v1.signal_event_pb2 import SignalEvent

SIGNAL_ID = re.compile(rf"OMEN-[0-9A-F]{{{SIGNAL_ID_DIGITS_MIN},{SIGNAL_ID_DIGITS_MAX}}}")

# Drawn once at random. It may never change: every acknowledgement given so far depends on it.
ACK_NAMESPACE = uuid.UUID("8f1d6a52-0c0b-4f0e-9a5d-6a1f4be0c7d3")

ACK_NAMESPACE_BYTES = ACK_NAMESPACE.bytes

# The digit of a UUID that says whose layout it has: two bits of it are given, two are kept.
UUID_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}

# How one field is written as a JSON value.
Form = Callable[[Any], Any]


class Identity(NamedTuple):
    """The ids of one event. `digest` is 64 lower-case hex digits."""

    digest: str

    @property
    def trace_id(self) -> str:
        return self.digest[:TRACE_ID_DIGITS]

    @property
    def signal_id(self) -> str:
        return self.signal_id_of(SIGNAL_ID_DIGITS_MIN)

    def signal_id_of(self, digits: int) -> str:
        """The signal id with so many digits of the digest, 12 to 64. Raises ValueError outside of that."""
        if not SIGNAL_ID_DIGITS_MIN <= digits <= SIGNAL_ID_DIGITS_MAX:
            raise ValueError(f"a signal id has {SIGNAL_ID_DIGITS_MIN} to {SIGNAL_ID_DIGITS_MAX} digits, not {digits}")
        return f"OMEN-{self.digest[:digits].upper()}"


def identity(source_event_id: str, input_event_hash: str, ruleset_version: str) -> Identity:
    """Raises ValueError if a part contains "|": the join would be ambiguous."""
    joined = f"{source_event_id}|{input_event_hash}|{ruleset_version}"
    if joined.count("|") != 2:
        raise ValueError("no part of an identity may contain '|'")
    return Identity(hashlib.sha256(joined.encode()).hexdigest())


def identity_of_event(event: SignalEvent) -> Identity:
    """Raises ValueError as `identity` does."""
    return identity(event.source_event_id, event.input_event_hash, event.ruleset_version)


def fill_identity(event: SignalEvent) -> None:
    """Derives what is empty of input_event_hash, deterministic_trace_id and signal_id; what is given stays as it is.

    What cannot be derived stays empty: `check_event` says why.
    """
    if not event.input_event_hash and event.canonical_observation:
        event.input_event_hash = input_event_hash(event.canonical_observation)
    if not (event.source_event_id and event.input_event_hash and event.ruleset_version):
        return
    try:
        ids = identity_of_event(event)
    except ValueError:
        return
    event.deterministic_trace_id = event.deterministic_trace_id or ids.trace_id
    event.signal_id = event.signal_id or ids.signal_id


def is_signal_id_of(digest: str, signal_id: str) -> bool:
    """Whether `signal_id` is "OMEN-" and any 12 to 64 upper-case digits that `digest` begins with."""
    digits = len(signal_id) - len("OMEN-")
    return SIGNAL_ID_DIGITS_MIN <= digits <= SIGNAL_ID_DIGITS_MAX and signal_id == f"OMEN-{digest[:digits].upper()}"


def ack_id(signal_id: str, input_event_hash: str) -> str:
    """RiskCast's acknowledgement: the same for the same event, even if the store is built again from the ledgers."""
    name = ACK_NAMESPACE_BYTES + f"{signal_id}|{input_event_hash}".encode()
    # uuid.uuid5 by hand: every record needs one, and this takes a quarter of the time.
    digits = hashlib.sha1(name, usedforsecurity=False).hexdigest()
    variant = UUID_VARIANT[digits[16]]
    return f"ack-{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"


def input_event_hash(canonical: bytes) -> str:
    return f"sha256:{hashlib.sha256(canonical).hexdigest()}"


def canonical_observation(observation: Observation) -> bytes:
    """RFC 8785 JSON of what the source said, without when it was read.

    Absent or empty fields are absent. Text is NFC and stripped; keywords are lower-cased, sorted and unique; enums are
    their numbers, since names may be newer than the reader. The observation must have passed `check_observation`.
    """
    return rfc8785.dumps(content(observation, OBSERVATION))


def content(message: Message, forms: Mapping[str, Form]) -> dict[str, Any]:
    """The fields of a message that are there and say something, in their canonical forms."""
    said = {name: form(getattr(message, name)) for name, form in forms.items() if is_there(message, name)}
    return {name: value for name, value in said.items() if value not in ("", [], {})}


def is_there(message: Message, field: str) -> bool:
    """Fields that cannot be told unset from empty are always there; what they say may be nothing."""
    return not message.DESCRIPTOR.fields_by_name[field].has_presence or message.HasField(field)


def text(value: str) -> str:
    return unicodedata.normalize("NFC", value).strip()


def keyword_set(values: Iterable[str]) -> list[str]:
    # Lower-casing can leave NFC ("İ" becomes two code points), hence once more.
    lowered = {unicodedata.normalize("NFC", text(value).lower()) for value in values}
    return sorted(lowered - {""})


def decimals(count: int) -> Form:
    """A double as a decimal string, correctly rounded; "z" writes -0.0, and what rounds to it, as 0.0."""
    return lambda value: f"{value:z.{count}f}"


def instant(value: Timestamp) -> str:
    """RFC 3339 in UTC with six decimals; what is finer than a microsecond is cut off."""
    return f"{value.ToDatetime().isoformat(timespec='microseconds')}Z"


def span(value: Duration) -> str:
    """Seconds with six decimals; what is finer than a microsecond is cut off."""
    return f"{value.seconds}.{value.nanos // 1000:06d}"


def each(forms: Mapping[str, Form]) -> Form:
    """Messages in their order: it is part of what the source said."""
    return lambda values: [content(value, forms) for value in values]


def nested(forms: Mapping[str, Form]) -> Form:
    return lambda value: content(value, forms)


share = decimals(10)  # probabilities: finer than any market's tick, coarser than the noise of arithmetic
money = decimals(2)
degrees = decimals(6)  # a tenth of a metre

QUOTE = {"best_bid": share, "best_ask": share, "last_trade": share}
INTERVAL = {"low": share, "high": share, "method": text}
LOCATION = {"latitude": degrees, "longitude": degrees, "name": text, "country": text}
METRIC: dict[str, Form] = {"name": text, "value": float, "unit": text}

# Every field of Observation but observed_at: reading the same fact again later is not another fact.
OBSERVATION: dict[str, Form] = {
    "source": text,
    "source_class": int,
    "source_event_id": text,
    "source_updated_at": instant,
    "source_revision": text,
    "title": text,
    "description": text,
    "outcome_label": text,
    "quote": nested(QUOTE),
    "probability": share,
    "previous_probability": share,
    "previous_probability_window": span,
    "liquidity_usd": money,
    "volume_usd": money,
    "trader_count": str,  # an int64 does not fit into a JSON number
    "keywords": keyword_set,
    "locations": each(LOCATION),
    "url": text,
    "created_at": instant,
    "resolution_date": instant,
    "resolution_criteria": text,
    "metrics": each(METRIC),
    "probability_interval": nested(INTERVAL),
    "source_quality": share,
}
