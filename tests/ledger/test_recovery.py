"""The decision alone, as a pure function: every kind of evidence against every place of bad bytes."""

from itertools import product

import pytest

from ledger.recovery import Action, Evidence, Outcome, decide

END = 1000  # where the frames end; durable evidence, when there is some, reaches DURABLE
DURABLE = 600
COUNT = 9

GAPS = {
    "none": (),
    "below": ((400, 500, 3),),
    "across": ((560, 640, 5),),
    "at the mark": ((600, 700, 6),),
    "beyond": ((800, 900, 8),),
    "below and beyond": ((400, 500, 3), (800, 900, 8)),
}


def outcome_of(gaps: str, durable_end: int, file_bytes: int, limit: str) -> Outcome:
    """What the table of FORMAT.md says, written the other way round: is a byte bad that was durable?"""
    bad = {offset for start, end, _ in GAPS[gaps] for offset in range(start, end)}
    bad |= set(range(file_bytes, 2 * END))
    if bad & set(range(durable_end)):
        return Outcome.DAMAGED
    inside = bad & set(range(min(file_bytes, END)))
    return Outcome.TORN_TAIL if inside else Outcome.CLEAN


@pytest.mark.parametrize(
    ("gaps", "durable_end", "file_bytes", "limit"),
    list(product(GAPS, (100, DURABLE, END), (END, 500), ("open", "pinned"))),
)
def test_the_outcome_is_damaged_exactly_when_a_durable_byte_is_bad(
    gaps: str, durable_end: int, file_bytes: int, limit: str
) -> None:
    is_pinned = limit == "pinned"
    durable_end = END if is_pinned else durable_end
    held = tuple(gap for gap in GAPS[gaps] if gap[0] < file_bytes)
    evidence = Evidence(
        file_bytes=file_bytes,
        gaps=held,
        known_count=COUNT,
        durable_end=durable_end,
        limit=END if is_pinned else file_bytes,
        limit_record_count=COUNT if is_pinned else None,
    )
    decision = decide(evidence)
    assert decision.outcome is outcome_of(gaps, durable_end, file_bytes, limit)
    if decision.outcome is Outcome.DAMAGED:
        assert decision.action is Action.LEAVE
        assert decision.byte_length >= durable_end
    if decision.outcome is Outcome.TORN_TAIL:
        assert decision.action is Action.TRUNCATE_AND_FREEZE
        assert (decision.byte_length, decision.record_count) == (held[0][0], held[0][2])
    if decision.outcome is Outcome.CLEAN:
        assert decision.action is Action.FREEZE
        assert (decision.byte_length, decision.record_count) == (evidence.limit, COUNT)


def test_damage_below_the_mark_leaves_the_torn_tail_beyond_it_out() -> None:
    evidence = Evidence(END, GAPS["below and beyond"], COUNT, DURABLE, END, None)
    decision = decide(evidence)
    assert (decision.outcome, decision.byte_length, decision.record_count) == (Outcome.DAMAGED, 800, 8)


def test_a_pinned_segment_that_holds_fewer_records_than_its_pin_says_is_damaged() -> None:
    decision = decide(Evidence(END, (), COUNT - 1, END, END, COUNT))
    assert (decision.outcome, decision.record_count) == (Outcome.DAMAGED, COUNT)


def test_bytes_beyond_the_pin_are_left_alone() -> None:
    decision = decide(Evidence(END + 500, (), COUNT, END, END, COUNT))
    assert (decision.outcome, decision.action, decision.byte_length) == (Outcome.CLEAN, Action.LEAVE, END)
