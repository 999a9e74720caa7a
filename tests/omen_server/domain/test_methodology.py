"""What is published about the rules is what runs, and a changed ruleset has a new version."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf import json_format

import omen_server
from omen_server.domain import RULESET, RULESET_VERSION, methodology, process
from omen_server.domain.confidence import CONFIDENCE_RULE
from omen_server.domain.methodology import content_hash, describe, markdown
from omen_server.domain.rules import RULES
from omen_server.domain.thresholds import Thresholds
from tests.omen_server.domain.observations import demo_observations

RELEASED = Path(__file__).parent / "released"
DOCUMENT = Path(omen_server.__file__).parents[1] / "docs" / "methodology.md"


def behaviour() -> dict[str, str]:
    """Observation, with the time it was read at -> hash of what came of it."""
    outcomes = {}
    for observation in demo_observations():
        result = json_format.MessageToDict(process(observation))
        key = f"{observation.source_event_id} {observation.observed_at.ToJsonString()} {result['inputEventHash']}"
        outcomes[key] = hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()
    return outcomes


def test_a_changed_ruleset_has_a_new_version() -> None:
    """To release a version: raise RULESET_VERSION and add released/<version>.json with what this test compares."""
    released = json.loads((RELEASED / f"{RULESET_VERSION}.json").read_text("utf-8"))
    assert content_hash() == released["content_hash"], "rules, thresholds or tables changed: raise RULESET_VERSION"


def test_a_changed_outcome_has_a_new_version() -> None:
    released = json.loads((RELEASED / f"{RULESET_VERSION}.json").read_text("utf-8"))["behaviour"]
    now = behaviour()
    shared = released.keys() & now.keys()
    assert len(shared) >= 40, "too few observations are left to compare: release the demo file's outcomes again"
    changed = {key for key in shared if released[key] != now[key]}
    assert changed == set(), "the same observation has another outcome: raise RULESET_VERSION"


@pytest.mark.parametrize(
    "changed",
    [
        replace(RULESET, thresholds=Thresholds(spread_max=0.11)),
        replace(RULESET, rules=RULES[1:]),
        replace(RULESET, rules=tuple(reversed(RULES))),
        replace(RULESET, rules=(replace(RULES[0], version="1.0.1"), *RULES[1:])),
    ],
)
def test_the_content_hash_follows_the_ruleset(changed: object) -> None:
    assert isinstance(changed, type(RULESET))
    assert content_hash(changed) != content_hash()


@pytest.mark.parametrize("table", ["TOPICS", "TABLES", "CHOKEPOINTS", "PORTS", "REGIONS", "WEIGHTS", "RELIABILITY"])
def test_the_content_hash_follows_the_tables(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content_hash()
    entries = getattr(methodology, table)
    fewer = dict(list(entries.items())[1:]) if isinstance(entries, Mapping) else entries[1:]
    monkeypatch.setattr(methodology, table, fewer)
    assert content_hash() != before


def test_the_methodology_lists_the_rules_that_run_in_their_order() -> None:
    found = describe()
    assert [rule.name for rule in found.rules] == [*(rule.name for rule in RULES), CONFIDENCE_RULE]
    assert (found.ruleset_version, found.content_hash) == (RULESET_VERSION, content_hash())
    assert all(rule.description and rule.applies_to for rule in found.rules)
    assert {formula.name for formula in found.formulas} >= {"probability", "confidence_score", "completeness", "status"}


def test_the_document_is_what_the_code_writes() -> None:
    assert DOCUMENT.read_text("utf-8") == markdown(), "python -m omen_server.domain > docs/methodology.md"
