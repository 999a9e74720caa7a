"""The rules of an Observation and its parts: one table per message, in the order of its fields."""

from contract.checks import (
    MessageRules,
    Presence,
    Rule,
    ascii_text,
    at_least_zero,
    chosen,
    finite,
    instant,
    nested,
    optional,
    pattern,
    positive_span,
    repeated,
    text,
)
from contract.errors import Violation
from contract.identity import canonical_observation
from contract.limits import (
    CANONICAL_OBSERVATION_BYTES_MAX,
    DESCRIPTION_CHARS_MAX,
    ID_CHARS_MAX,
    KIB,
    PLACE_CHARS_MAX,
    RESOLUTION_CRITERIA_CHARS_MAX,
    TITLE_CHARS_MAX,
)
from contract.signal_rules import INTERVAL, an_id, label, latitude, longitude, name, share, url
from omen.v1.observation_pb2 import Location, Observation, Quote


def bid_is_not_above_ask(quote: Quote) -> list[Violation]:
    crossed = quote.HasField("best_bid") and quote.HasField("best_ask") and quote.best_bid > quote.best_ask
    return [Violation("best_ask", "must not be below best_bid")] if crossed else []


def both_or_neither_degree(location: Location) -> list[Violation]:
    if location.HasField("latitude") == location.HasField("longitude"):
        return []
    return [Violation("longitude", "must be set together with latitude or not at all")]


def window_of_previous(observation: Observation) -> list[Violation]:
    if observation.HasField("previous_probability") and not observation.HasField("previous_probability_window"):
        return [Violation("previous_probability_window", "required with previous_probability")]
    return []


def metric_names_are_unique(observation: Observation) -> list[Violation]:
    names = [metric.name for metric in observation.metrics]
    return [] if len(set(names)) == len(names) else [Violation("metrics", "must have unique names")]


def canonical_form_fits(observation: Observation) -> list[Violation]:
    # A byte becomes at most some seven of JSON, names and numbers 2 KiB: short ones need not be written to be measured.
    if observation.ByteSize() * 7 + 2 * KIB <= CANONICAL_OBSERVATION_BYTES_MAX:
        return []
    if len(canonical_observation(observation)) <= CANONICAL_OBSERVATION_BYTES_MAX:
        return []
    return [Violation("", f"its canonical form must be at most {CANONICAL_OBSERVATION_BYTES_MAX} bytes")]


QUOTE = MessageRules(
    Rule("best_bid", share, Presence.OPTIONAL),
    Rule("best_ask", share, Presence.OPTIONAL),
    Rule("last_trade", share, Presence.OPTIONAL),
    relations=(bid_is_not_above_ask,),
)
LOCATION = MessageRules(
    Rule("latitude", latitude, Presence.OPTIONAL),
    Rule("longitude", longitude, Presence.OPTIONAL),
    Rule("name", text(PLACE_CHARS_MAX)),
    Rule("country", optional(pattern("[A-Z]{2}", "must be an ISO 3166-1 alpha-2 code in upper case"))),
    relations=(both_or_neither_degree,),
)
METRIC = MessageRules(
    Rule("name", name),
    Rule("value", finite),
    Rule("unit", label),
)
OBSERVATION = MessageRules(
    Rule("source", an_id),
    Rule("source_class", chosen),
    Rule("source_event_id", an_id),
    Rule("source_updated_at", instant, Presence.OPTIONAL),
    Rule("source_revision", ascii_text(ID_CHARS_MAX)),
    Rule("title", text(TITLE_CHARS_MAX, least=1)),
    Rule("description", text(DESCRIPTION_CHARS_MAX)),
    Rule("outcome_label", text(PLACE_CHARS_MAX)),
    Rule("quote", nested(QUOTE), Presence.OPTIONAL),
    Rule("probability", share, Presence.OPTIONAL),
    Rule("previous_probability", share, Presence.OPTIONAL),
    Rule("previous_probability_window", positive_span, Presence.OPTIONAL),
    Rule("liquidity_usd", at_least_zero, Presence.OPTIONAL),
    Rule("volume_usd", at_least_zero, Presence.OPTIONAL),
    Rule("trader_count", at_least_zero, Presence.OPTIONAL),
    Rule("keywords", repeated(label)),
    Rule("locations", repeated(nested(LOCATION))),
    Rule("url", url),
    Rule("created_at", instant, Presence.OPTIONAL),
    Rule("resolution_date", instant, Presence.OPTIONAL),
    Rule("resolution_criteria", text(RESOLUTION_CRITERIA_CHARS_MAX)),
    Rule("observed_at", instant, Presence.REQUIRED),
    Rule("metrics", repeated(nested(METRIC))),
    Rule("probability_interval", nested(INTERVAL), Presence.OPTIONAL),
    Rule("source_quality", share, Presence.OPTIONAL),
    relations=(window_of_previous, metric_names_are_unique, canonical_form_fits),
)
