"""The rules: each looks at one case and says passed, objected or not applicable, with a score and its reasons.

`RULES` is the one register, in the order in which they are asked. All of them are always asked; the first that objects
rejects the observation. A new rule is a function here, its thresholds in `thresholds`, a row in `RULES` and a new
RULESET_VERSION.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from omen.v1 import signal_pb2 as pb
from omen_server.domain.case import TOPICS_BY_NAME, Case
from omen_server.domain.places import REGION_NAMES, Places
from omen_server.domain.price import MARKETS, rounded, spread_of
from omen_server.domain.thresholds import Thresholds

SECONDS_PER_HOUR = 3600

ALL_CLASSES = tuple(value for value in pb.SourceClass.values() if value != pb.SOURCE_CLASS_UNSPECIFIED)
CLASS_NAMES = {
    value: name.removeprefix("SOURCE_CLASS_").lower().replace("_", " ") for name, value in pb.SourceClass.items()
}
TEXT_CLASSES = (*MARKETS, pb.SOURCE_CLASS_NEWS)
GRADED_CLASSES = (pb.SOURCE_CLASS_SENSOR, pb.SOURCE_CLASS_NEWS)


class Finding(NamedTuple):
    """What a rule says of a case. `score` is 0 to 1; 0 when not applicable."""

    outcome: pb.RuleOutcome.ValueType
    score: float
    reasoning: str


@dataclass(frozen=True, slots=True)
class Rule:
    """`applies_to` are the source classes it speaks about; `evaluate` is asked about no other."""

    name: str
    version: str
    description: str
    applies_to: tuple[pb.SourceClass.ValueType, ...]
    evaluate: Callable[[Case, Thresholds], Finding]


def judged(passed: bool, score: float, reasoning: str) -> Finding:
    outcome = pb.RULE_OUTCOME_PASSED if passed else pb.RULE_OUTCOME_OBJECTED
    return Finding(outcome, min(1.0, max(0.0, rounded(score, 4))), reasoning)


def unknown(reasoning: str) -> Finding:
    """The rule cannot tell: no objection, and where the class has a weight for it confidence misses a factor."""
    return Finding(pb.RULE_OUTCOME_NOT_APPLICABLE, 0.0, reasoning)


def freshness(case: Case, thresholds: Thresholds) -> Finding:
    observation = case.observation
    if not observation.HasField("source_updated_at"):
        return unknown("The source does not say when it last changed the fact.")
    h_max = freshness_limit_h(observation.source_class, thresholds)
    age_h = seconds_between(observation.source_updated_at, observation.observed_at) / SECONDS_PER_HOUR
    if age_h < 0:
        return judged(True, 1.0, f"Changed {-age_h:.2f} h after it was read by our clock: new, limit {h_max:g} h.")
    return judged(
        age_h <= h_max, 1 - age_h / h_max, f"Last changed {age_h:.2f} h before it was read, limit {h_max:g} h."
    )


def freshness_limit_h(source_class: pb.SourceClass.ValueType, thresholds: Thresholds) -> float:
    return {
        pb.SOURCE_CLASS_REAL_MONEY_MARKET: thresholds.freshness_real_money_market_h_max,
        pb.SOURCE_CLASS_PLAY_MONEY_MARKET: thresholds.freshness_play_money_market_h_max,
        pb.SOURCE_CLASS_SENSOR: thresholds.freshness_sensor_h_max,
        pb.SOURCE_CLASS_MODEL: thresholds.freshness_model_h_max,
        pb.SOURCE_CLASS_NEWS: thresholds.freshness_news_h_max,
    }[source_class]


def seconds_between(earlier: Timestamp, later: Timestamp) -> float:
    return later.seconds - earlier.seconds + (later.nanos - earlier.nanos) / 1e9


def liquidity(case: Case, thresholds: Thresholds) -> Finding:
    if not case.observation.HasField("liquidity_usd"):
        return unknown("The market does not state its liquidity in US dollars.")
    usd = case.observation.liquidity_usd
    return judged(
        usd >= thresholds.liquidity_usd_min,
        usd / thresholds.liquidity_usd_full,
        f"{usd:,.12g} USD can be traded at once, minimum {thresholds.liquidity_usd_min:,g} USD, "
        f"full score from {thresholds.liquidity_usd_full:,g} USD.",
    )


def spread(case: Case, thresholds: Thresholds) -> Finding:
    quote = case.observation.quote
    found = spread_of(quote)
    if found is None:
        return unknown("The market shows no two-sided book.")
    return judged(
        found <= thresholds.spread_max,
        1 - found / thresholds.spread_max,
        f"Spread {found:g} between bid {quote.best_bid:g} and ask {quote.best_ask:g}, limit {thresholds.spread_max:g}.",
    )


def price(case: Case, thresholds: Thresholds) -> Finding:
    found = case.price
    if found is None and case.observation.source_class in MARKETS:
        return judged(False, 0.0, "NO_PRICE: there is neither a book within the spread limit nor a last trade.")
    if found is None:
        return judged(False, 0.0, "NO_PRICE: the source states no probability.")
    if found.basis == pb.PRICE_BASIS_MIDPOINT:
        return judged(True, 1.0, f"{found.probability:g} is the midpoint of best bid and best ask.")
    if found.basis == pb.PRICE_BASIS_LAST_TRADE:
        score = thresholds.price_last_trade_score
        return judged(True, score, f"{found.probability:g} is the last trade; there is no usable book.")
    return judged(True, 1.0, f"{found.probability:g} is stated by the source; it is an estimate, not a price.")


def anomaly(case: Case, thresholds: Thresholds) -> Finding:
    found = anomaly_risks(case, thresholds)
    total = rounded(sum(risk for _, risk in found), 4)
    limit = thresholds.anomaly_risk_limit
    reasons = "; ".join(f"{words} ({risk:g})" for words, risk in found) or "nothing unusual"
    return judged(total < limit, 1 - total, f"Risk {total:g}, objected to from {limit:g}: {reasons}.")


def anomaly_risks(case: Case, thresholds: Thresholds) -> list[tuple[str, float]]:
    """What is unusual, in words, and its risk. What cannot be told is not unusual."""
    observation, risks = case.observation, []
    if case.price is not None:
        probability = case.price.probability
        low, high = thresholds.anomaly_low_probability_min, thresholds.anomaly_high_probability_max
        if not low <= probability <= high:
            risks.append((f"price {probability:g} outside {low:g} to {high:g}", thresholds.anomaly_extreme_risk))
        jump = rounded(abs(probability - observation.previous_probability))
        if observation.HasField("previous_probability") and jump > thresholds.anomaly_jump_max:
            risks.append((f"jump of {jump:g} over {thresholds.anomaly_jump_max:g}", thresholds.anomaly_jump_risk))
    if observation.HasField("trader_count") and observation.HasField("volume_usd"):
        traders, usd = observation.trader_count, observation.volume_usd
        if traders < thresholds.anomaly_trader_count_min and usd > thresholds.anomaly_volume_usd_max:
            risks.append((f"{traders} traders for {usd:,.12g} USD", thresholds.anomaly_concentration_risk))
    return risks


def semantic_relevance(case: Case, thresholds: Thresholds) -> Finding:
    phrases = sorted({hit.phrase for hit in case.hits if hit.table == "topic" and TOPICS_BY_NAME[hit.label].relevance})
    categories = sorted({TOPICS_BY_NAME[label].relevance for label in case.labels("topic")} - {""})
    score = rounded(
        thresholds.semantic_relevance_category_score * len(categories)
        + thresholds.semantic_relevance_hit_score * len(phrases),
        4,
    )
    if case.blocked:
        blocked = sorted({f"{hit.phrase} ({hit.label})" for hit in case.blocked})
        return judged(False, 0.0, f"The question is about something else: {shortened(blocked)}.")
    return judged(
        score >= thresholds.semantic_relevance_score_min,
        score,
        f"Score {score:g}, minimum {thresholds.semantic_relevance_score_min:g}: categories {shortened(categories)}; "
        f"words {shortened(phrases)}.",
    )


def geographic_relevance(case: Case, thresholds: Thresholds) -> Finding:
    places = case.places
    if not places.is_known and not places.is_given:
        return unknown("The observation names no place that the gazetteer knows, and gives none.")
    km_max = thresholds.geographic_relevance_distance_km_max
    if not places.is_known:
        given = shortened([place.name or place.country or "a point" for place in case.observation.locations])
        return judged(False, 0.0, f"{given}: neither in the gazetteer nor within {km_max:g} km of a place in it.")
    near = [f"{place.name} at {place.distance_km:g} km" for place in places.nearest]
    named = shortened([*places.chokepoints, *places.ports, *places.regions])
    return judged(
        True,
        place_score(places, thresholds),
        f"Concerns {named}; points within {km_max:g} km: {shortened(near)}.",
    )


def place_score(places: Places, thresholds: Thresholds) -> float:
    """The best of: a chokepoint by name, a port by name, a region by name or country, closeness to a place."""
    km_max = thresholds.geographic_relevance_distance_km_max
    scores = [
        thresholds.geographic_relevance_near_score * (1 - near.distance_km / km_max / 2) for near in places.nearest
    ]
    if places.named.intersection(places.chokepoints):
        scores.append(thresholds.geographic_relevance_chokepoint_score)
    if places.named.intersection(places.ports):
        scores.append(thresholds.geographic_relevance_port_score)
    if places.named & REGION_NAMES:
        scores.append(thresholds.geographic_relevance_region_score)
    return max(scores)


def source_quality(case: Case, thresholds: Thresholds) -> Finding:
    observation = case.observation
    if not observation.HasField("source_quality"):
        return unknown("The source does not say how good it holds this report to be.")
    is_news = observation.source_class == pb.SOURCE_CLASS_NEWS
    minimum = thresholds.source_quality_news_min if is_news else thresholds.source_quality_sensor_min
    quality = observation.source_quality
    return judged(quality >= minimum, quality, f"Quality {quality:g}, minimum {minimum:g}.")


def class_name(source_class: pb.SourceClass.ValueType) -> str:
    """In words; a class that is not known here, of a newer peer, by its number."""
    return CLASS_NAMES.get(source_class) or f"number {source_class}"


def shortened(items: list[str] | tuple[str, ...], items_max: int = 8) -> str:
    """The first few, so that reasoning stays within its limit whatever the observation holds."""
    rest = f" and {len(items) - items_max} more" if len(items) > items_max else ""
    return ", ".join(item[:64] for item in items[:items_max]) + rest or "none"


RULES = (
    Rule(
        "freshness",
        "1.0.0",
        "The source last changed the fact no longer ago than its class's limit, seen from observed_at. "
        "Score: 1 - age / limit.",
        ALL_CLASSES,
        freshness,
    ),
    Rule(
        "liquidity",
        "1.0.0",
        "The market holds at least the minimum. Score: liquidity / full, at most 1.",
        MARKETS,
        liquidity,
    ),
    Rule(
        "spread",
        "1.0.0",
        "A two-sided book is no wider than the limit. Score: 1 - spread / limit.",
        MARKETS,
        spread,
    ),
    Rule(
        "price",
        "1.0.0",
        "There is a probability: for markets the midpoint of a book within the spread limit, else the last trade; for "
        "others the one the source states. None is ever assumed. Score: 1, for a last trade less.",
        ALL_CLASSES,
        price,
    ),
    Rule(
        "anomaly",
        "1.0.0",
        "The risks of an extreme price, of a jump from the previous probability, and of much volume by few traders "
        "add up to less than the limit. Score: 1 - risk.",
        MARKETS,
        anomaly,
    ),
    Rule(
        "semantic_relevance",
        "1.0.0",
        "The text speaks of what moves trade, in at least one of six categories (climate, conflict, infrastructure, "
        "labor, regulatory, sanctions), and neither title, answer nor labels name sports or entertainment. "
        "Score: so much per category and so much per different phrase, at most 1.",
        TEXT_CLASSES,
        semantic_relevance,
    ),
    Rule(
        "geographic_relevance",
        "1.0.0",
        "A place of the gazetteer is named, or a point lies no further from a chokepoint or port than the limit. "
        "Not applicable when no place is given. Score: the best of chokepoint named, port named, closeness, region.",
        ALL_CLASSES,
        geographic_relevance,
    ),
    Rule(
        "source_quality",
        "1.0.0",
        "The source's own grade of the report reaches its class's minimum. Score: the grade.",
        GRADED_CLASSES,
        source_quality,
    ),
)
