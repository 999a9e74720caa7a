"""How a partition compares, as pure functions: what is missing, what is too much, how the comparison ended.

A partition is COMPLETED only when every record that its ledger counts can be read there and is stored here, or is a
duplicate of one that is, no segment is damaged, and nothing here claims a place that the ledger does not have.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from contract.coverage import Coverage, Interval
from contract.reasons import Reason
from omen.v1.ledger_record_pb2 import IndexRange, SegmentRanges
from omen.v1.ledger_service_pb2 import Segment, SequenceRange
from riskcast.v1 import reconcile_service_pb2 as pb
from riskcast_server.store import Failure, SegmentCoverage

# Words of a state's reason that are no error of a call.
NOT_FETCHED = "NOT_FETCHED"
LEDGER_REGRESSED = "LEDGER_REGRESSED"
LEDGER_FORKED = "LEDGER_FORKED"
PARTITION_OPEN = "PARTITION_OPEN"

GONE_FOR_GOOD = frozenset({Reason.LEDGER_DAMAGED, Reason.PARTITION_PRUNED})  # asking again will not help

PROBLEMS_MAX = 1000  # runs of sequences in one message: some 40 KiB
REPLAY_RANGES_MAX = 5000  # 38 bytes each at most: a request stays below the 256 KiB that the ledger takes
REPLAY_RECORDS_MAX = 100_000  # seconds of work: a call ends well before its connection is replaced for age


@dataclass(frozen=True, slots=True)
class Gap:
    """One segment of the ledger beside what is settled of it. `damaged` holds record indexes too."""

    segment: Segment
    settled: Coverage
    damaged: Coverage

    @property
    def all_records(self) -> Coverage:
        return Coverage.up_to(self.segment.record_count)

    @property
    def missing(self) -> Coverage:
        """What is to be fetched: neither settled nor damaged."""
        return self.all_records - self.settled - self.damaged


def gaps(segments: Iterable[Segment], damaged: Iterable[SequenceRange], settled: Mapping[bytes, Coverage]) -> list[Gap]:
    """The segments in their order. `settled` may lack segments of which nothing is."""
    runs = [(run.first >> 32, (run.first & 0xFFFFFFFF, run.last & 0xFFFFFFFF)) for run in damaged]
    return [
        Gap(
            segment,
            settled.get(segment.segment_id, Coverage()),
            Coverage.spanning(run for ordinal, run in runs if ordinal == segment.ordinal),
        )
        for segment in segments
    ]


def replay_ranges(found: Sequence[Gap]) -> Iterator[list[SegmentRanges]]:
    """The missing records in order, in portions that one Replay can be asked for."""
    portion: list[tuple[bytes, Interval]] = []
    records = 0
    for gap in found:
        for first, last in gap.missing.intervals:
            if portion and (len(portion) == REPLAY_RANGES_MAX or records + last - first >= REPLAY_RECORDS_MAX):
                yield _by_segment(portion)
                portion, records = [], 0
            portion.append((gap.segment.segment_id, (first, last)))
            records += last - first + 1
    if portion:
        yield _by_segment(portion)


def beyond(claims: Sequence[SegmentCoverage], segments: Sequence[Segment]) -> dict[bytes, Coverage]:
    """What is settled here and the ledger does not have, by segment_id.

    `claims` must have been read before the ledger was asked: it grows meanwhile.
    """
    counts = {segment.segment_id: segment.record_count for segment in segments}
    left = {each.segment_id: each.settled - Coverage.up_to(counts.get(each.segment_id, 0)) for each in claims}
    return {segment_id: indexes for segment_id, indexes in left.items() if indexes.intervals}


def divergence(
    claims: Sequence[SegmentCoverage], segments: Sequence[Segment], beyond_here: Mapping[bytes, Coverage]
) -> str:
    """LEDGER_FORKED: another file has the place of one settled here. LEDGER_REGRESSED: records are gone. Or ""."""
    if not beyond_here:
        return ""
    ids = {segment.ordinal: segment.segment_id for segment in segments}
    forked = any(ids.get(each.ordinal, each.segment_id) != each.segment_id for each in claims)
    return LEDGER_FORKED if forked else LEDGER_REGRESSED


@dataclass(frozen=True, slots=True)
class Conclusion:
    """`reason` is "" when COMPLETED. `failed_record_count`: records neither stored nor duplicates."""

    status: pb.ReconcileStatus.ValueType
    reason: str
    problems: list[pb.ReconcileProblem]
    failed_record_count: int


def conclude(found: Sequence[Gap], failures: Sequence[Failure], unfetched: str, diverged: str) -> Conclusion:
    """Judges what holds after the run. `unfetched` is why what is missing still is.

    A damaged segment is told even where nobody knows which records were hit, or whether there were any.
    """
    problems: list[tuple[int, int, str]] = []
    failed = 0
    general = [diverged] if diverged else []
    general += [Reason.LEDGER_DAMAGED] if any(gap.segment.is_damaged for gap in found) else []
    for gap in found:
        refused = [each for each in failures if each.segment_id == gap.segment.segment_id]
        failing = Coverage.of(each.record_index for each in refused) & gap.all_records
        failed += (gap.all_records - (gap.settled - failing)).count
        reasons = {each.record_index: each.reason for each in refused}
        problems += _runs(gap, gap.damaged, Reason.LEDGER_DAMAGED)
        for index in _indexes(failing - gap.damaged):
            problems += _runs(gap, Coverage.of([index]), reasons[index])
        problems += _runs(gap, gap.missing - failing, unfetched)
    joined = _joined(sorted(problems))
    reasons_told = list(dict.fromkeys([*general, *(reason for _, _, reason in joined)]))
    status = pb.RECONCILE_STATUS_PARTIAL if reasons_told else pb.RECONCILE_STATUS_COMPLETED
    words = ", ".join(reasons_told) + (f": {failed} records that the ledger counts are not stored" if failed else "")
    named = [
        pb.ReconcileProblem(sequences=SequenceRange(first=first, last=last), reason=reason)
        for first, last, reason in joined[:PROBLEMS_MAX]
    ]
    return Conclusion(status, words, named, failed)


def failed(reason: str) -> Conclusion:
    """The comparison broke off: nothing is claimed about what it did not get to."""
    return Conclusion(pb.RECONCILE_STATUS_FAILED, reason, [], 0)


def skipped() -> Conclusion:
    return Conclusion(pb.RECONCILE_STATUS_SKIPPED, f"{PARTITION_OPEN}: it still takes records", [], 0)


def run_status(statuses: Iterable[pb.ReconcileStatus.ValueType]) -> pb.ReconcileStatus.ValueType:
    """The worst of all that were compared; SKIPPED when none was."""
    seen = set(statuses)
    worst_first = (pb.RECONCILE_STATUS_FAILED, pb.RECONCILE_STATUS_PARTIAL, pb.RECONCILE_STATUS_COMPLETED)
    return next((status for status in worst_first if status in seen), pb.RECONCILE_STATUS_SKIPPED)


def _by_segment(portion: Sequence[tuple[bytes, Interval]]) -> list[SegmentRanges]:
    return [
        SegmentRanges(segment_id=segment_id, ranges=[IndexRange(first=first, last=last) for _, (first, last) in runs])
        for segment_id, runs in itertools.groupby(portion, key=lambda each: each[0])
    ]


def _runs(gap: Gap, indexes: Coverage, reason: str) -> list[tuple[int, int, str]]:
    base = gap.segment.ordinal << 32
    return [(base | first, base | last, reason) for first, last in indexes.intervals]


def _indexes(coverage: Coverage) -> Iterator[int]:
    for first, last in coverage.intervals:
        yield from range(first, last + 1)


def _joined(runs: Sequence[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Ascending runs; neighbours with the same reason become one."""
    joined: list[tuple[int, int, str]] = []
    for first, last, reason in runs:
        if joined and joined[-1][1] + 1 == first and joined[-1][2] == reason:
            joined[-1] = (joined[-1][0], last, reason)
        else:
            joined.append((first, last, reason))
    return joined
