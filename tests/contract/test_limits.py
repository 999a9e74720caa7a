"""Every field of an event, an observation and a position at its last good and its first bad value."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor

from contract.validation import violations_of_event, violations_of_observation, violations_of_position
from omen.v1.ledger_record_pb2 import LedgerPosition
from omen.v1.observation_pb2 import Location, Metric, Observation
from omen.v1.signal_event_pb2 import SignalEvent
from omen.v1.signal_pb2 import ConfidenceFactor, Coordinates
from tests.contract import edges
from tests.contract.edges import CHOSEN, SHARE, TIME, Edge, put
from tests.contract.samples import full_event, full_evidence, full_observation, full_position, full_verdict

NAME, SOURCE, LABEL, URL = edges.ascii_text(64, 1), edges.ascii_text(128, 1), edges.text(64), edges.text(2048)
ID, LABELS = edges.identifier(128), edges.labels(64)
LATITUDE, LONGITUDE = edges.between(-90.0, 90.0), edges.between(-180.0, 180.0)
HEX = "0123456789abcdef"

SIGNAL: dict[str, Edge] = {
    "title": edges.text(500, 1),
    "description": edges.text(5000),
    "signal_type": CHOSEN,
    "status": CHOSEN,
    "category": CHOSEN,
    "probability": SHARE,
    "probability_source": SOURCE,
    "raw_probability": SHARE,
    "price_basis": CHOSEN,
    "probability_interval.low": Edge([0.0, 0.38], [-0.1, 0.39]),
    "probability_interval.high": Edge([0.36, 1.0], [1.1]),
    "probability_interval.method": NAME,
    "confidence_score": SHARE,
    "confidence_level": CHOSEN,
    "confidence_method": SOURCE,
    "confidence_factors": Edge(
        [[], [ConfidenceFactor(name=f"{one:02}") for one in range(64)]],
        [
            [ConfidenceFactor(name=f"{one:02}") for one in range(65)],
            [ConfidenceFactor(name="b"), ConfidenceFactor(name="a")],
            [ConfidenceFactor(name="a"), ConfidenceFactor(name="a")],
        ],
    ),
    "confidence_factors[0].name": NAME,
    "confidence_factors[0].value": SHARE,
    "confidence_factors[0].weight": SHARE,
    "tags": LABELS,
    "tags[0]": LABEL,
    "keywords_matched": LABELS,
    "keywords_matched[0]": LABEL,
    "geographic.regions": LABELS,
    "geographic.regions[0]": LABEL,
    "geographic.chokepoints": LABELS,
    "geographic.chokepoints[0]": LABEL,
    "geographic.ports": LABELS,
    "geographic.ports[0]": LABEL,
    "geographic.coordinates": Edge(
        [[], [Coordinates(latitude=one) for one in range(64)]],
        [
            [Coordinates(latitude=one) for one in range(65)],
            [Coordinates(longitude=1), Coordinates(longitude=0)],
            [Coordinates(), Coordinates()],
        ],
    ),
    "geographic.coordinates[0].latitude": LATITUDE,
    "geographic.coordinates[0].longitude": LONGITUDE,
    "temporal.event_horizon": edges.SPAN,
    "temporal.resolution_date": TIME,
    "evidence": edges.count(full_evidence()),
    "evidence[0].source": SOURCE,
    "evidence[0].source_type": CHOSEN,
    "evidence[0].value": edges.text(500, 1),
    "evidence[0].url": URL,
    "evidence[0].observed_at": TIME,
    "validation_scores": edges.count(full_verdict()),
    "validation_scores[0].rule_name": NAME,
    "validation_scores[0].rule_version": NAME,
    "validation_scores[0].outcome": CHOSEN,
    "validation_scores[0].score": SHARE,
    "validation_scores[0].reasoning": edges.text(1000, 1),
    "routing_hints.domains": LABELS,
    "routing_hints.domains[0]": LABEL,
    "routing_hints.direction": edges.OPEN_CHOICE,
    "routing_hints.asset_types": LABELS,
    "routing_hints.asset_types[0]": LABEL,
    "routing_hints.keywords": LABELS,
    "routing_hints.keywords[0]": LABEL,
    "source_url": URL,
    "source_class": CHOSEN,
    "resolution_criteria": edges.text(5000),
    "explanation": edges.text(20_000),
    "generated_at": TIME,
}
EVENT: dict[str, Edge] = {
    "schema_version": Edge(["1.0.0", "1.99.123456"], ["", "1", "1.0", "0.9.0", "1.0.0 ", "1.0.x", "\uff11.0.0"]),
    "signal_id": Edge(
        ["OMEN-0123456789AB", f"OMEN-{HEX.upper() * 4}"],
        [
            "",
            "OMEN-0123456789A",
            f"OMEN-{HEX.upper() * 4}0",
            "OMEN-0123456789ab",
            "0123456789AB",
            "OMEN-0123456789AB\n",
        ],
    ),
    "deterministic_trace_id": Edge([HEX], ["", HEX[:15], HEX + "0", HEX.upper()]),
    "input_event_hash": Edge(
        [f"sha256:{HEX * 4}"],
        ["", HEX * 4, f"sha256:{HEX * 4}0", f"sha256:{(HEX * 4)[1:]}", f"sha256:{HEX.upper() * 4}", f"sha1:{HEX * 4}"],
    ),
    "source": ID,
    "source_event_id": ID,
    "ruleset_version": ID,
    "observed_at": TIME,
    "emitted_at": TIME,
    "canonical_observation": Edge([b"", b"x" * 65_536], [b"x" * 65_537]),
    "traceparent": edges.ascii_text(128),
    **{f"signal.{path}": edge for path, edge in SIGNAL.items()},
}
OBSERVATION: dict[str, Edge] = {
    "source": ID,
    "source_class": CHOSEN,
    "source_event_id": ID,
    "source_updated_at": TIME,
    "source_revision": edges.ascii_text(128),
    "title": edges.text(500, 1),
    "description": edges.text(5000),
    "outcome_label": edges.text(128),
    "quote.best_bid": Edge([0.0, 0.38], [-0.1, math.nan]),
    "quote.best_ask": Edge([0.36, 1.0], [1.1, math.nan, 0.35]),
    "quote.last_trade": SHARE,
    "probability": SHARE,
    "previous_probability": SHARE,
    "previous_probability_window": edges.POSITIVE_SPAN,
    "liquidity_usd": edges.NOT_NEGATIVE,
    "volume_usd": edges.NOT_NEGATIVE,
    "trader_count": Edge([0, 2**63 - 1], [-1]),
    "keywords": Edge([[], ["b", "a", "a"], ["k"] * 64], [["k"] * 65]),
    "keywords[0]": LABEL,
    "locations": edges.count(Location(name="Suez")),
    "locations[0].latitude": LATITUDE,
    "locations[0].longitude": LONGITUDE,
    "locations[0].name": edges.text(128),
    "locations[0].country": Edge(["", "EG"], ["E", "EGY", "eg", "É2"]),
    "url": URL,
    "created_at": TIME,
    "resolution_date": TIME,
    "resolution_criteria": edges.text(5000),
    "observed_at": TIME,
    "metrics": Edge(
        [[], [Metric(name=f"m{one}") for one in range(64)]],
        [[Metric(name=f"m{one}") for one in range(65)], [Metric(name="m"), Metric(name="m", value=1)]],
    ),
    "metrics[0].name": NAME,
    "metrics[0].value": edges.FINITE,
    "metrics[0].unit": LABEL,
    "probability_interval.low": Edge([0.0, 0.38], [-0.1, 0.39]),
    "probability_interval.high": Edge([0.36, 1.0], [1.1]),
    "probability_interval.method": NAME,
    "source_quality": SHARE,
}
POSITION: dict[str, Edge] = {
    "ledger_id": Edge(
        ["6f2c1f0e-3b7a-4c5d-9e8f-0a1b2c3d4e5f"],
        ["", "6F2C1F0E-3B7A-4C5D-9E8F-0A1B2C3D4E5F", "6f2c1f0e3b7a4c5d9e8f0a1b2c3d4e5f"],
    ),
    "partition": Edge(
        ["2026-01-29", "2026-01-29-late", "2024-02-29", "2099-12-31"],
        [
            "",
            "2026-13-01",
            "2026-02-29",
            "2026-01-32",
            "2026-1-2",
            "1999-01-01",
            "../2026-01-29",
            "2026-01-29-later",
            "\uff12026-01-29",
        ],
    ),
    "segment_id": Edge([bytes(16)], [b"", bytes(15), bytes(17)]),
    "sequence": Edge([(1 << 32) | 1, 2**64 - 1], [0, 1, 1 << 32, 0xFFFF_FFFF]),
}


def good_rows(table: dict[str, Edge]) -> list[Any]:
    return [
        pytest.param(path, one, id=f"{path}-{n}") for path, edge in table.items() for n, one in enumerate(edge.good)
    ]


def bad_rows(table: dict[str, Edge]) -> list[Any]:
    return [pytest.param(path, one, id=f"{path}-{n}") for path, edge in table.items() for n, one in enumerate(edge.bad)]


def event_without_observation() -> SignalEvent:
    """Its canonical observation would tie input_event_hash to one value."""
    event = full_event()
    event.ClearField("canonical_observation")
    return event


def paths_of(event: SignalEvent) -> list[str]:
    return [violation.field for violation in violations_of_event(event, event.ByteSize())]


@pytest.mark.parametrize(("path", "value"), good_rows(EVENT))
def test_an_event_at_a_limit_is_taken(path: str, value: Any) -> None:
    event = event_without_observation()
    put(event, path, value)
    if path == "signal.generated_at":
        put(event, "observed_at", value)  # they are equal by contract
    assert path not in paths_of(event)


@pytest.mark.parametrize(("path", "value"), bad_rows(EVENT))
def test_an_event_beyond_a_limit_is_refused_with_the_path_of_the_field(path: str, value: Any) -> None:
    event = event_without_observation()
    put(event, path, value)
    (found,) = paths_of(event)
    assert found == path or found.startswith(f"{path}[")


@pytest.mark.parametrize(("path", "value"), good_rows(OBSERVATION))
def test_an_observation_at_a_limit_is_taken(path: str, value: Any) -> None:
    observation = full_observation()
    put(observation, path, value)
    assert violations_of_observation(observation) == []


@pytest.mark.parametrize(("path", "value"), bad_rows(OBSERVATION))
def test_an_observation_beyond_a_limit_is_refused_with_the_path_of_the_field(path: str, value: Any) -> None:
    observation = full_observation()
    put(observation, path, value)
    (found,) = violations_of_observation(observation)
    assert found.field == path


@pytest.mark.parametrize(("path", "value"), good_rows(POSITION))
def test_a_position_at_a_limit_is_taken(path: str, value: Any) -> None:
    position = full_position()
    put(position, path, value)
    assert violations_of_position(position) == []


@pytest.mark.parametrize(("path", "value"), bad_rows(POSITION))
def test_a_position_beyond_a_limit_is_refused(path: str, value: Any) -> None:
    position = full_position()
    put(position, path, value)
    assert [violation.field for violation in violations_of_position(position)] == [path]


def field_paths(descriptor: Descriptor, prefix: str = "") -> Iterator[str]:
    """Paths of everything that can be set, the first item of each list standing for all."""
    for field in descriptor.fields:
        path = f"{prefix}{field.name}"
        item = f"{path}[0]" if field.is_repeated else path
        if field.message_type is None or field.message_type.file.package == "google.protobuf":
            yield from {path, item}
        else:
            yield from [path] if field.is_repeated else []
            yield from field_paths(field.message_type, f"{item}.")


@pytest.mark.parametrize(
    ("descriptor", "table"),
    [(SignalEvent.DESCRIPTOR, EVENT), (Observation.DESCRIPTOR, OBSERVATION), (LedgerPosition.DESCRIPTOR, POSITION)],
    ids=["event", "observation", "position"],
)
def test_every_field_has_a_row_above(descriptor: Descriptor, table: dict[str, Edge]) -> None:
    without_a_limit = {"signal.probability_is_estimate"}
    assert {*field_paths(descriptor)} - without_a_limit == {*table}
