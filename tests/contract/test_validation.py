"""What an event and an observation must be as a whole; single fields are in test_limits.py."""

from collections.abc import Callable
from datetime import timedelta, timezone

import pytest

from contract.errors import ContractError, Violation
from contract.identity import canonical_observation, fill_identity, identity_of_event
from contract.reasons import Reason
from contract.validation import (
    check_event,
    check_observation,
    violations_of_event,
    violations_of_observation,
    violations_of_position,
)
from omen.v1.ledger_record_pb2 import LedgerPosition
from omen.v1.observation_pb2 import Location, Observation
from omen.v1.signal_event_pb2 import SignalEvent
from tests.contract.samples import (
    EMITTED_AT,
    NOW,
    full_event,
    full_observation,
    full_position,
    least_event,
    least_observation,
)

EVENT_BYTES_MAX = 256 * 1024
CANONICAL_BYTES_MAX = 64 * 1024


def refusal(event: SignalEvent) -> ContractError:
    with pytest.raises(ContractError) as caught:
        check_event(event, now=NOW)
    return caught.value


@pytest.mark.parametrize("event", [full_event(), least_event()], ids=["full", "least"])
def test_an_event_as_it_must_be_is_taken(event: SignalEvent) -> None:
    check_event(event, now=NOW)


@pytest.mark.parametrize("observation", [full_observation(), least_observation()], ids=["full", "least"])
def test_an_observation_as_it_must_be_is_taken(observation: Observation) -> None:
    check_observation(observation)


def test_a_position_as_it_must_be_is_taken() -> None:
    assert violations_of_position(full_position()) == []
    assert len(violations_of_position(LedgerPosition())) == 4


def test_an_empty_event_names_every_required_field_in_order() -> None:
    required = [
        *("schema_version", "signal_id", "deterministic_trace_id", "input_event_hash", "source", "source_event_id"),
        *("ruleset_version", "observed_at", "emitted_at", "signal"),
    ]
    assert violations_of_event(SignalEvent(), 0) == [Violation(field, "required") for field in required]


def test_an_empty_signal_names_every_required_field_in_order() -> None:
    event = least_event()
    event.signal.Clear()
    event.signal.SetInParent()
    required = [
        *("title", "signal_type", "status", "category", "probability_source", "price_basis", "confidence_level"),
        *("confidence_method", "source_class", "generated_at"),
    ]
    assert violations_of_event(event, event.ByteSize()) == [
        Violation(f"signal.{field}", "required") for field in required
    ]


def test_an_empty_observation_names_every_required_field_in_order() -> None:
    required = ["source", "source_class", "source_event_id", "title", "observed_at"]
    assert violations_of_observation(Observation()) == [Violation(field, "required") for field in required]


def test_the_path_of_a_violation_leads_through_messages_and_lists() -> None:
    event = full_event()
    event.signal.evidence.extend([event.signal.evidence[0]] * 3)
    event.signal.evidence[3].url = "x" * 2049
    assert violations_of_event(event, event.ByteSize()) == [
        Violation("signal.evidence[3].url", "must be 0 to 2048 characters, is 2049")
    ]


def test_an_error_carries_every_violation_and_shows_the_first() -> None:
    event = full_event()
    event.signal.title, event.signal.probability = "", 2.0
    error = refusal(event)
    assert error.reason == Reason.INVALID_SIGNAL
    assert [violation.field for violation in error.violations] == ["signal.title", "signal.probability"]
    assert str(error) == "signal.title: required (and 1 more)"


def test_a_value_that_is_refused_is_not_repeated() -> None:
    event = full_event()
    event.source_event_id = "s3cret|key"
    error = refusal(event)
    assert "s3cret" not in str(error.status("omen.v1"))


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(minutes=5)])
def test_emitted_at_may_be_up_to_5_minutes_ahead(ahead: timedelta) -> None:
    check_event(full_event(), now=EMITTED_AT - ahead)


def test_emitted_at_may_not_be_a_microsecond_more_ahead() -> None:
    now = EMITTED_AT - timedelta(minutes=5, microseconds=1)
    with pytest.raises(ContractError) as raised:
        check_event(full_event(), now=now)
    assert raised.value.violations == (Violation("emitted_at", "must be at most 5 minutes ahead of the server"),)


def test_the_clock_of_the_server_may_be_in_any_zone_but_must_have_one() -> None:
    check_event(full_event(), now=NOW.astimezone(timezone(timedelta(hours=-11))))
    with pytest.raises(ValueError, match="time zone"):
        check_event(full_event(), now=NOW.replace(tzinfo=None))


def padded(event: SignalEvent, size: int) -> SignalEvent:
    """The event with a field that only a newer peer knows, so many bytes in all."""
    encoded = event.SerializeToString()
    head = b"\xc2\x3e"  # field 1000, length-delimited
    room = size - len(encoded) - len(head) - 3
    length = bytes([room & 0x7F | 0x80, room >> 7 & 0x7F | 0x80, room >> 14])
    return SignalEvent.FromString(encoded + head + length + b"x" * room)


def test_an_event_has_at_most_256_kib_encoded() -> None:
    good, bad = padded(full_event(), EVENT_BYTES_MAX), padded(full_event(), EVENT_BYTES_MAX + 1)
    assert good.ByteSize() == EVENT_BYTES_MAX
    check_event(good, now=NOW)
    assert refusal(bad).violations == (Violation("", "must be at most 262144 bytes, is 262145"),)


