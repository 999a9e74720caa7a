"""How good the evidence is: a weighted mean of the rules' scores that apply, and what follows from it.

    confidence = (sum of weight * score over the factors present / their weights) * (their weights / all weights)

The second bracket is completeness: the share, by weight, of a class's factors that the observation lets us see. Weights
of a class add up to 1, so the product is the plain sum of weight * score over the factors present. A factor that is
missing is therefore never better than one at its worst, and no factor that rises lowers the confidence.
"""

from collections.abc import Mapping
from typing import NamedTuple

from omen.v1 import signal_pb2 as pb
from omen_server.domain.price import rounded
from omen_server.domain.rules import Finding, judged
from omen_server.domain.thresholds import Thresholds

CONFIDENCE_RULE = "confidence"
CONFIDENCE_RULE_VERSION = "1.0.0"
CONFIDENCE_METHOD = "weighted_mean_times_completeness:1.0.0"
CONFIDENCE_DESCRIPTION = "The confidence score reaches the minimum. It is asked last, of what the other rules found."

RELIABILITY_FACTOR = "source_reliability"

Weights = Mapping[str, float]

_MARKET_WEIGHTS: Weights = {
    "freshness": 0.15,
    "geographic_relevance": 0.15,
    "liquidity": 0.25,
    "semantic_relevance": 0.15,
    "source_reliability": 0.15,
    "spread": 0.15,
}

# Factor -> its weight, by source class; sorted by name, adding up to 1. A factor is the score of the rule of its name.
WEIGHTS: Mapping[pb.SourceClass.ValueType, Weights] = {
    pb.SOURCE_CLASS_REAL_MONEY_MARKET: _MARKET_WEIGHTS,
    pb.SOURCE_CLASS_PLAY_MONEY_MARKET: _MARKET_WEIGHTS,
    pb.SOURCE_CLASS_SENSOR: {
        "freshness": 0.25,
        "geographic_relevance": 0.25,
        "source_quality": 0.25,
        "source_reliability": 0.25,
    },
    pb.SOURCE_CLASS_MODEL: {"freshness": 0.3, "geographic_relevance": 0.3, "source_reliability": 0.4},
    pb.SOURCE_CLASS_NEWS: {
        "freshness": 0.2,
        "geographic_relevance": 0.2,
        "semantic_relevance": 0.2,
        "source_quality": 0.2,
        "source_reliability": 0.2,
    },
}

# How far a class of sources is trusted before anything is known of the report: money at stake and instruments most.
RELIABILITY: Mapping[pb.SourceClass.ValueType, float] = {
    pb.SOURCE_CLASS_REAL_MONEY_MARKET: 0.9,
    pb.SOURCE_CLASS_PLAY_MONEY_MARKET: 0.5,
    pb.SOURCE_CLASS_SENSOR: 0.9,
    pb.SOURCE_CLASS_MODEL: 0.8,
    pb.SOURCE_CLASS_NEWS: 0.6,
}


class Factor(NamedTuple):
    """A score and its weight among all factors of the class."""

    name: str
    value: float
    weight: float


class Confidence(NamedTuple):
    """`score` is rounded to 4 decimals and is the sum of value * weight over `factors`, which are sorted by name."""

    score: float
    completeness: float
    factors: tuple[Factor, ...]


def confidence_of(source_class: pb.SourceClass.ValueType, scores: Mapping[str, float]) -> Confidence:
    """`scores` are those of the rules that applied; the reliability of the class joins them.

    A class that is not known here, of a newer peer, has no factors: its confidence is 0.
    """
    return weighted(source_class, {**scores, RELIABILITY_FACTOR: RELIABILITY.get(source_class, 0.0)})


def weighted(source_class: pb.SourceClass.ValueType, scores: Mapping[str, float]) -> Confidence:
    """Scores that the class has no weight for take no part."""
    factors = tuple(
        Factor(name, scores[name], weight) for name, weight in WEIGHTS.get(source_class, {}).items() if name in scores
    )
    score = rounded(sum(value * weight for _, value, weight in factors), 4)
    return Confidence(score, rounded(sum(weight for _, _, weight in factors), 4), factors)


def finding_of(confidence: Confidence, thresholds: Thresholds) -> Finding:
    terms = " + ".join(f"{name} {value:g} x {weight:g}" for name, value, weight in confidence.factors)
    return judged(
        confidence.score >= thresholds.confidence_score_min,
        confidence.score,
        f"Confidence {confidence.score:g}, minimum {thresholds.confidence_score_min:g}: {terms or 'nothing'}; "
        f"{confidence.completeness:.0%} of the evidence by weight is there.",
    )


def level_of(score: float, thresholds: Thresholds) -> pb.ConfidenceLevel.ValueType:
    if score >= thresholds.confidence_high_min:
        return pb.CONFIDENCE_LEVEL_HIGH
    if score >= thresholds.confidence_medium_min:
        return pb.CONFIDENCE_LEVEL_MEDIUM
    return pb.CONFIDENCE_LEVEL_LOW


def status_of(score: float, thresholds: Thresholds) -> pb.SignalStatus.ValueType:
    """Of a score that was not rejected."""
    if score >= thresholds.confidence_active_min:
        return pb.SIGNAL_STATUS_ACTIVE
    if score >= thresholds.confidence_monitoring_min:
        return pb.SIGNAL_STATUS_MONITORING
    return pb.SIGNAL_STATUS_CANDIDATE
