"""Why, in words: the same text for a signal and for a rejection."""

from collections.abc import Sequence

from omen.v1 import signal_pb2 as pb
from omen_server.domain.confidence import Confidence
from omen_server.domain.price import Price

OUTCOME_WORDS = {
    pb.RULE_OUTCOME_PASSED: "passed",
    pb.RULE_OUTCOME_OBJECTED: "objected",
    pb.RULE_OUTCOME_NOT_APPLICABLE: "not applicable",
}


def explain_verdicts(verdicts: Sequence[pb.ValidationScore]) -> str:
    """One line per rule: its name and version, its verdict, its score, its reasoning."""
    return "\n".join(explain_verdict(verdict) for verdict in verdicts)


def explain_verdict(verdict: pb.ValidationScore) -> str:
    words = OUTCOME_WORDS[verdict.outcome]
    score = "" if verdict.outcome == pb.RULE_OUTCOME_NOT_APPLICABLE else f", score {verdict.score:g}"
    return f"{verdict.rule_name} {verdict.rule_version}: {words}{score}. {verdict.reasoning}"


def explain_signal(source: str, price: Price, confidence: Confidence, verdicts: Sequence[pb.ValidationScore]) -> str:
    """What is said and how sure, then every verdict."""
    interval = price.interval
    within = f", range {interval.low:g} to {interval.high:g} ({interval.method})" if interval else ""
    return (
        f"Probability {price.probability:g} from {source}{within}. "
        f"Confidence {confidence.score:g} from {len(confidence.factors)} factors, "
        f"{confidence.completeness:.0%} of the evidence by weight.\n{explain_verdicts(verdicts)}"
    )