def test_the_hash_must_be_that_of_the_observation_when_both_are_there() -> None:
    event = full_event()
    event.canonical_observation += b" "
    assert [violation.field for violation in refusal(event).violations] == ["input_event_hash"]


def test_generated_at_must_equal_observed_at() -> None:
    event = full_event()
    event.signal.generated_at.nanos += 1
    assert [violation.field for violation in refusal(event).violations] == ["signal.generated_at"]


@pytest.mark.parametrize("version", ["2.0.0", "2", "10.1.7", "999999999999.0.0"])
def test_a_higher_major_is_refused_before_anything_else_is_judged(version: str) -> None:
    error = refusal(SignalEvent(schema_version=version))
    assert error.reason == Reason.SCHEMA_VERSION_UNSUPPORTED
    assert error.metadata == {"got": version, "max": "1.x"}


def test_a_higher_minor_is_taken() -> None:
    event = full_event()
    event.schema_version = "1.99.0"
    check_event(event, now=NOW)


@pytest.mark.parametrize("digits", [12, 13, 32, 64])
def test_a_signal_id_of_any_length_must_be_a_prefix_of_the_digest(digits: int) -> None:
    event = full_event()
    event.signal_id = identity_of_event(event).signal_id_of(digits)
    check_event(event, now=NOW)

    expected = event.signal_id
    event.signal_id = expected[:-1] + ("1" if expected[-1] == "0" else "0")
    error = refusal(event)
    assert error.reason == Reason.SIGNAL_ID_MISMATCH
    assert error.metadata == {"field": "signal_id", "expected": expected, "got": event.signal_id}


def test_the_trace_id_must_be_that_of_the_digest() -> None:
    event = full_event()
    expected, event.deterministic_trace_id = event.deterministic_trace_id, "0" * 16
    error = refusal(event)
    assert error.reason == Reason.SIGNAL_ID_MISMATCH
    assert error.metadata == {"field": "deterministic_trace_id", "expected": expected, "got": "0" * 16}


@pytest.mark.parametrize("field", ["source_event_id", "ruleset_version"])
def test_ids_of_other_parts_are_refused(field: str) -> None:
    event = full_event()
    setattr(event, field, "9.9.9")
    assert refusal(event).reason == Reason.SIGNAL_ID_MISMATCH


def test_what_fill_identity_derives_is_taken() -> None:
    event = full_event()
    for field in ("input_event_hash", "signal_id", "deterministic_trace_id"):
        event.ClearField(field)
    fill_identity(event)
    check_event(event, now=NOW)


RELATIONS: dict[str, Callable[[Observation], object]] = {
    "quote.best_ask": lambda o: setattr(o.quote, "best_bid", 0.39),
    "previous_probability_window": lambda o: o.ClearField("previous_probability_window"),
    "locations[1].longitude": lambda o: o.locations.append(Location(latitude=0.0)),
    "metrics": lambda o: o.metrics.append(o.metrics[0]),
    "probability_interval.low": lambda o: setattr(o.probability_interval, "low", 0.39),
}


@pytest.mark.parametrize("field", RELATIONS)
def test_fields_of_an_observation_must_fit_each_other(field: str) -> None:
    observation = full_observation()
    RELATIONS[field](observation)
    with pytest.raises(ContractError) as caught:
        check_observation(observation)
    assert caught.value.reason == Reason.INVALID_OBSERVATION
    assert [violation.field for violation in caught.value.violations] == [field]


def test_a_quote_of_one_side_and_a_window_alone_are_taken() -> None:
    observation = full_observation()
    observation.quote.ClearField("best_bid")
    observation.ClearField("previous_probability")
    assert violations_of_observation(observation) == []


def test_an_observation_whose_canonical_form_is_above_64_kib_is_refused() -> None:
    """Control characters become six bytes each in JSON; every single field is within its limit."""
    observation = least_observation()
    observation.description = observation.resolution_criteria = "\x01" * 5000
    assert violations_of_observation(observation) == []
    observation.keywords.extend(["\x01" * 64] * 64)
    assert violations_of_observation(observation) == []  # keywords are a set
    del observation.keywords[:]
    observation.keywords.extend(f"{number:02}" + "\x01" * 62 for number in range(64))
    assert violations_of_observation(observation) == [Violation("", "its canonical form must be at most 65536 bytes")]


def test_an_observation_too_short_to_be_measured_stays_below_the_limit_at_its_worst() -> None:
    """The shortcut that spares writing short observations must hold for those that grow most."""
    observation = least_observation()
    observation.liquidity_usd = observation.volume_usd = 1.7e308
    for number in range(64):
        observation.metrics.add(name=f"{number}", value=-1.7976931348623157e308)
    observation.description = "\x01" * 5000
    spare = (CANONICAL_BYTES_MAX - 2048) // 7 - observation.ByteSize()
    observation.resolution_criteria = "\x01" * (spare - 4)
    assert 0 <= CANONICAL_BYTES_MAX - 2048 - 7 * observation.ByteSize() < 14
    assert CANONICAL_BYTES_MAX // 2 < len(canonical_observation(observation)) <= CANONICAL_BYTES_MAX


def test_a_position_must_be_complete() -> None:
    position = full_position()
    position.ClearField("segment_id")
    assert violations_of_position(position) == [Violation("segment_id", "must be 16 bytes")]
