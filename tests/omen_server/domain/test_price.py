"""Where a probability comes from, and that none is ever made up."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omen.v1 import signal_pb2 as pb
from omen.v1.observation_pb2 import Quote
from omen.v1.signal_event_pb2 import SignalEvent
from omen_server.domain import process
from omen_server.domain.price import Price, price_of, rounded, spread_of
from tests.omen_server.domain.observations import MARKET, MODEL, made

LIMIT = 0.10


def price_with(**quote: float) -> Price | None:
    return price_of(made(MARKET, quote=quote), LIMIT)


@pytest.mark.parametrize(
    ("quote", "probability", "basis"),
    [
        ({"best_bid": 0.41, "best_ask": 0.44, "last_trade": 0.3}, 0.425, pb.PRICE_BASIS_MIDPOINT),
        ({"best_bid": 0.0, "best_ask": 0.01}, 0.005, pb.PRICE_BASIS_MIDPOINT),
        ({"best_bid": 0.3333333, "best_ask": 0.3333334}, 0.333333, pb.PRICE_BASIS_MIDPOINT),
        ({"best_bid": 0.45, "best_ask": 0.55, "last_trade": 0.3}, 0.5, pb.PRICE_BASIS_MIDPOINT),
        ({"best_bid": 0.45, "best_ask": 0.56, "last_trade": 0.3}, 0.3, pb.PRICE_BASIS_LAST_TRADE),
        ({"best_bid": 0.45, "last_trade": 0.0}, 0.0, pb.PRICE_BASIS_LAST_TRADE),
        ({"best_ask": 0.45, "last_trade": 1.0}, 1.0, pb.PRICE_BASIS_LAST_TRADE),
        ({"best_bid": 0.6, "best_ask": 0.5, "last_trade": 0.52}, 0.52, pb.PRICE_BASIS_LAST_TRADE),
    ],
)
def test_a_market_is_read(quote: dict[str, float], probability: float, basis: pb.PriceBasis.ValueType) -> None:
    price = price_with(**quote)
    assert price
    assert (price.probability, price.basis) == (probability, basis)


@pytest.mark.parametrize("quote", [{}, {"best_bid": 0.4}, {"best_ask": 0.4}, {"best_bid": 0.2, "best_ask": 0.8}])
def test_a_market_without_a_usable_book_or_a_trade_has_no_price(quote: dict[str, float]) -> None:
    assert price_with(**quote) is None


def test_a_crossed_book_has_no_spread() -> None:
    assert spread_of(Quote(best_bid=0.6, best_ask=0.5)) is None


def test_the_range_of_a_midpoint_is_the_quote() -> None:
    price = price_with(best_bid=0.41, best_ask=0.44)
    assert price
    assert price.interval == pb.ProbabilityInterval(low=0.41, high=0.44, method="QUOTE")


def test_a_model_states_its_probability_and_range_and_it_is_an_estimate() -> None:
    interval = pb.ProbabilityInterval(low=0.2, high=0.5, method="ENSEMBLE")
    result = process(made(MODEL, probability=1 / 3, probability_interval=interval))
    assert isinstance(result, SignalEvent)
    signal = result.signal
    assert (signal.probability, signal.raw_probability) == (0.333333, 1 / 3)
    assert (signal.probability_is_estimate, signal.price_basis) == (True, pb.PRICE_BASIS_STATED)
    assert signal.probability_interval == interval
    assert signal.probability_source == "test-model:stated"


def test_a_market_price_is_not_an_estimate_and_a_stated_one_is_not_read_from_a_market() -> None:
    result = process(made(MARKET, probability=0.9))
    assert isinstance(result, SignalEvent)
    assert (result.signal.probability, result.signal.probability_is_estimate) == (0.42, False)


@given(st.floats(-1, 1))
def test_rounding_leaves_no_negative_zero(value: float) -> None:
    result = rounded(value)
    assert abs(result - value) <= 5.1e-7
    assert result != 0 or math.copysign(1, result) == 1
