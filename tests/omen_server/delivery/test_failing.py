"""Which records are kept apart, and when each is tried."""

from omen_server.delivery.failing import ATTEMPTS_MAX, REST_MIN_S, RETRY_FIRST_S, RETRY_MAX_S, Failing

MESSAGE = [(b"s", 1), (b"s", 2), (b"s", 3)]


def broken(times: int) -> Failing:
    failing = Failing()
    for _ in range(times):
        failing.broke(MESSAGE, 0.0)
    return failing


def test_the_fifth_stream_that_ends_at_one_message_sets_its_records_apart() -> None:
    failing = broken(ATTEMPTS_MAX - 1)
    assert not failing.apart
    assert failing.broke(MESSAGE, 0.0) == MESSAGE
    assert [*failing.apart] == MESSAGE
    assert ATTEMPTS_MAX == 5


def test_its_answer_or_another_message_at_fault_starts_the_count_again() -> None:
    failing = broken(ATTEMPTS_MAX - 1)
    failing.answered([MESSAGE[0]])
    assert not failing.is_watching
    assert failing.broke(MESSAGE, 0.0) == ()
    failing = broken(ATTEMPTS_MAX - 1)
    failing.broke([(b"s", 9)], 0.0)
    assert failing.broke(MESSAGE, 0.0) == ()


def test_what_is_answered_before_it_on_every_stream_does_not_hide_it() -> None:
    failing = Failing()
    for _ in range(ATTEMPTS_MAX):
        assert not failing.apart
        failing.answered([(b"s", 99)])
        failing.broke(MESSAGE, 0.0)
    assert [*failing.apart] == MESSAGE


def test_a_stream_that_ends_with_nothing_under_way_says_nothing() -> None:
    failing = broken(ATTEMPTS_MAX - 1)
    assert failing.broke([], 0.0) == ()
    assert failing.broke(MESSAGE, 0.0) == MESSAGE


def test_one_that_breaks_again_and_again_is_tried_ever_more_rarely_until_it_is_answered() -> None:
    failing = broken(ATTEMPTS_MAX)
    failing.answered(MESSAGE[1:])
    waits = []
    for _ in range(9):
        failing.broke([MESSAGE[0]], 0.0)
        waits.append(failing.maybe_wait_s(0.0))
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert (waits[0], waits[-1]) == (RETRY_FIRST_S, RETRY_MAX_S)
    for _ in range(2_000):  # for days
        failing.broke([MESSAGE[0]], 0.0)
    assert failing.maybe_wait_s(0.0) == RETRY_MAX_S
    failing.answered([MESSAGE[0]])
    for _ in range(ATTEMPTS_MAX + 1):
        failing.broke([MESSAGE[0]], 0.0)
    assert failing.maybe_wait_s(0.0) == RETRY_FIRST_S


def test_one_after_the_other_is_tried_and_the_one_that_breaks_again_after_a_while() -> None:
    failing = broken(ATTEMPTS_MAX)
    assert failing.maybe_due(1.0) == MESSAGE[0]
    failing.answered([MESSAGE[0]])
    assert failing.maybe_due(1.0) == MESSAGE[1]
    failing.trying(2.0)
    failing.broke([MESSAGE[1]], 2.0)
    assert (failing.maybe_due(2.0), failing.maybe_wait_s(2.0)) == (None, REST_MIN_S)
    assert failing.maybe_due(3.0) == MESSAGE[2], "who has waited for longest comes first"
    failing.answered([MESSAGE[2]])
    assert (failing.maybe_due(3.0), failing.maybe_wait_s(3.0)) == (MESSAGE[1], 0.0)
    failing.forget(MESSAGE[1])
    assert (failing.maybe_due(100.0), failing.maybe_wait_s(100.0)) == (None, None)


def test_however_many_are_tried_in_vain_it_takes_a_tenth_of_the_time() -> None:
    failing, now, took_s = Failing(), 0.0, 5.0
    places = [(b"s", index) for index in range(50)]
    for _ in range(ATTEMPTS_MAX):
        failing.broke(places, now)
    tried_s = 0.0
    while now < 3600:
        wait_s = failing.maybe_wait_s(now)
        assert wait_s is not None
        now += wait_s
        place = failing.maybe_due(now)
        assert place
        failing.trying(now)
        now, tried_s = now + took_s, tried_s + took_s
        failing.broke([place], now)
    assert 0.08 < tried_s / now < 0.11
