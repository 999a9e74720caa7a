"""Every rule at its threshold: the last that passes, the first that does not, and when it cannot tell."""

from dataclasses import fields
from datetime import timedelta
from typing import Any, NamedTuple

import pytest

from omen.v1 import signal_pb2 as pb
from omen.v1.pipeline_service_pb2 import Rejection
from omen_server.domain import RULESET, RuleFailed, Ruleset, process
from omen_server.domain.case import Case
from omen_server.domain.confidence import CONFIDENCE_RULE
from omen_server.domain.rules import ALL_CLASSES, RULES, Finding, Rule
from omen_server.domain.thresholds import Thresholds, thresholds_of
from tests.omen_server.domain.observations import MARKET, MODEL, NEWS, READ_AT, SENSOR, made, verdict

PASSED, OBJECTED, NOT_APPLICABLE = pb.RULE_OUTCOME_PASSED, pb.RULE_OUTCOME_OBJECTED, pb.RULE_OUTCOME_NOT_APPLICABLE
PLAY = {**MARKET, "source_class": pb.SOURCE_CLASS_PLAY_MONEY_MARKET}
SECOND = timedelta(seconds=1)


class Row(NamedTuple):
    rule: str
    plain: dict[str, Any]
    changes: dict[str, Any]
    outcome: pb.RuleOutcome.ValueType
    score: float


def aged(plain: dict[str, Any], hours: int, more: timedelta, outcome: pb.RuleOutcome.ValueType) -> Row:
    return Row("freshness", plain, {"source_updated_at": READ_AT - timedelta(hours=hours) - more}, outcome, 0.0)


def book(bid: float, ask: float, last: float | None = None) -> dict[str, Any]:
    return {"quote": {"best_bid": bid, "best_ask": ask, "last_trade": last}}


def at(latitude: float, longitude: float = 174.78, **more: str) -> dict[str, Any]:
    return {"title": "Storm", "locations": [{"latitude": latitude, "longitude": longitude, **more}]}


NOWHERE = {"locations": [{"name": "Lake Kariba", "country": "ZM"}], "title": "Strike"}
THIN = {"trader_count": 9, "volume_usd": 10_000.01}

ROWS = [
    aged(MARKET, 168, timedelta(), PASSED),
    aged(MARKET, 168, SECOND, OBJECTED),
    aged(PLAY, 336, timedelta(), PASSED),
    aged(PLAY, 336, SECOND, OBJECTED),
    aged(SENSOR, 336, timedelta(), PASSED),
    aged(SENSOR, 336, SECOND, OBJECTED),
    aged(MODEL, 24, timedelta(), PASSED),
    aged(MODEL, 24, SECOND, OBJECTED),
    aged(NEWS, 72, timedelta(), PASSED),
    aged(NEWS, 72, SECOND, OBJECTED),
    Row("freshness", MARKET, {"source_updated_at": READ_AT - timedelta(hours=42)}, PASSED, 0.75),
    Row("freshness", MARKET, {"source_updated_at": READ_AT + SECOND}, PASSED, 1.0),
    Row("freshness", MARKET, {"source_updated_at": None}, NOT_APPLICABLE, 0.0),
    Row("liquidity", MARKET, {"liquidity_usd": 1_000.0}, PASSED, 0.1),
    Row("liquidity", MARKET, {"liquidity_usd": 999.99}, OBJECTED, 0.1),
    Row("liquidity", MARKET, {"liquidity_usd": 10_000.0}, PASSED, 1.0),
    Row("liquidity", PLAY, {"liquidity_usd": 999.99}, OBJECTED, 0.1),
    Row("liquidity", PLAY, {"liquidity_usd": None}, NOT_APPLICABLE, 0.0),
    Row("liquidity", SENSOR, {"liquidity_usd": 1.0}, NOT_APPLICABLE, 0.0),
    Row("spread", MARKET, book(0.45, 0.55), PASSED, 0.0),  # 0.10000000000000003 in binary
    Row("spread", MARKET, book(0.45, 0.551), OBJECTED, 0.0),
    Row("spread", MARKET, book(0.45, 0.475), PASSED, 0.75),
    Row("spread", MARKET, book(0.5, 0.5), PASSED, 1.0),
    Row("spread", MARKET, {"quote": {"best_bid": 0.4}}, NOT_APPLICABLE, 0.0),
    Row("price", MARKET, book(0.45, 0.55), PASSED, 1.0),
    Row("price", MARKET, book(0.45, 0.551), OBJECTED, 0.0),
    Row("price", MARKET, book(0.45, 0.551, last=0.5), PASSED, 0.5),
    Row("price", MARKET, {"quote": None, "probability": 0.5}, OBJECTED, 0.0),
    Row("price", NEWS, {"probability": 0.0}, PASSED, 1.0),
    Row("price", NEWS, {"probability": None}, OBJECTED, 0.0),
    Row("anomaly", MARKET, {**book(0.05, 0.05), **THIN}, PASSED, 0.7),
    Row("anomaly", MARKET, {**book(0.049, 0.049), **THIN}, OBJECTED, 0.4),
    Row("anomaly", MARKET, {**book(0.95, 0.95), **THIN}, PASSED, 0.7),
    Row("anomaly", MARKET, {**book(0.951, 0.951), **THIN}, OBJECTED, 0.4),
    Row("anomaly", MARKET, {**book(0.951, 0.951), **THIN, "trader_count": 10}, PASSED, 0.7),
    Row("anomaly", MARKET, {**book(0.951, 0.951), **THIN, "volume_usd": 10_000.0}, PASSED, 0.7),
    Row("anomaly", MARKET, {**book(0.6, 0.6), **THIN, "previous_probability": 0.1}, PASSED, 0.7),
    Row("anomaly", MARKET, {**book(0.601, 0.601), **THIN, "previous_probability": 0.1}, OBJECTED, 0.3),
    Row("anomaly", MARKET, {"quote": None, "trader_count": None}, PASSED, 1.0),
    Row("anomaly", NEWS, {"probability": 0.99}, NOT_APPLICABLE, 0.0),
    Row("semantic_relevance", NEWS, {"title": "A strike"}, PASSED, 0.3),
    Row("semantic_relevance", NEWS, {"title": "A pause"}, OBJECTED, 0.0),
    Row("semantic_relevance", NEWS, {"title": "A recession"}, OBJECTED, 0.0),
    Row("semantic_relevance", NEWS, {"title": "Tariffs and a strike"}, PASSED, 0.6),
    Row("semantic_relevance", NEWS, {"title": "Strike, walkout, lockout: tariffs, sanctions, war"}, PASSED, 1.0),
    Row("semantic_relevance", NEWS, {"title": "A strike at the World Cup"}, OBJECTED, 0.0),
    Row("semantic_relevance", NEWS, {"title": "A strike", "description": "during the World Cup"}, PASSED, 0.3),
    Row("semantic_relevance", SENSOR, {"title": "A pause"}, NOT_APPLICABLE, 0.0),
    Row("geographic_relevance", MODEL, at(-36.84 - 4.4966), PASSED, 0.4),  # 500.00 km south of Auckland
    Row("geographic_relevance", MODEL, at(-36.84 - 4.4968), OBJECTED, 0.0),  # 500.02 km
    Row("geographic_relevance", MODEL, at(-36.84), PASSED, 0.8),
    Row("geographic_relevance", MODEL, at(-45.0, country="NZ"), PASSED, 0.6),
    Row("geographic_relevance", MODEL, at(-45.0, name="Hamburg"), PASSED, 0.9),
    Row("geographic_relevance", MODEL, at(-45.0, name="Suez"), PASSED, 1.0),
    Row("geographic_relevance", MARKET, NOWHERE, OBJECTED, 0.0),
    Row("geographic_relevance", MARKET, {"title": "Strike"}, NOT_APPLICABLE, 0.0),
    Row("source_quality", NEWS, {"source_quality": 0.5}, PASSED, 0.5),
    Row("source_quality", NEWS, {"source_quality": 0.4999}, OBJECTED, 0.4999),
    Row("source_quality", SENSOR, {"source_quality": 0.6}, PASSED, 0.6),
    Row("source_quality", SENSOR, {"source_quality": 0.5999}, OBJECTED, 0.5999),
    Row("source_quality", SENSOR, {"source_quality": None}, NOT_APPLICABLE, 0.0),
    Row("source_quality", MARKET, {"source_quality": 0.1}, NOT_APPLICABLE, 0.0),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.rule} {row.changes or 'plain'}"[:80])
