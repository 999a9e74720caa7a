"""Identity depends on what the source said and on nothing else."""

import json
import os
import random
import subprocess
import sys
import unicodedata
import uuid
from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract import identity as formulas
from contract.identity import (
    ack_id,
    canonical_observation,
    fill_identity,
    identity,
    is_signal_id_of,
)
from omen.v1.observation_pb2 import Location, Metric, Observation, Quote
from omen.v1.signal_event_pb2 import SignalEvent
from omen.v1.signal_pb2 import SOURCE_CLASS_NEWS, ProbabilityInterval
from tests.contract.image import ROOT
from tests.contract.samples import OBSERVED_AT, full_event, full_observation, least_observation, stamp

HASH = f"sha256:{'ab' * 32}"
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
spaces = st.text(" \t\n", max_size=3)


def canonical(observation: Observation) -> dict[str, object]:
    parsed: dict[str, object] = json.loads(canonical_observation(observation))
    return parsed


def test_the_canonical_form_has_a_form_for_every_field_but_the_time_of_reading() -> None:
    tables = {
        Observation.DESCRIPTOR: formulas.OBSERVATION,
        Quote.DESCRIPTOR: formulas.QUOTE,
        Location.DESCRIPTOR: formulas.LOCATION,
        Metric.DESCRIPTOR: formulas.METRIC,
        ProbabilityInterval.DESCRIPTOR: formulas.INTERVAL,
    }
    for descriptor, forms in tables.items():
        names = [field.name for field in descriptor.fields]
        assert [*forms] == [name for name in names if name != "observed_at"], descriptor.full_name


def test_a_full_observation_shows_every_field_in_its_canonical_form() -> None:
    found = canonical(full_observation())
    assert found.keys() == formulas.OBSERVATION.keys()
    assert found["source_updated_at"] == "2026-01-29T11:57:58.123456Z"
    assert found["quote"] == {"best_bid": "0.3600000000", "best_ask": "0.3800000000", "last_trade": "0.3750000000"}
    assert found["previous_probability_window"] == "86400.500000"
    assert found["liquidity_usd"] == "125000.50"
    assert found["trader_count"] == "1842"
    assert found["keywords"] == ["shipping", "suez"]
    assert found["metrics"] == [{"name": "daily_transits", "value": 41.5, "unit": "ships/day"}]


def test_what_is_absent_or_empty_is_absent() -> None:
    bare = least_observation()
    blank = least_observation()
    blank.description, blank.url = "  ", "\n"
    blank.keywords.extend(["", " "])
    blank.quote.SetInParent()
    assert canonical_observation(blank) == canonical_observation(bare)
    assert canonical(bare).keys() == {"source", "source_class", "source_event_id", "title"}


def test_a_number_that_is_zero_is_not_absent() -> None:
    zero = least_observation()
    zero.probability, zero.trader_count = 0.0, 0
    assert canonical(zero)["probability"] == "0.0000000000"
    assert canonical(zero)["trader_count"] == "0"


@pytest.mark.parametrize("tiny", [-0.0, 1e-11, -1e-11])
def test_negative_zero_and_what_rounds_to_zero_are_zero(tiny: float) -> None:
    observation = least_observation()
    observation.probability = tiny
    observation.locations.add(latitude=tiny, longitude=0)
    found = canonical(observation)
    assert found["probability"] == "0.0000000000"
    assert found["locations"] == [{"latitude": "0.000000", "longitude": "0.000000"}]


@given(st.lists(text, max_size=6), st.randoms(use_true_random=False), spaces)
def test_order_case_space_and_normal_form_of_keywords_do_not_matter(
    keywords: list[str], order: random.Random, space: str
) -> None:
    one, other = least_observation(), least_observation()
    one.keywords.extend(unicodedata.normalize("NFC", word) for word in keywords)
    shuffled = [f"{space}{unicodedata.normalize('NFD', word)}{space}" for word in [*keywords, *keywords[:1]]]
    order.shuffle(shuffled)
    other.keywords.extend(shuffled)
    assert canonical_observation(one) == canonical_observation(other)


@given(text, spaces)
def test_normal_form_and_space_around_text_do_not_matter(title: str, space: str) -> None:
    one, other = least_observation(), least_observation()
    one.title = unicodedata.normalize("NFC", title)
    other.title = f"{space}{unicodedata.normalize('NFD', title)}{space}"
    assert canonical_observation(one) == canonical_observation(other)


@given(st.integers(0, 10**9))
def test_when_it_was_read_does_not_matter(microseconds: int) -> None:
    later = full_observation()
    later.observed_at.CopyFrom(stamp(OBSERVED_AT + timedelta(microseconds=microseconds)))
    assert canonical_observation(later) == canonical_observation(full_observation())


@given(st.floats(0, 1), st.floats(-4e-12, 4e-12))
def test_the_noise_of_arithmetic_does_not_matter(price: float, noise: float) -> None:
    price = round(price, 10)
    one, other = least_observation(), least_observation()
    one.probability, other.probability = price, price + noise
    assert canonical_observation(one) == canonical_observation(other)


