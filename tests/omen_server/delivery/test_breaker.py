"""The breaker: a table of transitions that leaves nothing out, and what moves it."""

from itertools import product

import pytest

from omen_server.delivery.breaker import TRANSITIONS, Breaker, Event, State

OPEN_S = 30.0


def opened(at: float = 0.0) -> Breaker:
    breaker = Breaker(OPEN_S)
    for _ in range(5):
        breaker.failed(at)
    return breaker


def test_the_table_says_what_happens_in_every_state() -> None:
    assert TRANSITIONS.keys() == set(product(State, Event))


def test_only_a_failure_too_many_opens_it_and_only_the_connection_or_time_half_opens_it() -> None:
    opening = {key for key, after in TRANSITIONS.items() if after is State.OPEN and key[0] is not State.OPEN}
    assert opening == {
        (State.CLOSED, Event.FAILED_TOO_OFTEN),
        (State.HALF_OPEN, Event.FAILED),
        (State.HALF_OPEN, Event.FAILED_TOO_OFTEN),
    }
    half = {
        event for (before, event), after in TRANSITIONS.items() if before is State.OPEN and after is State.HALF_OPEN
    }
    assert half == {Event.READY_AGAIN, Event.WAITED}


def test_the_fifth_failure_in_a_row_opens_it() -> None:
    breaker = Breaker(OPEN_S)
    for _ in range(4):
        breaker.failed(0.0)
    assert breaker.allows(0.0)
    breaker.failed(0.0)
    assert not breaker.allows(0.0)


def test_a_success_in_between_starts_the_count_again() -> None:
    breaker = Breaker(OPEN_S)
    for _ in range(10):
        breaker.succeeded(0.0)
    for _ in range(2):
        for _ in range(4):
            breaker.failed(0.0)
        breaker.succeeded(0.0)
    assert breaker.state is State.CLOSED


def test_half_of_ten_calls_within_a_minute_open_it_and_nine_calls_do_not() -> None:
    breaker = Breaker(OPEN_S)
    for second in range(4):
        breaker.succeeded(second)
        breaker.failed(second)
    breaker.failed(4)
    assert breaker.allows(4)  # five of nine
    breaker.succeeded(5)
    assert breaker.allows(5)  # a success opens nothing
    breaker.failed(6)
    assert not breaker.allows(6)


def test_failures_of_more_than_a_minute_ago_count_no_more() -> None:
    breaker = Breaker(OPEN_S)
    for minute in range(20):
        breaker.succeeded(61.0 * minute)
        breaker.failed(61.0 * minute)
    assert breaker.state is State.CLOSED


def test_it_stays_open_for_its_time_and_then_lets_one_call_through() -> None:
    breaker = opened(at=100.0)
    assert not breaker.allows(129.9)
    assert breaker.remaining_s(110.0) == pytest.approx(20.0)
    assert breaker.allows(130.0)
    assert breaker.state is State.HALF_OPEN
    breaker.failed(131.0)
    assert not breaker.allows(131.0)
    assert breaker.remaining_s(131.0) == pytest.approx(30.0)


def test_a_connection_made_anew_lets_one_call_through_at_once_and_its_success_closes_it() -> None:
    breaker = opened()
    breaker.ready_again(0.5)
    assert breaker.allows(0.5)
    breaker.succeeded(0.6)
    assert breaker.state is State.CLOSED
    breaker.failed(0.7)
    assert breaker.state is State.CLOSED  # what failed before is forgotten
