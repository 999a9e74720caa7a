"""Which records are in doubt, which are kept apart, and when each of these is tried."""

from itertools import takewhile

from omen_server.delivery.failing import (
    ATTEMPTS_MAX,
    IN_DOUBT_MAX,
    REST_MIN_S,
    RETRY_FIRST_S,
    RETRY_MAX_S,
    Failing,
    Place,
    records_max,
)


def place(index: int) -> Place:
    return b"s", index


def apart(*places: Place) -> Failing:
    """Each has ended five streams by itself."""
    failing = Failing()
    for each in places:
        assert [failing.broke([each], 0.0) for _ in range(ATTEMPTS_MAX)] == [False] * (ATTEMPTS_MAX - 1) + [True]
    assert [*failing.apart] == [*places]
    return failing


def broken_until_found(unbearable: int, count: int = 256) -> tuple[Failing, int]:
    """Streams on which records from 1 to `count` are sent, one message at a time; how many ended until it was known
    which record ends them."""
    failing, left, ended = Failing(), [*range(1, count + 1)], 0
    while not failing.apart:
        doubts = [failing.doubts(place(index)) for index in left]
        alike = len([*takewhile(doubts[0].__eq__, doubts)])
        message = left[: min(alike, records_max(doubts[0]))]
        if unbearable in message:
            ended += 1
            failing.broke([*map(place, message)], 0.0)
        else:
            failing.answered([*map(place, message)])
            left = left[len(message) :]
    return failing, ended


def test_wherever_it_stands_the_fifth_stream_that_a_record_ends_sets_it_apart_and_no_other() -> None:
    for unbearable in range(1, 257):
        failing, ended = broken_until_found(unbearable)
        assert [*failing.apart] == [place(unbearable)]
        assert ended == ATTEMPTS_MAX == 5


def test_each_stream_that_ends_lets_a_quarter_of_the_records_into_a_message_and_in_the_end_one() -> None:
    assert [records_max(doubts) for doubts in range(7)] == [256, 64, 16, 4, 1, 1, 1]


def test_an_answer_ends_the_doubts_of_its_records_alone() -> None:
    failing = Failing()
    failing.broke([place(1), place(2)], 0.0)
    failing.answered([place(1), place(99)])
    assert (failing.doubts(place(1)), failing.doubts(place(2)), failing.is_in_doubt) == (0, 1, True)
    failing.answered([place(2)])
    assert not failing.is_watching


def test_what_is_answered_before_it_on_every_stream_does_not_hide_it() -> None:
    failing = Failing()
    for _ in range(ATTEMPTS_MAX):
        assert not failing.apart
        failing.answered([place(99)])
        failing.broke([place(1)], 0.0)
    assert [*failing.apart] == [place(1)]


def test_five_streams_may_end_until_it_is_riskcasts_fault_and_again_five_after_an_answer() -> None:
    failing = Failing()
    for _ in range(2):
        suspected = []
        for _ in range(ATTEMPTS_MAX + 2):
            failing.broke([place(1), place(2)], 0.0)
            suspected.append(failing.is_record_suspected)
        assert suspected == [True] * ATTEMPTS_MAX + [False] * 2
        failing.answered([place(9)])
        assert not failing.is_record_suspected


def test_of_one_record_alone_nobody_knows_whether_it_is_at_fault() -> None:
    failing = Failing()
    failing.broke([place(1)], 0.0)
    assert not failing.is_record_suspected


def test_a_stream_that_ends_with_nothing_under_way_says_nothing() -> None:
    failing = Failing()
    assert not failing.broke([], 0.0)
    assert not failing.is_watching


def test_what_riskcast_turns_out_to_have_settled_is_in_no_doubt() -> None:
    failing = Failing()
    failing.broke([place(1), place(2)], 0.0)
    failing.greeted(lambda segment_id, index: index == 1)
    assert (failing.doubts(place(1)), failing.doubts(place(2))) == (0, 1)


def test_only_so_many_are_in_doubt_and_the_oldest_doubts_are_forgotten() -> None:
    failing = Failing()
    for first in range(0, 2 * IN_DOUBT_MAX, 256):
        failing.broke([place(index) for index in range(first, first + 256)], 0.0)
    assert sum(failing.doubts(place(index)) for index in range(2 * IN_DOUBT_MAX)) == IN_DOUBT_MAX
    assert failing.doubts(place(2 * IN_DOUBT_MAX - 1)) == 1


def test_one_that_breaks_again_and_again_is_tried_ever_more_rarely_until_it_is_answered() -> None:
    failing = apart(place(1))
    waits = []
    for _ in range(9):
        failing.broke([place(1)], 0.0)
        waits.append(failing.maybe_wait_s(0.0))
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert (waits[0], waits[-1]) == (RETRY_FIRST_S, RETRY_MAX_S)
    for _ in range(2_000):  # for days
        failing.broke([place(1)], 0.0)
    assert failing.maybe_wait_s(0.0) == RETRY_MAX_S
    failing.answered([place(1)])
    for _ in range(ATTEMPTS_MAX + 1):
        failing.broke([place(1)], 0.0)
    assert failing.maybe_wait_s(0.0) == RETRY_FIRST_S


def test_one_after_the_other_is_tried_and_the_one_that_breaks_again_after_a_while() -> None:
    failing = apart(place(1), place(2), place(3))
    assert failing.maybe_due(1.0) == place(1)
    failing.answered([place(1)])
    assert failing.maybe_due(1.0) == place(2)
    failing.trying(2.0)
    failing.broke([place(2)], 2.0)
    assert (failing.maybe_due(2.0), failing.maybe_wait_s(2.0)) == (None, REST_MIN_S)
    assert failing.maybe_due(3.0) == place(3), "who has waited for longest comes first"
    failing.answered([place(3)])
    assert (failing.maybe_due(3.0), failing.maybe_wait_s(3.0)) == (place(2), 0.0)
    failing.forget(place(2))
    assert (failing.maybe_due(100.0), failing.maybe_wait_s(100.0)) == (None, None)


def test_however_many_are_tried_in_vain_it_takes_a_tenth_of_the_time() -> None:
    failing, now, took_s = apart(*map(place, range(50))), 0.0, 5.0
    tried_s = 0.0
    while now < 3600:
        wait_s = failing.maybe_wait_s(now)
        assert wait_s is not None
        now += wait_s
        due = failing.maybe_due(now)
        assert due
        failing.trying(now)
        now, tried_s = now + took_s, tried_s + took_s
        failing.broke([due], now)
    assert 0.08 < tried_s / now < 0.11
