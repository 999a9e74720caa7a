"""How a comparison ends, by table and against Python's own sets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.coverage import Coverage
from omen.v1.ledger_service_pb2 import ReplayRequest, Segment, SequenceRange
from riskcast.v1 import reconcile_service_pb2 as pb
from riskcast_server.comparison import (
    REPLAY_RANGES_MAX,
    REPLAY_RECORDS_MAX,
    Gap,
    beyond,
    conclude,
    divergence,
    gaps,
    replay_ranges,
    run_status,
)
from riskcast_server.store import Failure, SegmentCoverage
from tests.riskcast_server.events import DAY

ONE, TWO = bytes(16), bytes([1] * 16)
COMPLETED, SKIPPED = pb.RECONCILE_STATUS_COMPLETED, pb.RECONCILE_STATUS_SKIPPED
PARTIAL, FAILED = pb.RECONCILE_STATUS_PARTIAL, pb.RECONCILE_STATUS_FAILED


def gap(count: int, settled: set[int], damaged: set[int]) -> Gap:
    segment = Segment(ordinal=1, segment_id=ONE, record_count=count)
    return Gap(segment, Coverage.of(settled), Coverage.of(damaged))


def held(coverage: Coverage) -> set[int]:
    return {index for first, last in coverage.intervals for index in range(first, last + 1)}


some = st.sets(st.integers(1, 12))


@given(st.integers(0, 10), some, some, some)
def test_completed_means_every_record_can_be_read_and_is_stored(
    count: int, settled: set[int], damaged: set[int], refused: set[int]
) -> None:
    everything = set(range(1, count + 1))
    damaged &= everything
    refused &= settled
    failures = [Failure(ONE, index, "INVALID_SIGNAL") for index in sorted(refused)]
    found = gap(count, settled, damaged)
    assert held(found.missing) == everything - settled - damaged
    conclusion = conclude([found], failures, "NOT_FETCHED", "")
    stored = settled - refused
    assert (conclusion.status == COMPLETED) == (everything <= stored and not damaged)
    assert conclusion.failed_record_count == len(everything - stored)
    named = {
        (sequence & 0xFFFFFFFF, each.reason)
        for each in conclusion.problems
        for sequence in range(each.sequences.first, each.sequences.last + 1)
    }
    assert named == {
        *((index, "LEDGER_DAMAGED") for index in damaged),
        *((index, "INVALID_SIGNAL") for index in (refused & everything) - damaged),
        *((index, "NOT_FETCHED") for index in everything - settled - damaged),
    }
    assert (conclusion.reason == "") == (conclusion.status == COMPLETED)


def test_neighbours_with_one_reason_are_one_problem() -> None:
    failures = [Failure(ONE, 1, "A"), Failure(ONE, 2, "A"), Failure(ONE, 3, "B"), Failure(ONE, 5, "A")]
    conclusion = conclude([gap(5, {1, 2, 3, 4, 5}, set())], failures, "NOT_FETCHED", "")
    runs = [
        (each.sequences.first - (1 << 32), each.sequences.last - (1 << 32), each.reason) for each in conclusion.problems
    ]
    assert runs == [(1, 2, "A"), (3, 3, "B"), (5, 5, "A")]


def test_a_diverged_ledger_is_partial_even_when_nothing_is_missing() -> None:
    conclusion = conclude([gap(1, {1}, set())], [], "NOT_FETCHED", "LEDGER_FORKED")
    assert conclusion.status == PARTIAL
    assert conclusion.reason.startswith("LEDGER_FORKED")


def test_a_damaged_segment_is_partial_also_where_nobody_knows_which_records_were_hit() -> None:
    found = gap(2, {1, 2}, set())
    found.segment.is_damaged = True
    conclusion = conclude([found], [], "NOT_FETCHED", "")
    assert (conclusion.status, conclusion.problems, conclusion.failed_record_count) == (PARTIAL, [], 0)
    assert conclusion.reason.startswith("LEDGER_DAMAGED")


def test_a_failure_is_named_once_whether_it_counts_as_settled_or_not() -> None:
    failures = [Failure(ONE, 1, "INVALID_SIGNAL"), Failure(ONE, 2, "SIGNAL_ID_CONFLICT")]
    conclusion = conclude([gap(2, {1}, set())], failures, "NOT_FETCHED", "")
    assert [each.reason for each in conclusion.problems] == ["INVALID_SIGNAL", "SIGNAL_ID_CONFLICT"]
    assert conclusion.failed_record_count == 2


def test_damage_belongs_to_the_segment_of_its_ordinal() -> None:
    segments = [Segment(ordinal=1, segment_id=ONE, record_count=4), Segment(ordinal=2, segment_id=TWO, record_count=4)]
    first, second = gaps(segments, [SequenceRange(first=2 << 32 | 2, last=2 << 32 | 3)], {ONE: Coverage.of([1])})
    assert (held(first.missing), held(second.missing)) == ({2, 3, 4}, {1, 4})


@pytest.mark.parametrize(
    ("claims", "extra", "told"),
    [
        ([SegmentCoverage(DAY, ONE, 1, Coverage.of([1, 2]))], {}, ""),
        ([SegmentCoverage(DAY, ONE, 1, Coverage.of([2, 3]))], {ONE: {3}}, "LEDGER_REGRESSED"),
        ([SegmentCoverage(DAY, TWO, 2, Coverage.of([1]))], {TWO: {1}}, "LEDGER_REGRESSED"),
        ([SegmentCoverage(DAY, TWO, 1, Coverage.of([1]))], {TWO: {1}}, "LEDGER_FORKED"),
    ],
)
def test_what_is_settled_here_and_not_in_the_ledger_is_told(
    claims: list[SegmentCoverage], extra: dict[bytes, set[int]], told: str
) -> None:
    segments = [Segment(ordinal=1, segment_id=ONE, record_count=2)]
    found = beyond(claims, segments)
    assert {segment_id: held(indexes) for segment_id, indexes in found.items()} == extra
    assert divergence(claims, segments, found) == told


def test_a_replay_asks_for_exactly_what_is_missing_in_requests_that_a_ledger_takes() -> None:
    scattered = [
        Gap(
            Segment(ordinal=number, segment_id=number.to_bytes(16), record_count=65_536),
            Coverage.of(range(2, 65_537, 2)),
            Coverage(),
        )
        for number in (1, 2)
    ]
    whole = [
        Gap(Segment(ordinal=number, segment_id=number.to_bytes(16), record_count=65_536), Coverage(), Coverage())
        for number in (3, 4)
    ]
    asked: dict[bytes, list[tuple[int, int]]] = {}
    for ranges in replay_ranges([*scattered, *whole]):
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
        ([], SKIPPED),
        ([COMPLETED, COMPLETED], COMPLETED),
        ([COMPLETED, PARTIAL], PARTIAL),
        ([PARTIAL, FAILED, COMPLETED], FAILED),
    ],
)
def test_a_run_ends_as_its_worst_partition(
    statuses: list[pb.ReconcileStatus.ValueType], expected: pb.ReconcileStatus.ValueType
) -> None:
    assert run_status(statuses) == expected
