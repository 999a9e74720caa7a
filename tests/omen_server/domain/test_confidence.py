"""Confidence: no factor that rises, and no factor that appears, lowers it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omen.v1 import signal_pb2 as pb
from omen.v1.signal_event_pb2 import SignalEvent
from omen_server.domain import RULESET, process
from omen_server.domain.confidence import (
    RELIABILITY,
    RELIABILITY_FACTOR,
    WEIGHTS,
    Confidence,
    finding_of,
    level_of,
    status_of,
    weighted,
)
from omen_server.domain.rules import ALL_CLASSES, RULES
from tests.omen_server.domain.observations import MARKET, demo_observations, made

shares = st.floats(0, 1).map(lambda value: round(value, 4))
classes = st.sampled_from(ALL_CLASSES)
scores = st.dictionaries(st.sampled_from(sorted({name for each in WEIGHTS.values() for name in each})), shares)


@given(classes, scores, st.data())
def test_a_factor_that_rises_never_lowers_it(
    source_class: pb.SourceClass.ValueType, found: dict[str, float], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(WEIGHTS[source_class])))
    higher = data.draw(st.floats(found.get(name, 0.0), 1).map(lambda value: round(value, 4)))
    assert weighted(source_class, {**found, name: higher}).score >= weighted(source_class, found).score


@given(classes, scores)
def test_it_can_be_computed_again_from_the_factors(
    source_class: pb.SourceClass.ValueType, found: dict[str, float]
) -> None:
    confidence = weighted(source_class, found)
    assert confidence.score == pytest.approx(sum(each.value * each.weight for each in confidence.factors), abs=5.1e-5)
    assert 0 <= confidence.score <= confidence.completeness <= 1
    assert [each.name for each in confidence.factors] == sorted(each.name for each in confidence.factors)


@pytest.mark.parametrize("source_class", ALL_CLASSES)
def test_the_weights_of_a_class_add_up_to_one_and_name_what_speaks_about_it(
    source_class: pb.SourceClass.ValueType,
) -> None:
    assert sum(WEIGHTS[source_class].values()) == pytest.approx(1)
    assert list(WEIGHTS[source_class]) == sorted(WEIGHTS[source_class])
    speaking = {rule.name for rule in RULES if source_class in rule.applies_to}
    assert set(WEIGHTS[source_class]) - {RELIABILITY_FACTOR} <= speaking
    assert 0 < RELIABILITY[source_class] <= 1


def test_a_last_trade_is_worth_less_than_the_same_market_with_a_book() -> None:
    with_book = process(made(MARKET, quote={"best_bid": 0.36, "best_ask": 0.45, "last_trade": 0.4}))
    without = process(made(MARKET, quote={"best_bid": 0.36, "last_trade": 0.4}))
    assert isinstance(with_book, SignalEvent)
    assert isinstance(without, SignalEvent)
    assert without.signal.price_basis == pb.PRICE_BASIS_LAST_TRADE
    assert without.signal.confidence_score < with_book.signal.confidence_score


@pytest.mark.parametrize(
    ("score", "level", "status"),
    [
        (1.0, "HIGH", "ACTIVE"),
        (0.75, "HIGH", "ACTIVE"),
        (0.7499, "MEDIUM", "ACTIVE"),
        (0.7, "MEDIUM", "ACTIVE"),
        (0.6999, "MEDIUM", "MONITORING"),
        (0.5, "MEDIUM", "MONITORING"),
        (0.4999, "LOW", "CANDIDATE"),
        (0.3, "LOW", "CANDIDATE"),
    ],
)
def test_level_and_status_follow_the_score(score: float, level: str, status: str) -> None:
    assert pb.ConfidenceLevel.Name(level_of(score, RULESET.thresholds)) == f"CONFIDENCE_LEVEL_{level}"
    assert pb.SignalStatus.Name(status_of(score, RULESET.thresholds)) == f"SIGNAL_STATUS_{status}"


@pytest.mark.parametrize(("score", "outcome"), [(0.3, pb.RULE_OUTCOME_PASSED), (0.2999, pb.RULE_OUTCOME_OBJECTED)])
def test_too_little_confidence_is_objected_to(score: float, outcome: pb.RuleOutcome.ValueType) -> None:
    assert finding_of(Confidence(score, 1.0, ()), RULESET.thresholds).outcome == outcome


def test_every_level_and_status_is_reached_by_an_observation() -> None:
    results = [process(observation) for observation in demo_observations()]
    signals = [result.signal for result in results if isinstance(result, SignalEvent)]
    assert {signal.confidence_level for signal in signals} == set(pb.ConfidenceLevel.values()) - {0}
    assert {signal.status for signal in signals} == set(pb.SignalStatus.values()) - {0}
