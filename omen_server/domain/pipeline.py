"""Observation in, signal or rejection out: the one way, whichever door the observation came through.

A pure function of the observation and the ruleset. "Now" is when the source was read; nothing asks a clock.
"""

from contract.identity import canonical_observation, identity, input_event_hash
from contract.limits import EXPLANATION_CHARS_MAX, ID_CHARS_MAX
from contract.versions import SCHEMA_VERSION
from omen.v1 import signal_pb2 as pb
from omen.v1.observation_pb2 import Observation
from omen.v1.pipeline_service_pb2 import Rejection
from omen.v1.signal_event_pb2 import SignalEvent
from omen_server.domain.case import Case, case_of
from omen_server.domain.classification import classify
from omen_server.domain.confidence import CONFIDENCE_METHOD, level_of, status_of
from omen_server.domain.evidence import evidence_of, geographic_of, temporal_of
from omen_server.domain.explanation import explain_signal
from omen_server.domain.price import Price
from omen_server.domain.ruleset import RULESET, Judgement, RuleFailed, Ruleset, judge
from omen_server.domain.thresholds import Thresholds


def process(observation: Observation, ruleset: Ruleset = RULESET) -> SignalEvent | Rejection:
    """Judges an observation that passed `contract.validation.check_observation`.

    The event lacks emitted_at and traceparent, which are not the domain's to know. Raises RuleFailed.
    """
    case = case_of(observation, ruleset.thresholds)
    judgement = judge(case, ruleset)
    canonical = canonical_observation(observation)
    event_hash = input_event_hash(canonical)
    if (objection := judgement.objection) is not None:
        return Rejection(
            source_event_id=observation.source_event_id,
            rule_name=objection.rule_name,
            reasoning=objection.reasoning,
            verdicts=judgement.verdicts,
            input_event_hash=event_hash,
            ruleset_version=ruleset.version,
        )
    ids = identity(observation.source_event_id, event_hash, ruleset.version)
    return SignalEvent(
        schema_version=SCHEMA_VERSION,
        signal_id=ids.signal_id,
        deterministic_trace_id=ids.trace_id,
        input_event_hash=event_hash,
        source=observation.source,
        source_event_id=observation.source_event_id,
        ruleset_version=ruleset.version,
        observed_at=observation.observed_at,
        signal=signal_of(case, judgement, ruleset.thresholds),
        canonical_observation=canonical,
    )


def signal_of(case: Case, judgement: Judgement, thresholds: Thresholds) -> pb.Signal:
    """The signal of a case to which no rule objects. Raises RuleFailed if it has no price, which one should have."""
    observation, confidence = case.observation, judgement.confidence
    if (price := case.price) is None:
        raise RuleFailed("price")
    classification = classify(case)
    source = probability_source(observation.source, price)
    explanation = explain_signal(source, price, confidence, judgement.verdicts)
    return pb.Signal(
        title=observation.title,
        description=observation.description,
        signal_type=classification.signal_type,
        status=status_of(confidence.score, thresholds),
        category=classification.category,
        probability=price.probability,
        probability_source=source,
        probability_is_estimate=price.basis == pb.PRICE_BASIS_STATED,
        raw_probability=price.raw,
        price_basis=price.basis,
        probability_interval=price.interval,
        confidence_score=confidence.score,
        confidence_level=level_of(confidence.score, thresholds),
        confidence_method=CONFIDENCE_METHOD,
        confidence_factors=[pb.ConfidenceFactor(name=n, value=v, weight=w) for n, v, w in confidence.factors],
        tags=classification.tags,
        keywords_matched=classification.keywords_matched,
        geographic=geographic_of(observation, case.places),
        temporal=temporal_of(observation),
        evidence=evidence_of(observation, price),
        validation_scores=judgement.verdicts,
        routing_hints=pb.RoutingHints(
            domains=classification.domains,
            direction=classification.direction,
            asset_types=classification.asset_types,
            keywords=classification.routing_keywords,
        ),
        source_url=observation.url,
        source_class=observation.source_class,
        resolution_criteria=observation.resolution_criteria,
        explanation=explanation[:EXPLANATION_CHARS_MAX],
        generated_at=observation.observed_at,
    )


def probability_source(source: str, price: Price) -> str:
    """The source and its basis; a name at its own limit gives way."""
    basis = f":{price.basis_name}"
    return source[: ID_CHARS_MAX - len(basis)] + basis
