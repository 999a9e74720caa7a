"""What was seen, and when it is decided: the parts of a signal that retell the observation."""

from google.protobuf.duration_pb2 import Duration

from contract.limits import REPEATED_ITEMS_MAX
from omen.v1 import signal_pb2 as pb
from omen.v1.observation_pb2 import Observation
from omen_server.domain.places import PLACES, REGIONS_BY_NAME, Places
from omen_server.domain.price import MARKETS, Price, rounded

NANOS_PER_SECOND = 1_000_000_000


def evidence_of(observation: Observation, price: Price) -> list[pb.Evidence]:
    """The price first, then the market behind it, then what was measured.

    The page is given with the first alone: it shows them all, and 64 copies of a long address would outgrow an event.
    """
    stated = [price_words(observation, price), market_words(observation)]
    measured = (f"{metric.name} = {metric.value:.12g} {metric.unit}".rstrip() for metric in observation.metrics)
    evidence = [
        pb.Evidence(
            source=observation.source,
            source_type=observation.source_class,
            value=words,
            observed_at=observation.observed_at,
        )
        for words in [*filter(None, stated), *measured][:REPEATED_ITEMS_MAX]
    ]
    evidence[0].url = observation.url
    return evidence


def price_words(observation: Observation, price: Price) -> str:
    if observation.source_class not in MARKETS:
        return f"probability {price.probability:g} stated"
    quote = observation.quote
    quoted = [
        f"{name.replace('_', ' ')} {getattr(quote, name):g}"
        for name in ("best_bid", "best_ask", "last_trade")
        if quote.HasField(name)
    ]
    return ", ".join(quoted)


def market_words(observation: Observation) -> str:
    """Empty when the source says nothing of the kind."""
    said = []
    if observation.HasField("liquidity_usd"):
        said.append(f"liquidity {observation.liquidity_usd:,.12g} USD")
    if observation.HasField("volume_usd"):
        said.append(f"volume {observation.volume_usd:,.12g} USD")
    if observation.HasField("trader_count"):
        said.append(f"{observation.trader_count} traders")
    return ", ".join(said)


def geographic_of(observation: Observation, places: Places) -> pb.GeographicContext | None:
    """Points are those of the observation and of the places it concerns; of regions only where nothing is closer."""
    points = {
        (rounded(place.latitude), rounded(place.longitude))
        for place in observation.locations
        if place.HasField("latitude") and place.HasField("longitude")
    }
    points |= {PLACES[name].point for name in (*places.chokepoints, *places.ports)}
    points = points or {REGIONS_BY_NAME[name].point for name in places.regions}
    if not points:
        return None
    return pb.GeographicContext(
        regions=places.regions[:REPEATED_ITEMS_MAX],
        chokepoints=places.chokepoints[:REPEATED_ITEMS_MAX],
        ports=places.ports[:REPEATED_ITEMS_MAX],
        coordinates=[
            pb.Coordinates(latitude=latitude, longitude=longitude)
            for latitude, longitude in sorted(points)[:REPEATED_ITEMS_MAX]
        ],
    )


def temporal_of(observation: Observation) -> pb.TemporalContext | None:
    """The horizon is counted in whole nanoseconds: no float stands between two timestamps."""
    if not observation.HasField("resolution_date"):
        return None
    resolution, observed = observation.resolution_date, observation.observed_at
    nanos = (resolution.seconds - observed.seconds) * NANOS_PER_SECOND + resolution.nanos - observed.nanos
    seconds, rest = divmod(max(0, nanos), NANOS_PER_SECOND)
    return pb.TemporalContext(event_horizon=Duration(seconds=seconds, nanos=rest), resolution_date=resolution)
