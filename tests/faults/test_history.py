"""The judge is judged: a sound history passes, and each way to break a promise is found."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.faults.history import Attempt, Held, History, Row, Stream, Told, flaws

DAY = "2026-01-29"


def at(ordinal: int, index: int) -> int:
    return ordinal << 32 | index


def sound() -> History:
    """Three signals over a restart: one acknowledged, one unknown that arrived, one repeated after the fault."""
    attempts = [
        Attempt("A", b"a", Told.ACKNOWLEDGED, (DAY, at(1, 1)), "ack-a"),
        Attempt("B", b"b", Told.UNKNOWN),
        Attempt("B", b"b", Told.UNKNOWN),
        Attempt("C", b"c", Told.UNKNOWN),
        Attempt("D", b"d", Told.REFUSED),
        Attempt("A", b"a", Told.ACKNOWLEDGED, (DAY, at(2, 1)), "ack-a", is_after_the_last_fault=True),
        Attempt("E", b"e", Told.ACKNOWLEDGED, (DAY, at(2, 2)), "ack-e", is_after_the_last_fault=True),
    ]
    ledger = [
        Held(DAY, at(1, 1), "A", b"a"),
        Held(DAY, at(1, 2), "B", b"b"),
        Held(DAY, at(1, 3), "B", b"b"),
        Held(DAY, at(2, 1), "A", b"a"),
        Held(DAY, at(2, 2), "E", b"e"),
    ]
    rows = [Row("A", "ack-a", b"a"), Row("B", "ack-b", b"b"), Row("E", "ack-e", b"e")]
    streams = [Stream("a run that was cut twice", 3, [(DAY, at(1, 2)), (DAY, at(2, 1)), (DAY, at(2, 2))])]
    return History(attempts, ledger, rows, streams=streams)


def with_ledger(history: History, ledger: list[Held]) -> History:
    return replace(history, ledger=ledger)


def lost_in_the_ledger(history: History) -> History:
    return with_ledger(history, list(history.ledger[:-1]))


def lost_in_the_middle(history: History) -> History:
    return with_ledger(history, [history.ledger[0], *history.ledger[2:]])


def lost_in_riskcast(history: History) -> History:
    return replace(history, rows=history.rows[1:])


def doubled(history: History) -> History:
    return replace(history, rows=[*history.rows, history.rows[0]])


def phantom_in_the_ledger(history: History) -> History:
    return with_ledger(history, [*history.ledger, Held(DAY, at(2, 3), "A", b"nobody")])


def phantom_in_riskcast(history: History) -> History:
    return replace(history, rows=[*history.rows, Row("Z", "ack-z", b"z")])


def refused_and_stored_all_the_same(history: History) -> History:
    stored = replace(history, rows=[*history.rows, Row("D", "ack-d", b"d")])
    return with_ledger(stored, [*history.ledger, Held(DAY, at(2, 3), "D", b"d")])


def ack_changed_in_an_answer(history: History) -> History:
    attempts = list(history.attempts)
    attempts[5] = replace(attempts[5], ack_id="ack-other")
    return replace(history, attempts=attempts)


def ack_changed_in_the_store(history: History) -> History:
    return replace(history, rows=[replace(history.rows[0], ack_id="ack-other"), *history.rows[1:]])


def other_bytes(history: History) -> History:
    attempts = [*history.attempts, Attempt("A", b"x", Told.UNKNOWN)]
    ledger = [replace(history.ledger[0], payload=b"x"), *history.ledger[1:]]
    return replace(history, attempts=attempts, ledger=ledger)


def out_of_order(history: History) -> History:
    return with_ledger(history, [*history.ledger[3:], *history.ledger[:3]])


def a_segment_that_begins_with_its_second_record(history: History) -> History:
    return with_ledger(history, [*history.ledger, Held(DAY, at(3, 2), "B", b"b")])


def telling(history: History, told: list[tuple[str, int]]) -> History:
    return replace(history, streams=[replace(history.streams[0], told=told)])


def resumed_behind_a_gap(history: History) -> History:
    return telling(history, [*history.streams[0].told[:1], *history.streams[0].told[2:]])


def resumed_with_a_repeat(history: History) -> History:
    return telling(history, [*history.streams[0].told, history.streams[0].told[-1]])


def resumed_from_behind(history: History) -> History:
    return telling(history, [*history.streams[0].told[1:], history.streams[0].told[0]])


def unanswered_after_the_fault(history: History) -> History:
    attempts = [*history.attempts, Attempt("F", b"f", Told.UNKNOWN, is_after_the_last_fault=True)]
    return replace(history, attempts=attempts)


def nothing_after_the_fault(history: History) -> History:
    return replace(history, attempts=[replace(each, is_after_the_last_fault=False) for each in history.attempts])


BROKEN: dict[Callable[[History], History], str] = {
    lost_in_the_ledger: "H1",
    lost_in_the_middle: "H1",
    other_bytes: "H1",
    out_of_order: "H1",
    a_segment_that_begins_with_its_second_record: "H1",
    lost_in_riskcast: "H2",
    doubled: "H2",
    phantom_in_riskcast: "H2",
    phantom_in_the_ledger: "H3",
    refused_and_stored_all_the_same: "H3",
    ack_changed_in_an_answer: "H4",
    ack_changed_in_the_store: "H4",
    resumed_behind_a_gap: "H5",
    resumed_with_a_repeat: "H5",
    resumed_from_behind: "H5",
    unanswered_after_the_fault: "H6",
    nothing_after_the_fault: "H6",
}


def test_a_sound_history_has_no_flaws() -> None:
    assert flaws(sound()) == []


def test_a_dead_letter_is_not_missed() -> None:
    history = sound()
    assert flaws(replace(history, rows=[history.rows[0], *history.rows[2:]], dead_letters={"B"})) == []


def test_what_came_to_riskcast_beside_the_ledger_is_no_phantom() -> None:
    assert flaws(replace(phantom_in_riskcast(sound()), beside={b"z"})) == []


@pytest.mark.parametrize("break_it", BROKEN, ids=lambda broken: broken.__name__)
def test_a_broken_history_is_found_out_by_its_invariant(break_it: Callable[[History], History]) -> None:
    found = flaws(break_it(sound()))
    assert BROKEN[break_it] in {flaw.partition(" ")[0] for flaw in found}
