"""What a SignalEvent, an Observation and a LedgerPosition must be, checked once at every door.

The tables say what the comments of the .proto files say; the numbers are in `limits`.
"""

import functools
import re
from contextlib import suppress
from datetime import date, datetime, timedelta

from contract.checks import (
    REQUIRED,
    Check,
    MessageRules,
    Presence,
    Rule,
    ascii_text,
    instant,
    nested,
    pattern,
    right_if,
)
from contract.errors import EPOCH as EPOCH
from contract.errors import Violation as Violation
from contract.errors import (
    invalid_observation,
    invalid_signal,
    schema_version_unsupported,
    signal_id_mismatch,
)
from contract.identity import (
    SIGNAL_ID,
    identity_of_event,
    input_event_hash,
    is_signal_id_of,
)
from contract.limits import (
    CANONICAL_OBSERVATION_BYTES_MAX,
    EMITTED_AHEAD_MAX,
    EVENT_BYTES_MAX,
    ID_CHARS_MAX,
    SEGMENT_ID_BYTES,
    TRACE_ID_DIGITS,
)
from contract.observation_rules import OBSERVATION
from contract.signal_rules import SIGNAL, an_id
from contract.versions import SCHEMA_MAJOR_MAX, SCHEMA_VERSION
from omen.v1.ledger_record_pb2 import LedgerPosition
from omen.v1.observation_pb2 import Observation
from omen.v1.signal_event_pb2 import SignalEvent

VERSION = r"[1-9][0-9]{0,5}\.[0-9]{1,6}\.[0-9]{1,6}"
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
PARTITION = r"20[0-9]{2}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])(?:-late)?"


def check_event(event: SignalEvent, *, now: datetime) -> None:
    """Raises ContractError: SCHEMA_VERSION_UNSUPPORTED, INVALID_SIGNAL with violations, or SIGNAL_ID_MISMATCH."""
    check_fields(event, event.ByteSize())
    check_emitted_at(event, now)
    check_ids(event)


def check_fields(event: SignalEvent, byte_size: int) -> None:
    """Everything that neither the clock nor the digest of the ids is needed for.

    Raises ContractError: SCHEMA_VERSION_UNSUPPORTED, INVALID_SIGNAL with violations. `byte_size` is that of the encoded
    event, which takes as long to ask for as to encode it. The version comes first: what a newer major means cannot be
    judged here.
    """
    version = event.schema_version
    if version != SCHEMA_VERSION and is_newer(version):
        raise schema_version_unsupported(version)
    if violations := violations_of_event(event, byte_size):
        raise invalid_signal(violations)


def check_emitted_at(event: SignalEvent, now: datetime) -> None:
    """Raises ContractError INVALID_SIGNAL when it is too far ahead of the server's clock, which has a zone."""
    if now.tzinfo is None:
        raise ValueError("now needs a time zone")
    latest_us = (now + EMITTED_AHEAD_MAX - EPOCH) // timedelta(microseconds=1)
    if event.emitted_at.seconds * 1_000_000 + event.emitted_at.nanos // 1000 > latest_us:
        most = f"must be at most {EMITTED_AHEAD_MAX.seconds // 60} minutes ahead of the server"
        raise invalid_signal([Violation("emitted_at", most)])


def check_ids(event: SignalEvent) -> None:
    """Raises SIGNAL_ID_MISMATCH unless both ids are what the formula gives."""
    ids = identity_of_event(event)
    if event.deterministic_trace_id != ids.trace_id:
        raise signal_id_mismatch(ids.trace_id, event.deterministic_trace_id, field="deterministic_trace_id")
    if not is_signal_id_of(ids.digest, event.signal_id):
        digits = len(event.signal_id) - len("OMEN-")
        raise signal_id_mismatch(ids.signal_id_of(digits), event.signal_id)


def check_observation(observation: Observation) -> None:
    """Raises ContractError INVALID_OBSERVATION with violations."""
    if violations := violations_of_observation(observation):
        raise invalid_observation(violations)


