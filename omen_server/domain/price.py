"""The probability of an observation: read from prices or stated by the source, never invented."""

from typing import NamedTuple

from omen.v1 import signal_pb2 as pb
from omen.v1.observation_pb2 import Observation, Quote

MARKETS = (pb.SOURCE_CLASS_REAL_MONEY_MARKET, pb.SOURCE_CLASS_PLAY_MONEY_MARKET)


class Price(NamedTuple):
    """`probability` is `raw` rounded to 6 decimals; `basis_name` is the basis as probability_source spells it."""

    probability: float
    raw: float
    basis: pb.PriceBasis.ValueType
    basis_name: str
    interval: pb.ProbabilityInterval | None


def rounded(value: float, digits: int = 6) -> float:
    """Rounded, and never -0.0, which is equal to 0.0 but has other bytes."""
    return round(value, digits) + 0.0


def spread_of(quote: Quote) -> float | None:
    """Best ask minus best bid; None without both, or when they are crossed: then the book is no book."""
    if not (quote.HasField("best_bid") and quote.HasField("best_ask")) or quote.best_bid > quote.best_ask:
        return None
    return rounded(quote.best_ask - quote.best_bid)


def price_of(observation: Observation, spread_max: float) -> Price | None:
    """Markets: midpoint of a book no wider than `spread_max`, else the last trade. Others: what they state."""
    if observation.source_class in MARKETS:
        return _market_price(observation.quote, spread_max)
    if not observation.HasField("probability"):
        return None
    stated = observation.probability_interval if observation.HasField("probability_interval") else None
    return _price(observation.probability, pb.PRICE_BASIS_STATED, "stated", stated and _interval(stated))


def _market_price(quote: Quote, spread_max: float) -> Price | None:
    spread = spread_of(quote)
    if spread is not None and spread <= spread_max:
        interval = pb.ProbabilityInterval(low=rounded(quote.best_bid), high=rounded(quote.best_ask), method="QUOTE")
        return _price((quote.best_bid + quote.best_ask) / 2, pb.PRICE_BASIS_MIDPOINT, "midpoint", interval)
    if quote.HasField("last_trade"):
        return _price(quote.last_trade, pb.PRICE_BASIS_LAST_TRADE, "last_trade", None)
    return None


def _price(
    raw: float, basis: pb.PriceBasis.ValueType, basis_name: str, interval: pb.ProbabilityInterval | None
) -> Price:
    return Price(rounded(raw), raw + 0.0, basis, basis_name, interval)


def _interval(stated: pb.ProbabilityInterval) -> pb.ProbabilityInterval:
    return pb.ProbabilityInterval(low=rounded(stated.low), high=rounded(stated.high), method=stated.method)
