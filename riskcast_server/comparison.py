"""How a partition compares, as pure functions: what is missing, what is too much, how the comparison ended.

A partition is COMPLETED only when every record that its ledger counts can be read there and is stored here, is a
duplicate of one that is, or is a dead letter that an operator dropped; when no segment is damaged; and when nothing
here stands where the ledger has nothing, unless an operator accepted that.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from google.protobuf.message import DecodeError

from contract.coverage import Coverage, Interval
from contract.identity import ack_id
from contract.limits import RECONCILE_PROBLEMS_MAX
from contract.reasons import Reason
from omen.v1.ledger_record_pb2 import IndexRange, LedgerRecord, SegmentRanges
from omen.v1.ledger_service_pb2 import GetPartitionResponse, Segment, SequenceRange
from omen.v1.signal_event_pb2 import SignalEvent
from riskcast.v1 import reconcile_service_pb2 as pb
from riskcast_server.ingest import same_content
from riskcast_server.settlement import Row
from riskcast_server.store import Failure, SegmentCoverage

# Words of a state's reason that are no error of a call.
NOT_FETCHED = "NOT_FETCHED"
CONTENT_DIFFERS = "CONTENT_DIFFERS"
LEDGER_REGRESSED = "LEDGER_REGRESSED"
LEDGER_FORKED = "LEDGER_FORKED"
PARTITION_OPEN = "PARTITION_OPEN"

INDEX_MAX = 0xFFFFFFFF  # the lower half of a sequence

GONE_FOR_GOOD = frozenset({Reason.LEDGER_DAMAGED, Reason.PARTITION_PRUNED})  # asking again will not help

REPLAY_RANGES_MAX = 5000  # 38 bytes each at most: a request stays below the 256 KiB that the ledger takes
COUNTED_PER_RUN = 2_000_000  # records: a third of a second on either store, seen on two cores
REPLAY_RECORDS_MAX = 100_000  # seconds of work: a call ends well before its connection is replaced for age


@dataclass(frozen=True, slots=True)
class Gap:
    """One segment of the ledger beside what is settled of it. `damaged` and `dropped` hold record indexes too.

    `dropped`: an operator has decided that these dead letters need not be stored; who prunes a day says so of all.
    """

    segment: Segment
    settled: Coverage
    damaged: Coverage
    dropped: Coverage

    @property
    def all_records(self) -> Coverage:
        return Coverage.up_to(self.segment.record_count)

    @property
    def missing(self) -> Coverage:
        """What is to be fetched: neither settled nor damaged."""
        return self.all_records - self.settled - self.damaged

    @property
    def readable(self) -> Coverage:
        """What is settled here and can be fetched once more, to compare."""
        return (self.all_records & self.settled) - self.damaged


def gaps(held: GetPartitionResponse, settled: Mapping[bytes, Coverage]) -> list[Gap]:
    """The segments in their order. `settled` may lack segments of which nothing is."""
    return [
        Gap(
            segment,
            settled.get(segment.segment_id, Coverage()),
            _of_segment(held.damaged_sequences, segment),
            Coverage.up_to(segment.record_count)
            if held.summary.is_pruned
            else _of_segment(held.dropped_sequences, segment),
        )
        for segment in held.segments
    ]


def with_damage(held: GetPartitionResponse, again: GetPartitionResponse) -> GetPartitionResponse:
    """What was held, with the damage that is known by now. What was appended meanwhile is left out."""
    damaged = {segment.segment_id: segment.is_damaged for segment in again.segments}
    updated = GetPartitionResponse()
    updated.CopyFrom(held)
    for segment in updated.segments:
        segment.is_damaged |= damaged.get(segment.segment_id, False)
    del updated.damaged_sequences[:]
    updated.damaged_sequences.extend(again.damaged_sequences)
    return updated


def missing(found: Iterable[Gap]) -> dict[bytes, Coverage]:
    """By segment_id, in their order; segments that lack nothing are left out."""
    return {gap.segment.segment_id: gap.missing for gap in found if gap.missing.intervals}


def joined(one: Mapping[bytes, Coverage], other: Mapping[bytes, Coverage]) -> dict[bytes, Coverage]:
    """By segment_id, what either holds."""
    nothing = Coverage()
    return {each: one.get(each, nothing) | other.get(each, nothing) for each in one.keys() | other.keys()}


def behind(wanted: Mapping[bytes, Coverage], sequence: int, found: Iterable[Gap]) -> dict[bytes, Coverage]:
    """What of `wanted` stands in the ledger behind the sequence."""
    left: dict[bytes, Coverage] = {}
    for gap in found:
        within = wanted.get(gap.segment.segment_id, Coverage()) & gap.all_records
        if (rest := within - _up_to(sequence, gap)).intervals:
            left[gap.segment.segment_id] = rest
    return left


def replay_ranges(
    wanted: Mapping[bytes, Coverage], records_max: int = REPLAY_RECORDS_MAX
) -> Iterator[list[SegmentRanges]]:
    """The records in order, in portions that one Replay can be asked for."""
    most = min(records_max, REPLAY_RECORDS_MAX)
    portion: list[tuple[bytes, Interval]] = []
    records = 0
    for segment_id, indexes in wanted.items():
        for first, last in _pieces(indexes.intervals, most):
            if portion and (len(portion) == REPLAY_RANGES_MAX or records + last - first >= most):
                yield _by_segment(portion)
                portion, records = [], 0
            portion.append((segment_id, (first, last)))
            records += last - first + 1
    if portion:
        yield _by_segment(portion)


def maybe_counted_max(record_count: int, in_scope: int) -> int | None:
    """How many settled records of a partition to count in one run, so that runs of any size take about a second.

    None is all of them. Otherwise each run counts those that were not counted for longest, so that in about as many
    runs as there are shares all are.
    """
    shares = -(-in_scope // COUNTED_PER_RUN)
    return record_count // shares if shares > 1 else None


def beyond(claims: Sequence[SegmentCoverage], segments: Sequence[Segment]) -> list[SegmentCoverage]:
    """What is settled here and the ledger does not have.

    `claims` must have been read before the ledger was asked: it grows meanwhile.
    """
    counts = {segment.segment_id: segment.record_count for segment in segments}
    left = [replace(each, settled=each.settled - Coverage.up_to(counts.get(each.segment_id, 0))) for each in claims]
    return [each for each in left if each.settled.intervals]


def confirmed(beyond_here: Iterable[SegmentCoverage], counted: Mapping[bytes, Coverage]) -> list[SegmentCoverage]:
    """What of it is settled by a count too."""
    left = [replace(each, settled=each.settled & counted.get(each.segment_id, Coverage())) for each in beyond_here]
    return [each for each in left if each.settled.intervals]


def unaccepted(beyond_here: Iterable[SegmentCoverage], accepted: Mapping[bytes, Coverage]) -> list[SegmentCoverage]:
    """What no operator knows of yet."""
    left = [replace(each, settled=each.settled - accepted.get(each.segment_id, Coverage())) for each in beyond_here]
    return [each for each in left if each.settled.intervals]


def divergence(unaccepted_here: Sequence[SegmentCoverage], segments: Sequence[Segment]) -> str:
    """LEDGER_FORKED: another file has the place of one settled here. LEDGER_REGRESSED: records are gone. Or ""."""
    if not unaccepted_here:
        return ""
    ids = {segment.ordinal: segment.segment_id for segment in segments}
    is_forked = any(ids.get(each.ordinal, each.segment_id) != each.segment_id for each in unaccepted_here)
    return LEDGER_FORKED if is_forked else LEDGER_REGRESSED


def differs(record: LedgerRecord, row: Row) -> bool:
    """Whether what is stored says something else than the ledger's record. Only parsed messages are compared.

    A row that stands elsewhere may have been emitted at another time or under more digits; its signal is the same.
    """
    try:
        in_ledger, stored = SignalEvent.FromString(record.event), SignalEvent.FromString(row.signal.event)
    except DecodeError:
        return True
    at = row.signal.held_at
    is_own = at is not None and (at.segment_id, at.sequence) == (record.position.segment_id, record.position.sequence)
    is_same = in_ledger == stored if is_own else same_content(record.event, row.signal.event)
    return not is_same or not _is_row_of(stored, row)


def _is_row_of(event: SignalEvent, row: Row) -> bool:
    """Whether the columns beside the event say what it says."""
    signal = row.signal
    expected = event.signal_id, event.input_event_hash, event.emitted_at.ToMicroseconds(), event.signal.category
    told = signal.signal_id, signal.input_event_hash, signal.emitted_at, signal.category
    of_question = event.source_event_id, ack_id(event.signal_id, event.input_event_hash)
    return expected == told and of_question == (signal.source_event_id, signal.ack_id)


WORST_LAST = (
    pb.RECONCILE_STATUS_UNSPECIFIED,
    pb.RECONCILE_STATUS_SKIPPED,
    pb.RECONCILE_STATUS_COMPLETED,
    pb.RECONCILE_STATUS_PARTIAL,
    pb.RECONCILE_STATUS_FAILED,
)


@dataclass(frozen=True, slots=True)
class Conclusion:
    """`reason` is "" when COMPLETED. `failed_record_count`: records neither stored nor duplicates."""

    status: pb.ReconcileStatus.ValueType
    reason: str
    problems: list[pb.ReconcileProblem]
    failed_record_count: int


@dataclass(frozen=True, slots=True)
class Findings:
    """What a run found of a partition. `unfetched` is why what is missing still is.

    By segment_id, where contents were compared: what says something else here, and what the ledger did not send.
    """

    gaps: Sequence[Gap]
    failures: Sequence[Failure]
    unfetched: str
    divergence: str
    differing: Mapping[bytes, Coverage]
    unread: Mapping[bytes, Coverage]


def conclude(found: Findings) -> Conclusion:
    """Judges what holds after the run.

    A damaged segment is told even where nobody knows which records were hit, or whether there were any.
    """
    problems: list[tuple[int, int, str]] = []
    failed = 0
    general = [found.divergence] if found.divergence else []
    general += [Reason.LEDGER_DAMAGED] if any(gap.segment.is_damaged for gap in found.gaps) else []
    for gap in found.gaps:
        of_gap, failed_here = _problems(gap, found)
        problems += of_gap
        failed += failed_here
    joined = _joined(sorted(problems))
    reasons_told = list(dict.fromkeys([*general, *(reason for _, _, reason in joined)]))
    status = pb.RECONCILE_STATUS_PARTIAL if reasons_told else pb.RECONCILE_STATUS_COMPLETED
    words = ", ".join(reasons_told) + (f": {failed} records that the ledger counts are not stored" if failed else "")
    named = [
        pb.ReconcileProblem(sequences=SequenceRange(first=first, last=last), reason=reason)
        for first, last, reason in joined[:RECONCILE_PROBLEMS_MAX]
    ]
    return Conclusion(status, words, named, failed)


def _problems(gap: Gap, found: Findings) -> tuple[list[tuple[int, int, str]], int]:
    """Runs of sequences with their reasons, and how many records are neither stored nor let go."""
    segment_id = gap.segment.segment_id
    reasons = {each.record_index: each.reason for each in found.failures if each.segment_id == segment_id}
    refused = Coverage.of(reasons) & gap.all_records
    failing = refused - gap.dropped
    expected = gap.all_records - (refused & gap.dropped)
    problems = _runs(gap, gap.damaged, Reason.LEDGER_DAMAGED)
    for index in _indexes(failing - gap.damaged):
        problems += _runs(gap, Coverage.of([index]), reasons[index])
    problems += _runs(gap, (gap.missing & expected) - failing, found.unfetched)
    problems += _runs(gap, found.unread.get(segment_id, Coverage()) - gap.damaged, NOT_FETCHED)
    problems += _runs(gap, found.differing.get(segment_id, Coverage()), CONTENT_DIFFERS)
    return problems, (expected - (gap.settled - failing)).count


def failed(reason: str) -> Conclusion:
    """The comparison broke off: nothing is claimed about what it did not get to."""
    return Conclusion(pb.RECONCILE_STATUS_FAILED, reason, [], 0)


def skipped() -> Conclusion:
    return Conclusion(pb.RECONCILE_STATUS_SKIPPED, f"{PARTITION_OPEN}: it still takes records", [], 0)


def worse(one: int, other: int) -> int:
    """Of two statuses. What was skipped, or never begun, is no worse than anything."""
    return max(one, other, key=WORST_LAST.index)


def _by_segment(portion: Sequence[tuple[bytes, Interval]]) -> list[SegmentRanges]:
    return [
        SegmentRanges(segment_id=segment_id, ranges=[IndexRange(first=first, last=last) for _, (first, last) in runs])
        for segment_id, runs in itertools.groupby(portion, key=lambda each: each[0])
    ]


def _pieces(intervals: Iterable[Interval], most: int) -> Iterator[Interval]:
    """None longer than what one Replay is asked for."""
    for first, last in intervals:
        for start in range(first, last + 1, most):
            yield start, min(last, start + most - 1)


def _of_segment(runs: Iterable[SequenceRange], segment: Segment) -> Coverage:
    within = [run for run in runs if run.first >> 32 == segment.ordinal]
    return Coverage.spanning((run.first & INDEX_MAX, run.last & INDEX_MAX) for run in within)


def _up_to(sequence: int, gap: Gap) -> Coverage:
    """The record indexes of the segment up to the sequence."""
    ordinal, index = sequence >> 32, sequence & INDEX_MAX
    if ordinal == gap.segment.ordinal:
        return Coverage.up_to(index)
    return gap.all_records if ordinal > gap.segment.ordinal else Coverage()


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
