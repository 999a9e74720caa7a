"""Any valid observation becomes a valid event or a rejection, always the same one."""

import hashlib
import re
import subprocess
import sys
from datetime import timedelta

from hypothesis import HealthCheck, given, settings

from contract.identity import identity, input_event_hash
from contract.limits import REASONING_CHARS_MAX
from contract.validation import check_event, check_observation
from omen.v1 import signal_pb2 as pb
from omen.v1.observation_pb2 import Observation
from omen.v1.pipeline_service_pb2 import Rejection
from omen.v1.signal_event_pb2 import SignalEvent
from omen_server.domain import RULESET_VERSION, explain_verdicts, process
from omen_server.domain.topics import TOPICS
from tests.omen_server.domain.observations import MARKET, READ_AT, demo_observations, made, observations

FORBIDDEN = re.compile(
    r"\b(severity|urgency|priority|is_actionable|actionable|delay|delays|risk_exposure|cost|costs|impact|impacts|"
    r"recommendation|recommend|advice)\b",
    re.IGNORECASE,
)


def completed(event: SignalEvent) -> SignalEvent:
    """As the emission completes it."""
    event = SignalEvent.FromString(event.SerializeToString())
    event.emitted_at.FromDatetime(READ_AT)
    return event


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(observations())
def test_any_valid_observation_becomes_a_valid_event_or_a_rejection(observation: Observation) -> None:
    result = process(observation)
    if isinstance(result, SignalEvent):
        check_event(completed(result), now=READ_AT)
        verdicts = result.signal.validation_scores
    else:
        assert any(each.rule_name == result.rule_name for each in result.verdicts)
        verdicts = result.verdicts
    assert all(0 < len(each.reasoning) <= REASONING_CHARS_MAX for each in verdicts)
    assert process(observation).SerializeToString() == result.SerializeToString()


def largest_observation() -> Observation:
    """Every text and every list at its limit, as far as the canonical form's own limit allows."""
    phrases = " ".join(phrase for topic in TOPICS for phrase in topic.phrases)
    return made(
        MARKET,
        source="s" * 128,
        source_event_id="e" * 128,
        title=("strike " * 80)[:500],
        description=phrases[:5000].ljust(5000, "é"),
        outcome_label="o" * 128,
        keywords=[f"{number:02}".ljust(64, "İ") for number in range(64)],
        locations=[
            {"latitude": 1.0 * number, "longitude": -1.5 * number, "name": f"{number}".ljust(128, "n"), "country": "EG"}
            for number in range(64)
        ],
        url="u" * 2048,
        resolution_criteria="r" * 5000,
        metrics=[{"name": f"{n}".ljust(64, "m"), "value": -1.7e308, "unit": "ü" * 64} for n in range(64)],
        liquidity_usd=1.7e308,
        volume_usd=1.7e308,
        trader_count=2**63 - 1,
    )


def test_an_observation_at_its_limits_becomes_an_event_within_its_own() -> None:
    observation = largest_observation()
    check_observation(observation)
    result = process(observation)
    assert isinstance(result, SignalEvent)
    check_event(completed(result), now=READ_AT)
    assert len(result.signal.evidence) == 64
    assert len(result.signal.tags) == 64
    assert len(result.signal.probability_source) == 128


def test_the_event_has_the_identity_of_what_was_observed() -> None:
    event = process(made(MARKET))
    assert isinstance(event, SignalEvent)
    ids = identity("test:1", input_event_hash(event.canonical_observation), RULESET_VERSION)
    assert (event.signal_id, event.deterministic_trace_id) == (ids.signal_id, ids.trace_id)
    assert not event.HasField("emitted_at")
    assert not event.traceparent


def test_reading_the_same_fact_later_gives_the_same_ids() -> None:
    first = process(made(MARKET))
    later = process(made(MARKET, observed_at=READ_AT + timedelta(hours=5)))
    assert isinstance(first, SignalEvent)
    assert isinstance(later, SignalEvent)
    assert first.signal_id == later.signal_id
    assert later.signal.generated_at == later.observed_at