CHANGES: dict[str, Callable[[Observation], object]] = {
    "source": lambda o: setattr(o, "source", "kalshi"),
    "source_class": lambda o: setattr(o, "source_class", SOURCE_CLASS_NEWS),
    "source_event_id": lambda o: setattr(o, "source_event_id", "polymarket:512346"),
    "source_updated_at": lambda o: setattr(o.source_updated_at, "nanos", 123_457_000),
    "source_revision": lambda o: setattr(o, "source_revision", "rev-18"),
    "title": lambda o: setattr(o, "title", "will the Suez Canal close before March?"),
    "description": lambda o: o.ClearField("description"),
    "outcome_label": lambda o: setattr(o, "outcome_label", "No"),
    "quote": lambda o: setattr(o.quote, "best_bid", 0.3600000001),
    "probability": lambda o: setattr(o, "probability", 0.3700000001),
    "previous_probability": lambda o: o.ClearField("previous_probability"),
    "previous_probability_window": lambda o: setattr(o.previous_probability_window, "nanos", 500_001_000),
    "liquidity_usd": lambda o: setattr(o, "liquidity_usd", 125_000.51),
    "volume_usd": lambda o: setattr(o, "volume_usd", 0.0),
    "trader_count": lambda o: setattr(o, "trader_count", 1843),
    "keywords": lambda o: o.keywords.append("strike"),
    "locations": lambda o: setattr(o.locations[0], "latitude", 30.420001),
    "url": lambda o: setattr(o, "url", "https://polymarket.com/event/suez-canal-2"),
    "created_at": lambda o: setattr(o.created_at, "nanos", 1000),
    "resolution_date": lambda o: o.ClearField("resolution_date"),
    "resolution_criteria": lambda o: setattr(o, "resolution_criteria", "None."),
    "metrics": lambda o: setattr(o.metrics[0], "value", 41.50000000000001),
    "probability_interval": lambda o: setattr(o.probability_interval, "method", "ENSEMBLE"),
    "source_quality": lambda o: setattr(o, "source_quality", 0.8000000001),
}


def test_every_field_of_the_canonical_form_is_changed_below() -> None:
    assert CHANGES.keys() == formulas.OBSERVATION.keys()


@pytest.mark.parametrize("field", CHANGES)
def test_another_content_is_another_canonical_form(field: str) -> None:
    changed = full_observation()
    CHANGES[field](changed)
    assert canonical_observation(changed) != canonical_observation(full_observation())


def test_the_ids_are_the_same_under_any_hash_seed() -> None:
    program = (
        "from contract.identity import *; from tests.contract.samples import *\n"
        "event = full_event(); print(event.signal_id, event.deterministic_trace_id, event.input_event_hash)"
    )
    path = os.pathsep.join(str(folder) for folder in (ROOT, ROOT / "protos"))
    answers = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "4242")
    }
    event = full_event()
    assert answers == {f"{event.signal_id} {event.deterministic_trace_id} {event.input_event_hash}\n"}


def test_ids_follow_the_formula() -> None:
    ids = identity("polymarket:1", HASH, "1.0.0")
    assert len(ids.digest) == 64
    assert ids.trace_id == ids.digest[:16]
    assert ids.signal_id == f"OMEN-{ids.digest[:12].upper()}"
    assert ids.signal_id_of(32) == f"OMEN-{ids.digest[:32].upper()}"


@pytest.mark.parametrize("digits", [11, 65])
def test_a_signal_id_has_12_to_64_digits(digits: int) -> None:
    with pytest.raises(ValueError, match="12 to 64"):
        identity("a", HASH, "1").signal_id_of(digits)


@pytest.mark.parametrize("digits", range(12, 65))
def test_any_prefix_of_12_to_64_digits_is_an_id_of_the_event(digits: int) -> None:
    ids = identity("a", HASH, "1")
    assert is_signal_id_of(ids.digest, ids.signal_id_of(digits))


def test_no_other_text_is_an_id_of_the_event() -> None:
    ids = identity("a", HASH, "1")
    wrong = [
        f"OMEN-{ids.digest[:11].upper()}",
        ids.signal_id_of(64) + "0",
        ids.signal_id.lower(),
        f"OMEN-{ids.digest[:12]}",
        ids.signal_id + "\n",
        identity("b", HASH, "1").signal_id,
        "",
    ]
    assert [one for one in wrong if is_signal_id_of(ids.digest, one)] == []


@pytest.mark.parametrize("parts", [("a|b", HASH, "1"), ("a", "b|c", "1"), ("a", HASH, "1|2")])
def test_a_part_with_the_joining_character_is_refused(parts: tuple[str, str, str]) -> None:
    with pytest.raises(ValueError, match="may contain"):
        identity(*parts)


def test_the_acknowledgement_of_an_event_is_the_same_for_ever() -> None:
    assert ack_id("OMEN-0123456789AB", HASH) == "ack-222b6662-c218-51be-a10f-198124ed25b7"
    assert ack_id("OMEN-0123456789AC", HASH) != ack_id("OMEN-0123456789AB", HASH)


def test_filling_derives_what_is_empty_and_leaves_what_is_given() -> None:
    full = full_event()
    empty = full_event()
    for field in ("input_event_hash", "signal_id", "deterministic_trace_id"):
        empty.ClearField(field)
    fill_identity(empty)
    assert empty == full

    given_id = full_event()
    given_id.signal_id = "OMEN-FFFFFFFFFFFF"
    fill_identity(given_id)
    assert given_id.signal_id == "OMEN-FFFFFFFFFFFF"


@pytest.mark.parametrize("source_event_id", ["", "a|b"])
def test_filling_leaves_empty_what_cannot_be_derived(source_event_id: str) -> None:
    event = SignalEvent(source_event_id=source_event_id, input_event_hash=HASH, ruleset_version="1.0.0")
    fill_identity(event)
    assert (event.signal_id, event.deterministic_trace_id) == ("", "")


@given(*2 * [st.text(st.characters(exclude_categories=["Cs"]), max_size=80)])
def test_an_acknowledgement_is_the_name_based_uuid_of_rfc_9562(signal_id: str, input_event_hash: str) -> None:
    """Written out by hand for its speed, it must stay what the library makes."""
    made = uuid.uuid5(formulas.ACK_NAMESPACE, f"{signal_id}|{input_event_hash}")
    assert ack_id(signal_id, input_event_hash) == f"ack-{made}"
