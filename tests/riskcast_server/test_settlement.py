"""The decision of the door, by table and against a model of sets."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import Violation, invalid_signal
from contract.identity import identity_of_event
from omen.v1.signal_event_pb2 import SignalEvent
from omen.v1.signal_pb2 import SIGNAL_CATEGORY_WEATHER
from riskcast.v1.signal_service_pb2 import ARRIVAL_PATH_DELIVERY, ARRIVAL_PATH_INGEST
from riskcast_server.settlement import Candidate, Entry, Kept, Known, Plan, Position, Refused, Verdict, covered, decide
from tests.riskcast_server.events import DAY, LEDGER, SEGMENT

BAD = invalid_signal([Violation("title", "must be there")])
STORED, DUPLICATE = Verdict.STORED, Verdict.DUPLICATE
CONFLICT, REJECTED = Verdict.CONFLICT, Verdict.REJECTED
WIDE = f"OMEN-{'0' * 32}"


def at(index: int) -> Position:
    return Position(LEDGER, DAY, SEGMENT, 1 << 32 | index)


def encoded(name: str, digest: str = "h") -> bytes:
    return SignalEvent(signal_id=name, input_event_hash=digest).SerializeToString()


def good(name: str, index: int | None, digest: str = "h") -> Candidate:
    position = None if index is None else at(index)
    event = encoded(name, digest)
    return Candidate(
        name, digest, f"ack {name} {digest}", event, 0, SIGNAL_CATEGORY_WEATHER, "q", position, ARRIVAL_PATH_DELIVERY
    )


def unary(name: str, index: int) -> Candidate:
    return replace(good(name, index), path=ARRIVAL_PATH_INGEST)


def bad(index: int, event: bytes = b"bad") -> Refused:
    return Refused(at(index), "", BAD, event)


def verdicts(plan: Plan) -> list[Verdict]:
    return [outcome.verdict for outcome in plan.outcomes]


@pytest.mark.parametrize(
    ("before", "entries", "expected", "settled"),
    [
        ([], [good("a", 1)], [STORED], {}),
        ([], [good("a", None)], [STORED], {}),
        ([], [good("a", 1), good("a", 2), good("a", 1)], [STORED, DUPLICATE, DUPLICATE], {2: DUPLICATE}),
        ([], [good("a", 1), good("a", 2, "other")], [STORED, CONFLICT], {2: CONFLICT}),
        ([good(WIDE, 1)], [good(WIDE, 2, "other")], [REJECTED], {2: REJECTED}),
        ([], [bad(1), good("a", 2), bad(3)], [REJECTED, STORED, REJECTED], {1: REJECTED, 3: REJECTED}),
        ([good("a", 1)], [good("a", 1)], [DUPLICATE], {}),
        ([good("a", 1)], [good("a", 1, "other")], [CONFLICT], {1: CONFLICT}),
        ([good("a", 1)], [good("a", None)], [DUPLICATE], {}),
        ([good("a", None)], [good("a", 1)], [DUPLICATE], {1: DUPLICATE}),
        ([good("a", 1)], [good("b", 1)], [REJECTED], {1: REJECTED}),
        ([good("a", 1)], [unary("b", 1)], [STORED], {}),
        ([unary("b", 1)], [good("a", 1)], [STORED], {}),
        ([unary("a", 1)], [good("a", 1)], [DUPLICATE], {1: DUPLICATE}),
        ([good("a", 1)], [unary("a", 2)], [DUPLICATE], {}),
        ([good("a", 1)], [bad(1)], [REJECTED], {1: REJECTED}),
        ([good("a", 1)], [bad(1, encoded("a"))], [DUPLICATE], {}),
        ([], [bad(1), good("a", 1)], [REJECTED, STORED], {}),
    ],
)
def test_the_table_of_outcomes(
    before: Sequence[Candidate], entries: Sequence[Entry], expected: list[Verdict], settled: dict[int, Verdict]
) -> None:
    known = Known()
    decide(before, known, 1)
    plan = decide(entries, known, 2)
    assert verdicts(plan) == expected
    assert {place[2]: each.verdict for place, each in plan.settlements.items()} == settled


def test_a_conflict_waits_for_the_row_of_its_wide_id_and_covers_nothing_before() -> None:
    known = Known()
    entries = [good("a", 1), good("a", 2, "other")]
    plan = decide(entries, known, 1)
    [settlement] = plan.settlements.values()
    wide_id = identity_of_event(SignalEvent.FromString(entries[1].event)).signal_id_of(32)
    assert (settlement.signal_id, settlement.reason) == (wide_id, "SIGNAL_ID_CONFLICT")
    assert [coverage.intervals for coverage in covered(entries, plan.outcomes).values()] == [((1, 1),)]


def test_every_repeat_has_the_ack_id_and_time_of_the_first() -> None:
    known = Known()
    [first] = decide([good("a", 1)], known, 1).outcomes
    [again] = decide([good("a", 2)], known, 2).outcomes
    assert isinstance(first, Kept)
    assert isinstance(again, Kept)
    assert again.row is first.row


entries = st.lists(
    st.one_of(
        st.builds(good, st.sampled_from("abcd"), st.one_of(st.none(), st.integers(1, 6)), st.sampled_from(["h", "i"])),
        st.builds(bad, st.integers(1, 6)),
    ),
    max_size=12,
)


@given(st.lists(entries, max_size=5))
def test_whatever_comes_in_whatever_batches_places_are_settled_once_and_rows_never_change(
    batches: list[list[Entry]],
) -> None:
    known = Known()
    rows: dict[str, Candidate] = {}
    settlements: set[int] = set()
    touched: set[int] = set()
    for number, batch in enumerate(batches):
        plan = decide(batch, known, number)
        assert len(plan.outcomes) == len(batch)
        for row in plan.rows:
            assert row.signal.signal_id not in rows
            rows[row.signal.signal_id] = row.signal
        row_places = {each.position.record_index for each in rows.values() if each.position}
        settlements = (settlements | {place[2] for place in plan.settlements}) - row_places
        touched |= {entry.position.record_index for entry in batch if entry.position}
        assert row_places | settlements == touched
        for entry, outcome in zip(batch, plan.outcomes, strict=True):
            if isinstance(outcome, Kept) and isinstance(entry, Candidate):
                assert outcome.row.signal == rows[entry.signal_id]
                assert outcome.row.signal.input_event_hash == entry.input_event_hash


@given(entries)
def test_batching_changes_no_outcome(one_batch: list[Entry]) -> None:
    together, one_by_one = Known(), Known()
    at_once = verdicts(decide(one_batch, together, 1))
    in_turn = [verdict for entry in one_batch for verdict in verdicts(decide([entry], one_by_one, 1))]
    assert at_once == in_turn
    assert together == one_by_one
