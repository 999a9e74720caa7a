"""The demo's observations: valid, each its own, with a known outcome."""

from collections import Counter
from difflib import SequenceMatcher
from itertools import combinations

from contract.validation import violations_of_observation
from omen.v1 import signal_pb2 as pb
from omen.v1.pipeline_service_pb2 import Rejection
from omen.v1.signal_event_pb2 import SignalEvent
from omen_server.domain import process
from omen_server.domain.confidence import CONFIDENCE_RULE
from omen_server.domain.rules import RULES
from tests.omen_server.domain.observations import DEMO_FILE, demo_observations

# Two titles cut from one template ("Will X close by May?", "Will Y close by June?") are above this.
SIMILARITY_MAX = 0.65

SIGNAL_COUNT = 38
REJECTION_COUNTS = {
    "freshness": 2,
    "liquidity": 2,
    "spread": 1,
    "price": 2,
    "anomaly": 2,
    "semantic_relevance": 4,
    "geographic_relevance": 2,
    "source_quality": 2,
    "confidence": 1,
}


def test_every_line_is_a_valid_observation() -> None:
    assert {each.source_event_id: violations_of_observation(each) for each in demo_observations()} == {
        each.source_event_id: [] for each in demo_observations()
    }
    assert not any(line != line.strip() or not line for line in DEMO_FILE.read_text("utf-8").splitlines())


def test_the_outcomes_are_these() -> None:
    results = [process(each) for each in demo_observations()]
    assert sum(isinstance(result, SignalEvent) for result in results) == SIGNAL_COUNT
    assert Counter(result.rule_name for result in results if isinstance(result, Rejection)) == REJECTION_COUNTS


def test_every_rule_rejects_something() -> None:
    assert list(REJECTION_COUNTS) == [*(rule.name for rule in RULES), CONFIDENCE_RULE]


def test_ids_are_unique() -> None:
    observations = demo_observations()
    events = [event for event in map(process, observations) if isinstance(event, SignalEvent)]
    assert len({each.source_event_id for each in observations}) == len(observations)
    assert len({event.signal_id for event in events}) == len(events)


def test_no_two_titles_share_a_template() -> None:
    titles = [each.title.lower() for each in demo_observations()]
    alike = [pair for pair in combinations(titles, 2) if SequenceMatcher(None, *pair).ratio() > SIMILARITY_MAX]
    assert alike == []


def test_the_similarity_check_sees_a_template() -> None:
    pair = ("will the suez canal close before may 2026?", "will the panama canal close before june 2026?")
    assert SequenceMatcher(None, *pair).ratio() > SIMILARITY_MAX


def test_every_class_of_source_is_there_and_none_poses_as_live() -> None:
    observations = demo_observations()
    assert {each.source_class for each in observations} == set(pb.SourceClass.values()) - {0}
    assert all(each.source.startswith("demo-") for each in observations)
    assert all(not each.url or ".demo.example/" in each.url for each in observations)
