"""Messages with every field set, and with no more set than must be."""

from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from contract.identity import canonical_observation, fill_identity
from omen.v1 import signal_pb2 as signals
from omen.v1.ledger_record_pb2 import LedgerPosition, LedgerRecord
from omen.v1.observation_pb2 import Location, Metric, Observation, Quote
from omen.v1.signal_event_pb2 import SignalEvent

OBSERVED_AT = datetime(2026, 1, 29, 11, 59, 58, 123456, UTC)
EMITTED_AT = OBSERVED_AT + timedelta(seconds=1)
NOW = EMITTED_AT + timedelta(milliseconds=5)


def stamp(at: datetime) -> Timestamp:
    found = Timestamp()
    found.FromDatetime(at)
    return found


def full_observation() -> Observation:
    return Observation(
        source="polymarket",
        source_class=signals.SOURCE_CLASS_REAL_MONEY_MARKET,
        source_event_id="polymarket:512345",
        source_updated_at=stamp(OBSERVED_AT - timedelta(minutes=2)),
        source_revision="rev-17",
        title="Will the Suez Canal close before March?",
        description="Resolves Yes if the Canal is closed to all traffic — señal de cierre.",
        outcome_label="Yes",
        quote=Quote(best_bid=0.36, best_ask=0.38, last_trade=0.375),
        probability=0.37,
        previous_probability=0.31,
        previous_probability_window=Duration(seconds=86_400, nanos=500_000_000),
        liquidity_usd=125_000.5,
        volume_usd=2_400_000.25,
        trader_count=1842,
        keywords=["Suez", "shipping"],
        locations=[Location(latitude=30.42, longitude=32.35, name="Suez Canal", country="EG")],
        url="https://polymarket.com/event/suez-canal",
        created_at=stamp(datetime(2025, 12, 1, tzinfo=UTC)),
        resolution_date=stamp(datetime(2026, 3, 1, tzinfo=UTC)),
        resolution_criteria="A notice of the Suez Canal Authority.",
        observed_at=stamp(OBSERVED_AT),
        metrics=[Metric(name="daily_transits", value=41.5, unit="ships/day")],
        probability_interval=signals.ProbabilityInterval(low=0.36, high=0.38, method="QUOTE"),
        source_quality=0.8,
    )


def least_observation() -> Observation:
    return Observation(
        source="file",
        source_class=signals.SOURCE_CLASS_NEWS,
        source_event_id="file:1",
        title="A port strike",
        observed_at=stamp(OBSERVED_AT),
    )


def full_evidence() -> signals.Evidence:
    return signals.Evidence(
        source="polymarket",
        source_type=signals.SOURCE_CLASS_REAL_MONEY_MARKET,
        value="best bid 0.36, best ask 0.38",
        url="https://polymarket.com/event/suez-canal",
        observed_at=stamp(OBSERVED_AT),
    )


def full_verdict() -> signals.ValidationScore:
    return signals.ValidationScore(
        rule_name="liquidity",
        rule_version="1.0.0",
        outcome=signals.RULE_OUTCOME_PASSED,
        score=1.0,
        reasoning="liquidity 125000.50 USD is at least 1000 USD",
    )


def full_signal() -> signals.Signal:
    return signals.Signal(
        title="Will the Suez Canal close before March?",
        description="Resolves Yes if the Canal is closed to all traffic — señal de cierre.",
        signal_type=signals.SIGNAL_TYPE_SHIPPING_ROUTE_RISK,
        status=signals.SIGNAL_STATUS_ACTIVE,
        category=signals.SIGNAL_CATEGORY_INFRASTRUCTURE,
        probability=0.37,
        probability_source="polymarket:midpoint",
        probability_is_estimate=True,
        raw_probability=0.3700000001,
        price_basis=signals.PRICE_BASIS_MIDPOINT,
        probability_interval=signals.ProbabilityInterval(low=0.36, high=0.38, method="QUOTE"),
        confidence_score=0.8123,
        confidence_level=signals.CONFIDENCE_LEVEL_HIGH,
        confidence_method="weighted-mean/1.0.0",
        confidence_factors=[
            signals.ConfidenceFactor(name="liquidity", value=1.0, weight=0.25),
            signals.ConfidenceFactor(name="spread", value=0.8, weight=0.15),
        ],
        tags=["canal", "suez"],
        keywords_matched=["canal", "close"],
        geographic=signals.GeographicContext(
            regions=["Middle East"],
            chokepoints=["Suez Canal"],
            ports=["Port Said"],
            coordinates=[signals.Coordinates(latitude=30.42, longitude=32.35)],
        ),
        temporal=signals.TemporalContext(
            event_horizon=Duration(seconds=2_635_201, nanos=876_544_000),
            resolution_date=stamp(datetime(2026, 3, 1, tzinfo=UTC)),
        ),
        evidence=[full_evidence()],
        validation_scores=[full_verdict()],
        routing_hints=signals.RoutingHints(
            domains=["shipping"],
            direction=signals.ROUTING_DIRECTION_DISRUPTION,
            asset_types=["container", "tanker"],
            keywords=["suez"],
        ),
        source_url="https://polymarket.com/event/suez-canal",
        source_class=signals.SOURCE_CLASS_REAL_MONEY_MARKET,
        resolution_criteria="A notice of the Suez Canal Authority.",
        explanation="liquidity PASSED (1.0): liquidity 125000.50 USD is at least 1000 USD",
        generated_at=stamp(OBSERVED_AT),
    )


def least_signal() -> signals.Signal:
    return signals.Signal(
        title="A port strike",
        signal_type=signals.SIGNAL_TYPE_LABOR,
        status=signals.SIGNAL_STATUS_CANDIDATE,
        category=signals.SIGNAL_CATEGORY_LABOR,
        probability_source="file:stated",
        price_basis=signals.PRICE_BASIS_STATED,
        confidence_level=signals.CONFIDENCE_LEVEL_LOW,
        confidence_method="weighted-mean/1.0.0",
        source_class=signals.SOURCE_CLASS_NEWS,
        generated_at=stamp(OBSERVED_AT),
    )


def full_event() -> SignalEvent:
    event = SignalEvent(
        schema_version="1.0.0",
        source="polymarket",
        source_event_id="polymarket:512345",
        ruleset_version="1.0.0",
        observed_at=stamp(OBSERVED_AT),
        emitted_at=stamp(EMITTED_AT),
        signal=full_signal(),
        canonical_observation=canonical_observation(full_observation()),
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )
    fill_identity(event)
    return event


def least_event() -> SignalEvent:
    event = SignalEvent(
        schema_version="1.0.0",
        input_event_hash=f"sha256:{'0' * 64}",
        source="file",
        source_event_id="file:1",
        ruleset_version="1.0.0",
        observed_at=stamp(OBSERVED_AT),
        emitted_at=stamp(EMITTED_AT),
        signal=least_signal(),
    )
    fill_identity(event)
    return event


def full_position() -> LedgerPosition:
    return LedgerPosition(
        ledger_id="6f2c1f0e-3b7a-4c5d-9e8f-0a1b2c3d4e5f",
        partition="2026-01-29",
        segment_id=bytes(range(16)),
        sequence=(1 << 32) | 7,
    )


def full_record() -> LedgerRecord:
    return LedgerRecord(
        position=full_position(),
        written_at=stamp(NOW),
        event=full_event().SerializeToString(deterministic=True),
    )