def test_a_rule_says(row: Row) -> None:
    said = verdict(row.rule, made(row.plain, **row.changes))
    assert (pb.RuleOutcome.Name(said.outcome), said.score) == (pb.RuleOutcome.Name(row.outcome), row.score)
    assert said.reasoning


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_rule_has_a_row_that_passes_and_one_that_is_objected_to(rule: Rule) -> None:
    assert {PASSED, OBJECTED} <= {row.outcome for row in ROWS if row.rule == rule.name}


def test_all_rules_are_asked_and_the_first_that_objects_rejects() -> None:
    result = process(made(MARKET, liquidity_usd=5.0, title="Nothing of note", quote=None))
    assert isinstance(result, Rejection)
    assert [each.rule_name for each in result.verdicts] == [*(rule.name for rule in RULES), CONFIDENCE_RULE]
    objecting = [each.rule_name for each in result.verdicts if each.outcome == OBJECTED]
    assert objecting == ["liquidity", "price", "semantic_relevance", CONFIDENCE_RULE]
    assert result.rule_name == "liquidity"
    assert result.reasoning == next(each.reasoning for each in result.verdicts if each.rule_name == "liquidity")


def test_a_rejection_for_want_of_a_price_says_so() -> None:
    result = process(made(NEWS, probability=None))
    assert isinstance(result, Rejection)
    assert (result.rule_name, result.reasoning) == ("price", "NO_PRICE: the source states no probability.")


def test_a_rule_that_raises_fails_the_observation_with_its_name() -> None:
    def divide_by_zero(case: Case, thresholds: Thresholds) -> Finding:
        raise ZeroDivisionError

    broken = Rule("broken", "1.0.0", "Divides by zero.", ALL_CLASSES, divide_by_zero)
    with pytest.raises(RuleFailed, match="broken") as failure:
        process(made(MARKET), Ruleset(rules=(*RULES, broken)))
    assert failure.value.rule_name == "broken"
    assert isinstance(failure.value.__cause__, ZeroDivisionError)


def test_a_ruleset_that_forgets_the_price_makes_no_signal_without_one() -> None:
    rules = tuple(rule for rule in RULES if rule.name != "price")
    with pytest.raises(RuleFailed, match="price"):
        process(made(NEWS, probability=None), Ruleset(rules=rules))


def test_a_source_class_from_the_future_is_rejected_not_trusted() -> None:
    result = process(made(SENSOR, source_class=99))
    assert isinstance(result, Rejection)
    assert result.rule_name == CONFIDENCE_RULE
    assert "number 99" in result.verdicts[0].reasoning


def test_every_threshold_belongs_to_one_rule() -> None:
    names = [*(rule.name for rule in RULES), CONFIDENCE_RULE]
    listed = [f"{name}_{each.name}" for name in names for each in thresholds_of(name, RULESET.thresholds)]
    assert sorted(listed) == sorted(each.name for each in fields(Thresholds))
