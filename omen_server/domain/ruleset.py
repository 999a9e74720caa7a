"""A ruleset: rules, their thresholds and the version that stands for both in every signal's identity."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from omen.v1 import signal_pb2 as pb
from omen_server.domain.case import Case
from omen_server.domain.confidence import (
    CONFIDENCE_RULE,
    CONFIDENCE_RULE_VERSION,
    Confidence,
    confidence_of,
    finding_of,
)
from omen_server.domain.rules import RULES, Finding, Rule, class_name, unknown
from omen_server.domain.thresholds import Thresholds

# One value for every door. Raise it with any change of rules, thresholds, weights or tables: a test holds it to them.
RULESET_VERSION = "1.0.0"


class RuleFailed(Exception):
    """A rule raised: the observation fails with its name, and never passes in spite of it."""

    def __init__(self, rule_name: str) -> None:
        super().__init__(f"rule {rule_name} failed")
        self.rule_name = rule_name


@dataclass(frozen=True, slots=True)
class Ruleset:
    """What an observation is judged by."""

    version: str = RULESET_VERSION
    thresholds: Thresholds = field(default_factory=Thresholds)
    rules: tuple[Rule, ...] = RULES


RULESET = Ruleset()


@dataclass(frozen=True, slots=True)
class Judgement:
    """What every rule said, in the order of the ruleset and confidence last."""

    verdicts: Sequence[pb.ValidationScore]
    confidence: Confidence

    @property
    def objection(self) -> pb.ValidationScore | None:
        """The first verdict that objects, if any does."""
        return next((verdict for verdict in self.verdicts if verdict.outcome == pb.RULE_OUTCOME_OBJECTED), None)


def judge(case: Case, ruleset: Ruleset) -> Judgement:
    """Asks every rule, also after one has objected. Raises RuleFailed."""
    findings = [(rule.name, rule.version, _ask(rule, case, ruleset.thresholds)) for rule in ruleset.rules]
    scores = {name: found.score for name, _, found in findings if found.outcome != pb.RULE_OUTCOME_NOT_APPLICABLE}
    confidence = confidence_of(case.observation.source_class, scores)
    findings.append((CONFIDENCE_RULE, CONFIDENCE_RULE_VERSION, finding_of(confidence, ruleset.thresholds)))
    verdicts = [
        pb.ValidationScore(
            rule_name=name,
            rule_version=version,
            outcome=found.outcome,
            score=found.score,
            reasoning=found.reasoning,
        )
        for name, version, found in findings
    ]
    return Judgement(verdicts, confidence)


def _ask(rule: Rule, case: Case, thresholds: Thresholds) -> Finding:
    if case.observation.source_class not in rule.applies_to:
        return unknown(f"Does not speak about this class of source: {class_name(case.observation.source_class)}.")
    try:
        return rule.evaluate(case, thresholds)
    except Exception as error:
        raise RuleFailed(rule.name) from error
