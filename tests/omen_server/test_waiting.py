"""Who waits is remembered, who has gone is not, however many they are."""

from ledger import Position
from omen_server.appends import TWINS_MANY, Append, Request
from omen_server.outcome import Outcome
from omen_server.waiting import MANY, WaitingRoom
from tests.omen_server.running import DELIVERED, DUPLICATE, LEDGER_ONLY
from tests.riskcast_server.events import NOON


def at(index: int) -> Position:
    return Position("2026-01-29", b"s" * 16, 1 << 32 | index)


def durable(index: int) -> Append:
    """Of one who waits for RiskCast."""
    append = Append(b"", NOON, "OMEN-0123456789AB", "", Request(1, waits_for_riskcast=True))
    append.became_durable(at(index))
    return append


def gone(index: int) -> Append:
    append = durable(index)
    append.answer(append.ledger_only("it took too long"))
    return append


def answer_of(append: Append) -> object:
    answer = append.request.answers[0]
    return answer.status if isinstance(answer, Outcome) else answer


async def test_those_who_gave_up_are_forgotten_when_there_are_many_and_whoever_waits_is_not() -> None:
    room, waiting = WaitingRoom(), durable(1)
    room.enter(waiting, at(1))
    for index in range(2, 10 * MANY):
        room.enter(gone(index), at(index))
    assert len(room._waiting) <= MANY
    assert room.awaits((b"s" * 16, 1))
    assert room.leave((b"s" * 16, 1)) is waiting


async def test_repeats_that_gave_up_are_forgotten_when_there_are_many_and_one_that_waits_is_answered() -> None:
    room, first, repeat = WaitingRoom(), durable(1), durable(1)
    for append in (first, repeat, *(gone(1) for _ in range(10 * TWINS_MANY))):
        room.enter(append, at(1))
    assert len(first.twins) <= TWINS_MANY
    first.answer(Outcome(DELIVERED, at(1), first.signal_id, "ack-1"))
    assert (answer_of(first), answer_of(repeat)) == (DELIVERED, DUPLICATE)


async def test_a_record_for_which_nobody_waits_any_more_is_not_asked_for_again() -> None:
    room = WaitingRoom()
    room.enter(durable(1), at(1))
    room.enter(gone(2), at(2))
    repeated = gone(3)
    room.enter(repeated, at(3))
    room.enter(durable(3), at(3))  # its repeat still waits
    assert sorted(index for _, index in room.awaited()) == [1, 3]


async def test_a_closed_room_answers_at_once_and_an_open_one_waits() -> None:
    room, early, late, open_again = WaitingRoom(), durable(1), durable(2), durable(3)
    room.enter(early, at(1))
    room.close("RiskCast is away")
    room.enter(late, at(2))
    assert [answer_of(early), answer_of(late)] == [LEDGER_ONLY, LEDGER_ONLY]
    room.open()
    room.enter(open_again, at(3))
    assert answer_of(open_again) is None
