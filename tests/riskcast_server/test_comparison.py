"""How a comparison ends, by table and against Python's own sets."""

import functools
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.coverage import Coverage
from contract.identity import ack_id
from omen.v1.ledger_service_pb2 import GetPartitionResponse, ReplayRequest, Segment, SequenceRange
from omen.v1.signal_event_pb2 import SignalEvent
from riskcast.v1 import reconcile_service_pb2 as pb
from riskcast.v1.signal_service_pb2 import ARRIVAL_PATH_DELIVERY
from riskcast_server.comparison import (
    COUNTED_PER_RUN,
    REPLAY_RANGES_MAX,
    REPLAY_RECORDS_MAX,
    Conclusion,
    Findings,
    Gap,
    behind,
    beyond,
    conclude,
    differs,
    divergence,
    gaps,
    maybe_counted_max,
    missing,
    replay_ranges,
    unaccepted,
    with_damage,
    worse,
)
from riskcast_server.settlement import Candidate, Position, Row
from riskcast_server.store import Failure, SegmentCoverage
from tests.riskcast_server.events import DAY, LEDGER, SEGMENT, event, record

ONE, TWO = bytes(16), bytes([1] * 16)
COMPLETED, SKIPPED = pb.RECONCILE_STATUS_COMPLETED, pb.RECONCILE_STATUS_SKIPPED
PARTIAL, FAILED = pb.RECONCILE_STATUS_PARTIAL, pb.RECONCILE_STATUS_FAILED


def gap(
    count: int, settled: Iterable[int] = (), damaged: Iterable[int] = (), dropped: Iterable[int] = (), ordinal: int = 1
) -> Gap:
    segment = Segment(ordinal=ordinal, segment_id=bytes([ordinal - 1] * 16), record_count=count)
    return Gap(segment, Coverage.of(settled), Coverage.of(damaged), Coverage.of(dropped))


def concluded(
    *found: Gap,
    failures: Sequence[Failure] = (),
    divergence: str = "",
    differing: Iterable[int] = (),
    unread: Iterable[int] = (),
) -> Conclusion:
    compared = {ONE: Coverage.of(differing)}, {ONE: Coverage.of(unread)}
    return conclude(Findings(found, failures, "NOT_FETCHED", divergence, *compared))


def held(coverage: Coverage) -> set[int]:
    return {index for first, last in coverage.intervals for index in range(first, last + 1)}


some = st.sets(st.integers(1, 12))


@given(st.integers(0, 10), some, some, some, some, some)
def test_completed_means_every_record_can_be_read_and_is_stored_or_let_go(
    count: int, settled: set[int], damaged: set[int], refused: set[int], dropped: set[int], differing: set[int]
) -> None:
    everything = set(range(1, count + 1))
    damaged &= everything
    refused &= settled
    differing &= (settled & everything) - refused - damaged
    failures = [Failure(ONE, index, "INVALID_SIGNAL") for index in sorted(refused)]
    found = gap(count, settled, damaged, dropped)
    assert held(found.missing) == everything - settled - damaged
    conclusion = concluded(found, failures=failures, differing=differing)
    let_go = refused & dropped
    stored = settled - refused
    assert (conclusion.status == COMPLETED) == (everything <= stored | let_go and not damaged and not differing)
    assert conclusion.failed_record_count == len(everything - stored - let_go)
    named = {
        (sequence & 0xFFFFFFFF, each.reason)
        for each in conclusion.problems
        for sequence in range(each.sequences.first, each.sequences.last + 1)
    }
    assert named == {
        *((index, "LEDGER_DAMAGED") for index in damaged),
        *((index, "INVALID_SIGNAL") for index in (refused & everything) - damaged - dropped),
        *((index, "CONTENT_DIFFERS") for index in differing),
        *((index, "NOT_FETCHED") for index in everything - settled - damaged),
    }
    assert (conclusion.reason == "") == (conclusion.status == COMPLETED)


def test_neighbours_with_one_reason_are_one_problem() -> None:
    failures = [Failure(ONE, 1, "A"), Failure(ONE, 2, "A"), Failure(ONE, 3, "B"), Failure(ONE, 5, "A")]
    conclusion = concluded(gap(5, {1, 2, 3, 4, 5}), failures=failures)
    runs = [
        (each.sequences.first - (1 << 32), each.sequences.last - (1 << 32), each.reason) for each in conclusion.problems
    ]
    assert runs == [(1, 2, "A"), (3, 3, "B"), (5, 5, "A")]