def is_newer(version: str) -> bool:
    """Of a major that is not known here."""
    major = version.partition(".")[0]
    return major.isdecimal() and major.isascii() and int(major[:9]) > SCHEMA_MAJOR_MAX


def violations_of_event(event: SignalEvent, byte_size: int) -> list[Violation]:
    """Everything that is wrong with the event by itself but its ids, in the order of the fields."""
    if byte_size > EVENT_BYTES_MAX:
        return [Violation("", f"must be at most {EVENT_BYTES_MAX} bytes, is {byte_size}")]
    return EVENT.violations(event)


def violations_of_observation(observation: Observation) -> list[Violation]:
    """Everything that is wrong with the observation, in the order of the fields."""
    return OBSERVATION.violations(observation)


def violations_of_position(position: LedgerPosition) -> list[Violation]:
    """Everything that is wrong with the position, in the order of the fields."""
    return POSITION.violations(position)


def hash_is_of_observation(event: SignalEvent) -> list[Violation]:
    canonical = event.canonical_observation
    if not canonical or input_event_hash(canonical) == event.input_event_hash:
        return []
    return [Violation("input_event_hash", "must be the SHA-256 of canonical_observation")]


def generated_when_observed(event: SignalEvent) -> list[Violation]:
    if event.signal.generated_at == event.observed_at:
        return []
    return [Violation("signal.generated_at", "must equal observed_at")]


@right_if("value >> 32 and value & 0xFFFF_FFFF")
def sequence(value: int) -> str | None:
    return None if value >> 32 and value & 0xFFFF_FFFF else "must be (segment ordinal << 32) | index, both from 1"


@right_if(f"len(value) == {SEGMENT_ID_BYTES}")
def segment_id(value: bytes) -> str | None:
    return None if len(value) == SEGMENT_ID_BYTES else f"must be {SEGMENT_ID_BYTES} bytes"


@right_if(f"len(value) <= {CANONICAL_OBSERVATION_BYTES_MAX}")
def canonical_bytes(value: bytes) -> str | None:
    most = CANONICAL_OBSERVATION_BYTES_MAX
    return None if len(value) <= most else f"must be at most {most} bytes, is {len(value)}"


@functools.lru_cache(maxsize=64)  # records of a batch are of one partition, or of few
def is_partition(value: str) -> bool:
    """30 February is no day."""
    with suppress(ValueError):
        return bool(re.fullmatch(PARTITION, value) and date.fromisoformat(value.removesuffix("-late")))
    return False


def partition_wrong(value: str) -> str | None:
    if is_partition(value):
        return None
    return "must be a UTC day such as 2026-01-29, or such a day and -late" if value else REQUIRED


partition = Check(partition_wrong, "{is_partition}(value)", {"is_partition": is_partition})
ledger_id = pattern(UUID, "must be a UUID in lower case")

POSITION = MessageRules(
    Rule("ledger_id", ledger_id),
    Rule("partition", partition),
    Rule("segment_id", segment_id),
    Rule("sequence", sequence),
)
EVENT = MessageRules(
    Rule("schema_version", pattern(VERSION, "must be MAJOR.MINOR.PATCH")),
    Rule("signal_id", pattern(SIGNAL_ID.pattern, "must be OMEN- and 12 to 64 upper-case hex digits")),
    Rule("deterministic_trace_id", pattern(f"[0-9a-f]{{{TRACE_ID_DIGITS}}}", "must be 16 lower-case hex digits")),
    Rule("input_event_hash", pattern("sha256:[0-9a-f]{64}", "must be sha256: and 64 lower-case hex digits")),
    Rule("source", an_id),
    Rule("source_event_id", an_id),
    Rule("ruleset_version", an_id),
    Rule("observed_at", instant, Presence.REQUIRED),
    Rule("emitted_at", instant, Presence.REQUIRED),
    Rule("signal", nested(SIGNAL), Presence.REQUIRED),
    Rule("canonical_observation", canonical_bytes),
    Rule("traceparent", ascii_text(ID_CHARS_MAX)),
    relations=(generated_when_observed, hash_is_of_observation),
)
