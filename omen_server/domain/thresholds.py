"""Every number that a rule compares with, in one place.

A field's name is its rule's name, then what it bounds, then the unit where there is one; `_max` and `_min` are
included on the passing side. A change here is a change of the ruleset: it needs a new RULESET_VERSION.
"""

from dataclasses import dataclass, field, fields

from omen.v1.pipeline_service_pb2 import Threshold


def _number(value: float, unit: str = "") -> float:
    return field(default=value, metadata={"unit": unit})


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Defaults are ruleset 1.0.0."""

    # Markets are read often, so a quote that has not moved for a week is abandoned rather than calm; play money trades
    # less. PortWatch publishes weekly, a few days late. A forecast is replaced every 6 to 12 hours.
    freshness_real_money_market_h_max: float = _number(168.0, "hours")
    freshness_play_money_market_h_max: float = _number(336.0, "hours")
    freshness_sensor_h_max: float = _number(336.0, "hours")
    freshness_model_h_max: float = _number(24.0, "hours")
    freshness_news_h_max: float = _number(72.0, "hours")

    # Below a thousand dollars one person's pocket money moves the price; from ten thousand on it takes intent.
    liquidity_usd_min: float = _number(1_000.0, "USD")
    liquidity_usd_full: float = _number(10_000.0, "USD")

    # A wider book than ten points says that nobody knows the price. The price step asks the same number.
    spread_max: float = _number(0.10)

    # How much a last trade is worth against a book: nobody has to stand by it.
    price_last_trade_score: float = _number(0.5)

    anomaly_low_probability_min: float = _number(0.05)
    anomaly_high_probability_max: float = _number(0.95)
    anomaly_extreme_risk: float = _number(0.3)
    anomaly_jump_max: float = _number(0.5)
    anomaly_jump_risk: float = _number(0.4)
    anomaly_trader_count_min: float = _number(10.0, "traders")
    anomaly_volume_usd_max: float = _number(10_000.0, "USD")
    anomaly_concentration_risk: float = _number(0.3)
    anomaly_risk_limit: float = _number(0.5)  # reached is objected to

    semantic_relevance_category_score: float = _number(0.2)
    semantic_relevance_hit_score: float = _number(0.1)
    semantic_relevance_score_min: float = _number(0.3)

    geographic_relevance_distance_km_max: float = _number(500.0, "km")
    geographic_relevance_chokepoint_score: float = _number(1.0)
    geographic_relevance_port_score: float = _number(0.9)
    geographic_relevance_near_score: float = _number(0.8)  # at the place itself; half of it at the distance limit
    geographic_relevance_region_score: float = _number(0.6)

    # Official notices and agencies state more; an unverified social post states less.
    source_quality_news_min: float = _number(0.5)
    source_quality_sensor_min: float = _number(0.6)

    confidence_score_min: float = _number(0.30)
    confidence_medium_min: float = _number(0.50)
    confidence_high_min: float = _number(0.75)
    confidence_monitoring_min: float = _number(0.5)
    confidence_active_min: float = _number(0.7)


def thresholds_of(rule_name: str, thresholds: Thresholds) -> list[Threshold]:
    """The thresholds whose names begin with the rule's, without that beginning, sorted by name."""
    prefix = f"{rule_name}_"
    return [
        Threshold(name=f.name.removeprefix(prefix), value=getattr(thresholds, f.name), unit=f.metadata["unit"])
        for f in sorted(fields(thresholds), key=lambda f: f.name)
        if f.name.startswith(prefix)
    ]