def test_a_diverged_ledger_is_partial_even_when_nothing_is_missing() -> None:
    conclusion = concluded(gap(1, {1}), divergence="LEDGER_FORKED")
    assert conclusion.status == PARTIAL
    assert conclusion.reason.startswith("LEDGER_FORKED")


def test_a_damaged_segment_is_partial_also_where_nobody_knows_which_records_were_hit() -> None:
    found = gap(2, {1, 2})
    found.segment.is_damaged = True
    conclusion = concluded(found)
    assert (conclusion.status, conclusion.problems, conclusion.failed_record_count) == (PARTIAL, [], 0)
    assert conclusion.reason.startswith("LEDGER_DAMAGED")


def test_what_the_ledger_did_not_send_for_comparison_is_partial() -> None:
    conclusion = concluded(gap(4, {1, 2, 3, 4}, {2}), unread=[2, 3])
    assert [(each.sequences.first & 0xFF, each.reason) for each in conclusion.problems] == [
        (2, "LEDGER_DAMAGED"),
        (3, "NOT_FETCHED"),
    ]


def test_a_failure_is_named_once_whether_it_counts_as_settled_or_not() -> None:
    failures = [Failure(ONE, 1, "INVALID_SIGNAL"), Failure(ONE, 2, "SIGNAL_ID_CONFLICT")]
    conclusion = concluded(gap(2, {1}), failures=failures)
    assert [each.reason for each in conclusion.problems] == ["INVALID_SIGNAL", "SIGNAL_ID_CONFLICT"]
    assert conclusion.failed_record_count == 2


def test_damage_and_dropped_dead_letters_belong_to_the_segment_of_their_ordinal() -> None:
    held_there = GetPartitionResponse(
        segments=[
            Segment(ordinal=1, segment_id=ONE, record_count=4),
            Segment(ordinal=2, segment_id=TWO, record_count=4),
        ],
        damaged_sequences=[SequenceRange(first=2 << 32 | 2, last=2 << 32 | 3)],
        dropped_sequences=[SequenceRange(first=1 << 32 | 4, last=1 << 32 | 4)],
    )
    first, second = gaps(held_there, {ONE: Coverage.of([1])})
    assert (held(first.missing), held(second.missing)) == ({2, 3, 4}, {1, 4})
    assert (held(first.dropped), held(second.dropped)) == ({4}, set())


def test_damage_that_is_found_later_is_added_and_what_was_appended_meanwhile_is_not() -> None:
    before = GetPartitionResponse(segments=[Segment(ordinal=1, segment_id=ONE, record_count=4)])
    again = GetPartitionResponse(
        segments=[
            Segment(ordinal=1, segment_id=ONE, record_count=9, is_damaged=True),
            Segment(ordinal=2, segment_id=TWO, record_count=1),
        ],
        damaged_sequences=[SequenceRange(first=1 << 32 | 2, last=1 << 32 | 2)],
    )
    [found] = gaps(with_damage(before, again), {ONE: Coverage.of([1, 2, 3, 4])})
    assert (found.segment.record_count, found.segment.is_damaged, held(found.damaged)) == (4, True, {2})


@given(st.lists(st.tuples(st.integers(0, 6), some), min_size=1, max_size=3), st.integers(1, 3), st.integers(0, 6))
def test_what_is_left_of_what_was_missing_stands_behind_the_last_record_told(
    segments: list[tuple[int, set[int]]], ordinal: int, index: int
) -> None:
    found = [gap(count, settled, ordinal=number) for number, (count, settled) in enumerate(segments, start=1)]
    wanted = missing(found)
    left = behind(wanted, ordinal << 32 | index, found)
    places = {(each.segment.ordinal, at) for each in found for at in held(each.missing)}
    left_places = {
        (each.segment.ordinal, at) for each in found for at in held(left.get(each.segment.segment_id, Coverage()))
    }
    assert left_places == {place for place in places if place > (ordinal, index)}


