"""The rules of a Signal and its parts: one table per message, in the order of its fields."""

from contract.checks import (
    MessageRules,
    Presence,
    Rule,
    anything,
    ascending,
    ascii_text,
    between,
    chosen,
    identifier,
    instant,
    labels,
    nested,
    placed,
    repeated,
    span,
    text,
)
from contract.errors import Violation
from contract.limits import (
    DESCRIPTION_CHARS_MAX,
    EXPLANATION_CHARS_MAX,
    ID_CHARS_MAX,
    LABEL_CHARS_MAX,
    LATITUDE_MAX,
    LONGITUDE_MAX,
    NAME_CHARS_MAX,
    REASONING_CHARS_MAX,
    RESOLUTION_CRITERIA_CHARS_MAX,
    TITLE_CHARS_MAX,
    URL_CHARS_MAX,
    VALUE_CHARS_MAX,
)
from omen.v1.signal_pb2 import GeographicContext, ProbabilityInterval, Signal

share = between(0, 1)
name = ascii_text(NAME_CHARS_MAX, least=1)
an_id = identifier(ID_CHARS_MAX)
source_name = ascii_text(ID_CHARS_MAX, least=1)
label = text(LABEL_CHARS_MAX)
url = text(URL_CHARS_MAX)
latitude = between(-LATITUDE_MAX, LATITUDE_MAX)
longitude = between(-LONGITUDE_MAX, LONGITUDE_MAX)


def low_is_not_above_high(interval: ProbabilityInterval) -> list[Violation]:
    return [] if interval.low <= interval.high else [Violation("low", "must not be above high")]


def factors_are_in_order(signal: Signal) -> list[Violation]:
    if len(signal.confidence_factors) < 2:
        return []
    return placed("confidence_factors", ascending([factor.name for factor in signal.confidence_factors]) or [])


def points_are_in_order(geographic: GeographicContext) -> list[Violation]:
    if len(geographic.coordinates) < 2:
        return []
    points = [(point.latitude, point.longitude) for point in geographic.coordinates]
    return placed("coordinates", ascending(points) or [])


INTERVAL = MessageRules(
    Rule("low", share),
    Rule("high", share),
    Rule("method", name),
    relations=(low_is_not_above_high,),
)
CONFIDENCE_FACTOR = MessageRules(Rule("name", name), Rule("value", share), Rule("weight", share))
COORDINATES = MessageRules(Rule("latitude", latitude), Rule("longitude", longitude))
GEOGRAPHIC = MessageRules(
    Rule("regions", labels(LABEL_CHARS_MAX)),
    Rule("chokepoints", labels(LABEL_CHARS_MAX)),
    Rule("ports", labels(LABEL_CHARS_MAX)),
    Rule("coordinates", repeated(nested(COORDINATES))),
    relations=(points_are_in_order,),
)
TEMPORAL = MessageRules(
    Rule("event_horizon", span, Presence.OPTIONAL), Rule("resolution_date", instant, Presence.OPTIONAL)
)
EVIDENCE = MessageRules(
    Rule("source", source_name),
    Rule("source_type", chosen),
    Rule("value", text(VALUE_CHARS_MAX, least=1)),
    Rule("url", url),
    Rule("observed_at", instant, Presence.REQUIRED),
)
VALIDATION_SCORE = MessageRules(
    Rule("rule_name", name),
    Rule("rule_version", name),
    Rule("outcome", chosen),
    Rule("score", share),
    Rule("reasoning", text(REASONING_CHARS_MAX, least=1)),
)
ROUTING_HINTS = MessageRules(
    Rule("domains", labels(LABEL_CHARS_MAX)),
    Rule("direction", anything),
    Rule("asset_types", labels(LABEL_CHARS_MAX)),
    Rule("keywords", labels(LABEL_CHARS_MAX)),
)
SIGNAL = MessageRules(
    Rule("title", text(TITLE_CHARS_MAX, least=1)),
    Rule("description", text(DESCRIPTION_CHARS_MAX)),
    Rule("signal_type", chosen),
    Rule("status", chosen),
    Rule("category", chosen),
    Rule("probability", share),
    Rule("probability_source", source_name),
    Rule("probability_is_estimate", anything),
    Rule("raw_probability", share, Presence.OPTIONAL),
    Rule("price_basis", chosen),
    Rule("probability_interval", nested(INTERVAL), Presence.OPTIONAL),
    Rule("confidence_score", share),
    Rule("confidence_level", chosen),
    Rule("confidence_method", source_name),
    Rule("confidence_factors", repeated(nested(CONFIDENCE_FACTOR))),
    Rule("tags", labels(LABEL_CHARS_MAX)),
    Rule("keywords_matched", labels(LABEL_CHARS_MAX)),
    Rule("geographic", nested(GEOGRAPHIC), Presence.OPTIONAL),
    Rule("temporal", nested(TEMPORAL), Presence.OPTIONAL),
    Rule("evidence", repeated(nested(EVIDENCE))),
    Rule("validation_scores", repeated(nested(VALIDATION_SCORE))),
    Rule("routing_hints", nested(ROUTING_HINTS), Presence.OPTIONAL),
    Rule("source_url", url),
    Rule("source_class", chosen),
    Rule("resolution_criteria", text(RESOLUTION_CRITERIA_CHARS_MAX)),
    Rule("explanation", text(EXPLANATION_CHARS_MAX)),
    Rule("generated_at", instant, Presence.REQUIRED),
    relations=(factors_are_in_order,),
)
