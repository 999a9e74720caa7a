"""Observations for tests: one plain one of each class of source, to be varied by field, and any valid one."""

import unicodedata
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from hypothesis import strategies as st

import omen_server
from contract.validation import violations_of_observation
from omen.v1 import signal_pb2 as pb
from omen.v1.observation_pb2 import Observation
from omen_server.domain.case import TABLES, case_of
from omen_server.domain.ruleset import RULESET, judge

READ_AT = datetime(2026, 1, 29, 8, 0, tzinfo=UTC)
DEMO_FILE = Path(omen_server.__file__).parent / "demo" / "observations.ndjson"

PLAIN: dict[str, Any] = {"source_event_id": "test:1", "source_updated_at": READ_AT, "observed_at": READ_AT}
MARKET: dict[str, Any] = {
    **PLAIN,
    "source": "test-market",
    "source_class": pb.SOURCE_CLASS_REAL_MONEY_MARKET,
    "title": "Strike at the port of Rotterdam",
    "quote": {"best_bid": 0.4, "best_ask": 0.44, "last_trade": 0.41},
    "liquidity_usd": 20_000.0,
    "volume_usd": 50_000.0,
    "trader_count": 200,
}
SENSOR: dict[str, Any] = {
    **PLAIN,
    "source": "test-sensor",
    "source_class": pb.SOURCE_CLASS_SENSOR,
    "title": "Suez Canal transits stay low",
    "probability": 0.6,
    "source_quality": 0.9,
}
MODEL: dict[str, Any] = {
    **PLAIN,
    "source": "test-model",
    "source_class": pb.SOURCE_CLASS_MODEL,
    "title": "Gusts at Hamburg",
    "probability": 0.3,
}
NEWS: dict[str, Any] = {
    **PLAIN,
    "source": "test-news",
    "source_class": pb.SOURCE_CLASS_NEWS,
    "title": "Dockers of Piraeus vote on a walkout",
    "probability": 0.8,
    "source_quality": 0.7,
}


def made(plain: dict[str, Any], **changes: object) -> Observation:
    """A plain observation with some fields changed; None leaves a field out."""
    return Observation(**{**plain, **changes})


def demo_observations() -> list[Observation]:
    lines = DEMO_FILE.read_text("utf-8").splitlines()
    return [json_format.Parse(line, Observation()) for line in lines]


def verdict(rule_name: str, observation: Observation) -> pb.ValidationScore:
    """What one rule says, asked among all the others."""
    judgement = judge(case_of(observation, RULESET.thresholds), RULESET)
    return next(each for each in judgement.verdicts if each.rule_name == rule_name)


VOCABULARY = sorted({phrase for table in TABLES.values() for phrases in table.values() for phrase in phrases})

characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
plain_ascii = st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters="|")
shares = st.floats(0, 1)
amounts = st.floats(0, 1.7e308)
seconds = st.integers(946_684_800, 4_102_444_799)


def texts(most: int, least: int = 0) -> st.SearchStrategy[str]:
    """Any text within the contract's limits, and text made of the words that rules look for."""
    spoken = st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=30).map(" ".join)
    either = st.one_of(st.text(characters, min_size=least, max_size=most), spoken)
    return either.map(lambda text: unicodedata.normalize("NFC", text)[:most])


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def times() -> st.SearchStrategy[dict[str, int]]:
    return st.fixed_dictionaries({"seconds": seconds, "nanos": st.integers(0, 999_999_999)})


locations = st.builds(
    lambda point, name, country: {**(point or {}), "name": name, "country": country},
    maybe(st.fixed_dictionaries({"latitude": st.floats(-90, 90), "longitude": st.floats(-180, 180)})),
    texts(128),
    st.sampled_from(["", "EG", "ZM", "US", "NL"]),
)
metrics = st.builds(
    lambda name, value, unit: {"name": name, "value": value, "unit": unit},
    st.text(plain_ascii, min_size=1, max_size=64),
    st.floats(allow_nan=False, allow_infinity=False),
    texts(64),
)
intervals = st.builds(
    lambda ends, method: {"low": min(ends), "high": max(ends), "method": method},
    st.tuples(shares, shares),
    st.text(plain_ascii, min_size=1, max_size=64),
)
quotes = st.builds(
    lambda bid, spread, last: {"best_bid": bid, "best_ask": min(1.0, bid + spread), "last_trade": last},
    shares,
    st.floats(0, 0.15),
    maybe(shares),
)


def observations() -> st.SearchStrategy[Observation]:
    """Any observation that the contract calls valid."""
    fields = {
        "source": st.text(plain_ascii, min_size=1, max_size=128),
        "source_class": st.sampled_from([1, 1, 2, 3, 4, 5, 99]),
        "source_event_id": st.text(plain_ascii, min_size=1, max_size=128),
        "source_updated_at": maybe(times()) | st.just(READ_AT),
        "title": texts(500, least=1),
        "description": texts(5000),
        "outcome_label": texts(128),
        "quote": quotes | quotes | maybe(quotes),
        "probability": shares | maybe(shares),
        "previous_probability": maybe(shares),
        "previous_probability_window": st.just({"seconds": 3600}),
        "liquidity_usd": maybe(st.floats(500, 50_000) | amounts),
        "volume_usd": maybe(amounts),
        "trader_count": maybe(st.integers(0, 2**63 - 1)),
        "keywords": st.lists(texts(64), max_size=64),
        "locations": st.lists(locations, max_size=8),
        "url": texts(2048),
        "resolution_date": maybe(times()),
        "resolution_criteria": texts(5000),
        "observed_at": times() | st.just(READ_AT),
        "metrics": st.lists(metrics, max_size=8, unique_by=lambda metric: metric["name"]),
        "probability_interval": maybe(intervals),
        "source_quality": st.floats(0.4, 1) | maybe(shares),
    }
    built = st.fixed_dictionaries(fields).map(lambda chosen: Observation(**chosen))
    return built.filter(lambda observation: not violations_of_observation(observation))