@pytest.mark.parametrize("sizes", [[2_000_001], [9_000_000, 70_000], [65_536] * 200])
def test_a_run_counts_about_so_much_and_so_many_runs_as_shares_count_everything(sizes: list[int]) -> None:
    total = sum(sizes)
    shares = -(-total // COUNTED_PER_RUN)
    in_each_run = [maybe_counted_max(size, total) or 0 for size in sizes]
    assert sum(in_each_run) <= COUNTED_PER_RUN
    assert all(most * shares > size - shares for most, size in zip(in_each_run, sizes, strict=True))


def test_what_can_be_counted_in_one_run_is_counted_in_every_run() -> None:
    assert maybe_counted_max(10, 10) is None
    assert maybe_counted_max(10, COUNTED_PER_RUN) is None


@pytest.mark.parametrize(
    ("claim", "extra", "told"),
    [
        (SegmentCoverage(DAY, ONE, 1, Coverage.of([1, 2])), set(), ""),
        (SegmentCoverage(DAY, ONE, 1, Coverage.of([2, 3])), {3}, "LEDGER_REGRESSED"),
        (SegmentCoverage(DAY, TWO, 2, Coverage.of([1])), {1}, "LEDGER_REGRESSED"),
        (SegmentCoverage(DAY, TWO, 1, Coverage.of([1])), {1}, "LEDGER_FORKED"),
    ],
)
def test_what_is_settled_here_and_not_in_the_ledger_is_told_until_it_is_accepted(
    claim: SegmentCoverage, extra: set[int], told: str
) -> None:
    segments = [Segment(ordinal=1, segment_id=ONE, record_count=2)]
    found = beyond([claim], segments)
    assert {index for each in found for index in held(each.settled)} == extra
    assert divergence(unaccepted(found, {}), segments) == told
    assert divergence(unaccepted(found, {claim.segment_id: Coverage.of(extra)}), segments) == ""
    if extra:
        more = SegmentCoverage(DAY, claim.segment_id, claim.ordinal, claim.settled | Coverage.of([9]))
        now = unaccepted(beyond([more], segments), {claim.segment_id: Coverage.of(extra)})
        assert [held(each.settled) for each in now] == [{9}]


def test_a_replay_asks_for_exactly_what_is_missing_in_requests_that_a_ledger_takes() -> None:
    scattered = [gap(65_536, range(2, 65_537, 2), ordinal=ordinal) for ordinal in (1, 2)]
    whole = [gap(65_536, ordinal=ordinal) for ordinal in (3, 4)] + [gap(3 * REPLAY_RECORDS_MAX, ordinal=5)]
    asked: dict[bytes, list[tuple[int, int]]] = {}
    for ranges in replay_ranges(missing([*scattered, *whole])):
        assert ReplayRequest(partition="2026-01-29-late", ranges=ranges).ByteSize() <= 256 * 1024
        runs = [(run.first, run.last) for each in ranges for run in each.ranges]
        assert len(runs) <= REPLAY_RANGES_MAX
        assert sum(last - first + 1 for first, last in runs) <= REPLAY_RECORDS_MAX
        for each in ranges:
            asked.setdefault(each.segment_id, []).extend((run.first, run.last) for run in each.ranges)
    assert {segment_id: Coverage.spanning(runs) for segment_id, runs in asked.items()} == {
        each.segment.segment_id: each.missing for each in [*scattered, *whole]
    }


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([SKIPPED], SKIPPED),
        ([COMPLETED, SKIPPED], COMPLETED),
        ([COMPLETED, PARTIAL], PARTIAL),
        ([PARTIAL, FAILED, COMPLETED], FAILED),
    ],
)
def test_a_run_ends_as_its_worst_partition(statuses: list[int], expected: int) -> None:
    assert functools.reduce(worse, statuses) == expected


def test_content_is_compared_as_parsed_messages() -> None:
    ours = event(1)
    at = Position(LEDGER, DAY, SEGMENT, 1 << 32 | 1)
    unknown = ours.SerializeToString() + b"\xfa\x3f\x01x"  # a field of a later version
    reordered = unknown[-4:] + unknown[:-4]
    assert not differs(record(1, unknown), stored(unknown, at))
    assert not differs(record(1, unknown), stored(reordered, at))
    assert differs(record(1), stored(event(1, title="Another").SerializeToString(), at))


def test_a_row_that_stands_elsewhere_may_have_been_emitted_at_another_time_and_says_the_same() -> None:
    again = event(1)
    again.emitted_at.FromJsonString("2026-01-30T00:00:00Z")
    elsewhere = Position(LEDGER, DAY, SEGMENT, 1 << 32 | 9)
    assert not differs(record(1), stored(again.SerializeToString(), elsewhere))
    assert differs(record(1), stored(again.SerializeToString(), Position(LEDGER, DAY, SEGMENT, 1 << 32 | 1)))
    again.signal.probability = 0.75
    assert differs(record(1), stored(again.SerializeToString(), elsewhere))


def stored(encoded: bytes, at: Position) -> Row:
    """As RiskCast stores it."""
    said = SignalEvent.FromString(encoded)
    ids = said.signal_id, said.input_event_hash, ack_id(said.signal_id, said.input_event_hash)
    emitted_at, category = said.emitted_at.ToMicroseconds(), said.signal.category
    return Row(
        Candidate(*ids, encoded, emitted_at, category, said.source_event_id, at, ARRIVAL_PATH_DELIVERY), ingested_at=0
    )
