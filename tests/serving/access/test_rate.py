"""The bucket of a key: no more than its rate, no less, and who waits as long as told is served."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from serving.access.keys import RATE_MAX, RATE_MIN
from serving.access.rate import Bucket

RATES = st.floats(RATE_MIN, RATE_MAX)
PAUSES = st.lists(st.floats(0, 100), min_size=1, max_size=60)


@dataclass
class Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def test_a_seconds_worth_may_come_at_once_and_then_one_in_each_interval() -> None:
    clock = Clock()
    bucket = Bucket(4, clock)
    assert [bucket.take() for _ in range(5)] == [0, 0, 0, 0, 0.25]
    clock.now += 0.25
    assert [bucket.take() for _ in range(2)] == [0, 0.25]


def test_what_is_not_used_is_not_saved_beyond_a_second() -> None:
    clock = Clock()
    bucket = Bucket(2, clock)
    clock.now += 3600
    assert [bucket.take() for _ in range(3)] == [0, 0, 0.5]


def test_a_rate_below_one_in_a_second_still_lets_the_first_in() -> None:
    bucket = Bucket(0.5, Clock())
    assert [bucket.take(), bucket.take()] == [0, 2]


def test_those_who_reserve_wait_in_turn() -> None:
    bucket = Bucket(1, Clock())
    assert [bucket.reserve() for _ in range(4)] == [0, 1, 2, 3]


def test_another_rate_gives_no_new_burst() -> None:
    clock = Clock()
    bucket = Bucket(2, clock)
    assert [bucket.take() for _ in range(2)] == [0, 0]
    bucket.change_to(100)
    assert bucket.take() == 0.01


@given(RATES, PAUSES)
def test_never_more_than_the_rate_and_one_burst(rate: float, pauses: list[float]) -> None:
    clock = Clock()
    bucket = Bucket(rate, clock)
    taken = 0
    for pause in pauses:
        clock.now += pause
        taken += sum(not bucket.take() for _ in range(5))
        assert taken <= max(1.0, rate) + (clock.now - 1_000_000.0) * rate + 0.01


@given(st.floats(RATE_MIN, 20), PAUSES)
def test_who_waits_as_long_as_told_is_served(rate: float, pauses: list[float]) -> None:
    clock = Clock()
    bucket = Bucket(rate, clock)
    for pause in pauses:
        clock.now += pause
        while not (wait_s := bucket.take()):
            pass
        clock.now += wait_s
        assert bucket.take() == 0


@given(RATES, st.integers(1, 50))
def test_reserved_turns_are_a_rate_apart(rate: float, count: int) -> None:
    bucket = Bucket(rate, Clock())
    waits = [bucket.reserve() for _ in range(count)]
    assert waits == sorted(waits)
    assert waits[-1] >= (count - max(1.0, rate)) / rate - 1e-6
