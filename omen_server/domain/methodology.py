"""The rules, thresholds and formulas in words, read from the code that runs.

`python -m omen_server.domain > docs/methodology.md` writes the document; GetMethodology answers the same.
"""

import hashlib
import json
from collections.abc import Iterable

from omen.v1 import pipeline_service_pb2 as api
from omen.v1 import signal_pb2 as pb
from omen_server.domain.case import TABLES
from omen_server.domain.confidence import (
    CONFIDENCE_DESCRIPTION,
    CONFIDENCE_METHOD,
    CONFIDENCE_RULE,
    CONFIDENCE_RULE_VERSION,
    RELIABILITY,
    WEIGHTS,
)
from omen_server.domain.gazetteer import CHOKEPOINTS, PORTS
from omen_server.domain.regions import REGIONS
from omen_server.domain.rules import ALL_CLASSES, class_name
from omen_server.domain.ruleset import RULESET, Ruleset
from omen_server.domain.thresholds import thresholds_of
from omen_server.domain.topics import TOPICS

FORMULAS = {
    "probability": (
        "Markets: (best bid + best ask) / 2 where both exist and ask - bid is within the spread limit; else "
        "the last trade; else the observation is rejected. Other sources: what they state. Rounded to 6 "
        "decimals; probability_is_estimate is true whenever no market made it."
    ),
    "probability_interval": (
        "QUOTE: best bid to best ask. Otherwise the range the source states, with its method. It is never a "
        "confidence interval."
    ),
    "confidence_score": (
        "(sum of weight * score over the factors present / sum of their weights) * completeness. Since the "
        "weights of a class add up to 1 this is the sum of weight * score over the factors present. Rounded "
        "to 4 decimals."
    ),
    "completeness": (
        "Sum of the weights of the factors present. A factor is present when its rule applied; a rule whose "
        "input is missing did not."
    ),
    "source_reliability": "A constant per class of source.",
    "confidence_level": "HIGH from high_min, MEDIUM from medium_min, LOW below.",
    "status": "ACTIVE from active_min, MONITORING from monitoring_min, CANDIDATE below.",
    "classification": (
        "The first row of the topic table whose phrases occur in the title decides signal_type and category; "
        "if the title has none, the first found anywhere. Direction likewise. Domains, asset types and tags "
        "are those of all rows found. Phrases match whole words, without regard to case, accents and "
        "punctuation; the longest wins."
    ),
    "place": (
        "Named in whole words in title, answer, labels, description or a location's name; or the nearest "
        "chokepoint or port by great-circle distance (haversine, Earth radius 6,371.0088 km); regions also by "
        "country code."
    ),
}


def describe(ruleset: Ruleset = RULESET) -> api.GetMethodologyResponse:
    """What GetMethodology answers."""
    rules = [
        api.RuleDescription(
            name=rule.name,
            version=rule.version,
            description=rule.description,
            applies_to=rule.applies_to,
            thresholds=thresholds_of(rule.name, ruleset.thresholds),
        )
        for rule in ruleset.rules
    ]
    confidence = api.RuleDescription(
        name=CONFIDENCE_RULE,
        version=CONFIDENCE_RULE_VERSION,
        description=CONFIDENCE_DESCRIPTION,
        applies_to=ALL_CLASSES,
        thresholds=thresholds_of(CONFIDENCE_RULE, ruleset.thresholds),
    )
    return api.GetMethodologyResponse(
        ruleset_version=ruleset.version,
        content_hash=content_hash(ruleset),
        rules=[*rules, confidence],
        formulas=[api.FormulaDescription(name=name, description=text) for name, text in FORMULAS.items()],
    )


def content_hash(ruleset: Ruleset = RULESET) -> str:
    """ "sha256:" and 64 hex digits over rules, thresholds, weights and tables; the version itself is left out."""
    content = {
        "rules": [[rule.name, rule.version, rule.description, list(rule.applies_to)] for rule in ruleset.rules],
        "thresholds": repr(ruleset.thresholds),
        "confidence": [CONFIDENCE_RULE_VERSION, CONFIDENCE_METHOD],
        "formulas": FORMULAS,
        "weights": {str(source_class): dict(weights) for source_class, weights in WEIGHTS.items()},
        "reliability": {str(source_class): value for source_class, value in RELIABILITY.items()},
        "topics": TOPICS,
        "tables": {name: list(table.items()) for name, table in TABLES.items()},
        "places": [CHOKEPOINTS, PORTS, REGIONS],
    }
    return f"sha256:{hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()}"


def markdown(ruleset: Ruleset = RULESET) -> str:
    """docs/methodology.md."""
    found = describe(ruleset)
    lines = [
        "# Methodology",
        "",
        "Written from the code that runs by `python -m omen_server.domain > docs/methodology.md`; "
        "a test keeps it current.",
        "",
        f"Ruleset {found.ruleset_version}, content hash `{found.content_hash}`.",
        "",
        "An observation is put to every rule below, in this order. The first that objects rejects it; every verdict is "
        "kept. A rule that lacks its input, or does not speak about the class of source, is not applicable. "
        '"Now" is the time at which the source was read.',
    ]
    for rule in found.rules:
        lines += _rule_section(rule)
    lines += ["", "## Weights of the confidence score", "", *_weight_table()]
    lines += ["", "## Formulas", "", *(f"- **{formula.name}**: {formula.description}" for formula in found.formulas)]
    lines += ["", "## Topics, in order of precedence", "", *_topic_table()]
    lines += ["", "## Gazetteer", "", *_gazetteer_lists()]
    return "\n".join(lines) + "\n"


def _rule_section(rule: api.RuleDescription) -> list[str]:
    lines = ["", f"## Rule {rule.name} {rule.version}", "", rule.description, ""]
    lines += [f"Speaks about: {', '.join(class_name(source_class) for source_class in rule.applies_to)}."]
    if not rule.thresholds:
        return lines
    rows = ((threshold.name, f"{threshold.value:g}", threshold.unit) for threshold in rule.thresholds)
    return [*lines, "", *_table(("Threshold", "Value", "Unit"), rows)]


def _weight_table() -> Iterable[str]:
    names = sorted({name for weights in WEIGHTS.values() for name in weights})
    rows = (
        (class_name(source_class), *(f"{weights[name]:g}" if name in weights else "" for name in names))
        for source_class, weights in WEIGHTS.items()
    )
    yield from _table(("Class", *names), rows)
    stated = ", ".join(f"{class_name(source_class)} {value:g}" for source_class, value in RELIABILITY.items())
    yield from ("", f"source_reliability: {stated}.")


def _topic_table() -> Iterable[str]:
    rows = (
        (
            topic.name,
            topic.relevance or "none",
            pb.SignalType.Name(topic.signal_type).removeprefix("SIGNAL_TYPE_"),
            pb.SignalCategory.Name(topic.category).removeprefix("SIGNAL_CATEGORY_"),
            ", ".join(topic.phrases),
        )
        for topic in TOPICS
    )
    return _table(("Topic", "Relevance", "Signal type", "Category", "Phrases"), rows)


def _gazetteer_lists() -> Iterable[str]:
    for title, entries in (("Chokepoints", CHOKEPOINTS), ("Ports", PORTS), ("Regions", REGIONS)):
        yield f"- **{title}** ({len(entries)}): {', '.join(entry.name for entry in entries)}."


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterable[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
