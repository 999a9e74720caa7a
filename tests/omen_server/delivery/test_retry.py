"""How long delivery waits before it calls again, and how long RiskCast is thought to take."""

from random import Random

import pytest

from omen_server.delivery.pace import Pace
from omen_server.delivery.retry import RetryPolicy


class Highest(Random):
    def uniform(self, a: float, b: float) -> float:
        return b


class Lowest(Random):
    def uniform(self, a: float, b: float) -> float:
        return a


def test_the_ceiling_doubles_from_a_tenth_of_a_second_to_two_seconds() -> None:
    ceilings = [RetryPolicy().delay_s(failures, Highest()) for failures in range(1, 8)]
    assert ceilings == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0])
    assert RetryPolicy().delay_s(10_000, Highest()) == pytest.approx(2.0)


def test_any_time_below_the_ceiling_may_be_drawn() -> None:
    jitter = Random(1)
    drawn = [RetryPolicy().delay_s(5, jitter) for _ in range(1000)]
    assert min(drawn) < 0.1 < 1.5 < max(drawn) <= 1.6


def test_what_the_other_side_asks_for_is_waited_for() -> None:
    assert RetryPolicy().delay_s(1, Lowest(), asked_for_s=7.5) == 7.5
    assert RetryPolicy().delay_s(6, Highest(), asked_for_s=0.5) == pytest.approx(2.0)


def test_every_number_is_the_policys_own() -> None:
    policy = RetryPolicy(first_s=1.0, factor=3.0, most_s=5.0)
    assert [policy.ceiling_s(failures) for failures in (1, 2, 3)] == [1.0, 3.0, 5.0]


def test_a_backlog_takes_as_many_intervals_as_it_has_messages() -> None:
    pace = Pace()
    assert pace.drain_s(100, 0.0) == 0.0  # nothing is known yet
    pace.sent(10.0)
    pace.answered(10.2, is_more_under_way=True)
    assert pace.drain_s(4, 10.2) == pytest.approx(0.8)


def test_the_time_in_which_nothing_was_under_way_does_not_count() -> None:
    pace = Pace()
    pace.sent(0.0)
    pace.answered(0.1, is_more_under_way=False)
    pace.sent(1000.0)
    pace.answered(1000.1, is_more_under_way=False)
    assert pace.drain_s(1, 2000.0) == pytest.approx(0.1)


def test_an_answer_that_is_overdue_counts_before_it_comes_and_no_more_once_the_stream_broke() -> None:
    pace = Pace()
    pace.sent(0.0)
    assert pace.drain_s(1, 3.0) == pytest.approx(3.0)
    pace.broken()
    assert pace.drain_s(1, 3.0) == 0.0


def test_one_message_that_took_long_is_no_pace_and_several_are() -> None:
    pace, now = Pace(), 0.0
    for taken_s in (0.1, 0.1, 0.1, 3.0, 0.1):
        pace.sent(now)
        now += taken_s
        pace.answered(now, is_more_under_way=False)
    assert pace.drain_s(4, now) == pytest.approx(0.4)
    for _ in range(5):
        pace.sent(now)
        now += 3.0
        pace.answered(now, is_more_under_way=False)
    assert pace.drain_s(4, now) == pytest.approx(12.0)