def test_the_horizon_runs_from_reading_to_resolution_and_ends_at_zero() -> None:
    ahead = process(made(MARKET, resolution_date=READ_AT + timedelta(days=2, microseconds=1)))
    past = process(made(MARKET, resolution_date=READ_AT - timedelta(days=2)))
    assert isinstance(ahead, SignalEvent)
    assert isinstance(past, SignalEvent)
    assert ahead.signal.temporal.event_horizon.ToTimedelta() == timedelta(days=2, microseconds=1)
    assert past.signal.temporal.event_horizon.ToTimedelta() == timedelta()


def test_the_explanation_holds_the_same_words_as_the_verdicts() -> None:
    signal = process(made(MARKET))
    rejection = process(made(MARKET, liquidity_usd=1.0))
    assert isinstance(signal, SignalEvent)
    assert isinstance(rejection, Rejection)
    assert signal.signal.explanation.endswith(explain_verdicts(signal.signal.validation_scores))
    assert "freshness 1.0.0: passed, score 1. Last changed 0.00 h" in explain_verdicts(rejection.verdicts)
    assert rejection.reasoning in explain_verdicts(rejection.verdicts)


def test_nothing_that_is_said_speaks_of_consequences_or_counsel() -> None:
    results = [process(observation) for observation in demo_observations()]
    said = [str(result) for result in results]
    assert [match[0] for text in said for match in FORBIDDEN.finditer(text)] == []
    assert not any(FORBIDDEN.search(phrase) for topic in TOPICS for phrase in (topic.name, *topic.domains))


def test_collections_are_sorted_and_unique() -> None:
    for event in map(process, demo_observations()):
        if not isinstance(event, SignalEvent):
            continue
        signal, hints = event.signal, event.signal.routing_hints
        for labels in (
            signal.tags,
            signal.keywords_matched,
            signal.geographic.regions,
            signal.geographic.chokepoints,
            signal.geographic.ports,
            hints.domains,
            hints.asset_types,
            hints.keywords,
            [factor.name for factor in signal.confidence_factors],
        ):
            assert list(labels) == sorted(set(labels))


DIGEST_OF_ALL = """
import hashlib
from tests.omen_server.domain.observations import demo_observations
from omen_server.domain import process
print(hashlib.sha256(b"".join(process(each).SerializeToString() for each in demo_observations())).hexdigest())
"""


def test_the_bytes_do_not_depend_on_the_hash_seed() -> None:
    here = hashlib.sha256(b"".join(process(each).SerializeToString() for each in demo_observations())).hexdigest()
    for seed in ("0", "1", "31337"):
        run = subprocess.run(
            [sys.executable, "-c", DIGEST_OF_ALL],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(path for path in sys.path if path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.strip() == here, f"PYTHONHASHSEED={seed}"


def test_evidence_gives_the_page_once_and_the_metrics_with_their_units() -> None:
    metrics = [{"name": "daily_transits", "value": 41.0, "unit": "ships/day"}, {"name": "share", "value": 0.5}]
    event = process(made(MARKET, url="https://example.test/1", metrics=metrics))
    assert isinstance(event, SignalEvent)
    assert [(each.value, each.url) for each in event.signal.evidence] == [
        ("best bid 0.4, best ask 0.44, last trade 0.41", "https://example.test/1"),
        ("liquidity 20,000 USD, volume 50,000 USD, 200 traders", ""),
        ("daily_transits = 41 ships/day", ""),
        ("share = 0.5", ""),
    ]
    assert {each.source_type for each in event.signal.evidence} == {pb.SOURCE_CLASS_REAL_MONEY_MARKET}


def test_a_region_is_a_point_only_when_nothing_closer_is_known() -> None:
    region = process(made(MARKET, title="Tariffs on Brazil"))
    port = process(made(MARKET, title="Tariffs on Brazil, strike at Santos"))
    nowhere = process(made(MARKET, title="Tariffs"))
    assert isinstance(region, SignalEvent)
    assert isinstance(port, SignalEvent)
    assert isinstance(nowhere, SignalEvent)
    assert [(each.latitude, each.longitude) for each in region.signal.geographic.coordinates] == [(-20.0, -60.0)]
    assert [(each.latitude, each.longitude) for each in port.signal.geographic.coordinates] == [(-23.96, -46.3)]
    assert not nowhere.signal.HasField("geographic")
