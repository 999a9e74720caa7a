"""Which records a replay sends, and in what portions. Synchronous: it reads files, so it runs on a thread."""

from collections.abc import Iterable, Iterator, Sequence

from contract.errors import ContractError, Reason, Violation, invalid_signal
from contract.limits import BATCH_BYTES_MAX, BATCH_ITEMS_MAX, REPLAY_RANGES_BYTES_MAX
from ledger import LedgerReader, PartitionInfo, Record, SegmentInfo
from ledger.positions import IndexRange, merge_ranges, sequence_of
from omen.v1.ledger_record_pb2 import SegmentRanges
from omen.v1.ledger_service_pb2 import ReplayRequest


def replayed(reader: LedgerReader, info: PartitionInfo, request: ReplayRequest) -> Iterator[list[Record]]:
    """The records that `request` asks of the partition, in the order of their sequence, in portions for one message.

    Raises ContractError: INVALID_SIGNAL for a bad request, and after the last portion LEDGER_DAMAGED when ranges asked
    for records that cannot be read.
    """
    if 0 < request.from_sequence < sequence_of(1, 0):
        raise invalid_signal([Violation("from_sequence", "must be (segment ordinal << 32) | record index")])
    if not request.ranges:
        return portions(reader.records(info.name, from_sequence=request.from_sequence))
    return _ranges(reader, info, wanted(info, request))


def wanted(info: PartitionInfo, request: ReplayRequest) -> list[tuple[SegmentInfo, list[IndexRange]]]:
    """The ranges asked for, by segment in the order of the ledger, cut to what is durable."""
    if request.from_sequence:
        raise invalid_signal([Violation("from_sequence", "must not be set together with ranges")])
    if request.ByteSize() > REPLAY_RANGES_BYTES_MAX:
        raise invalid_signal([Violation("ranges", f"must be at most {REPLAY_RANGES_BYTES_MAX} bytes")])
    segments = {segment.segment_id: segment for segment in info.segments}
    violations = [
        violation for place, asked in enumerate(request.ranges) for violation in flaws(place, asked, segments)
    ]
    if violations:
        raise invalid_signal(violations)
    by_segment: dict[int, list[IndexRange]] = {}
    for asked in request.ranges:
        segment = segments[asked.segment_id]
        by_segment.setdefault(segment.ordinal, []).extend((run.first, run.last) for run in asked.ranges)
    ordinals = {segment.ordinal: segment for segment in info.segments}
    return [(ordinals[ordinal], runs) for ordinal, runs in sorted(by_segment.items())]


def flaws(place: int, asked: SegmentRanges, segments: dict[bytes, SegmentInfo]) -> Iterator[Violation]:
    segment = segments.get(asked.segment_id)
    if segment is None:
        yield Violation(f"ranges[{place}].segment_id", "is no segment of this partition")
        return
    for index, run in enumerate(asked.ranges):
        if not 1 <= run.first <= run.last <= segment.record_count:
            yield Violation(
                f"ranges[{place}].ranges[{index}]", f"must lie within 1 to {segment.record_count}, first not after last"
            )


def portions(records: Iterable[Record]) -> Iterator[list[Record]]:
    """At most 256 records and 1 MiB of payload each, unless a single record is larger."""
    portion: list[Record] = []
    size = 0
    for record in records:
        if portion and (len(portion) == BATCH_ITEMS_MAX or size + len(record.payload) > BATCH_BYTES_MAX):
            yield portion
            portion, size = [], 0
        portion.append(record)
        size += len(record.payload)
    if portion:
        yield portion


def _ranges(
    reader: LedgerReader, info: PartitionInfo, asked: Sequence[tuple[SegmentInfo, list[IndexRange]]]
) -> Iterator[list[Record]]:
    unreadable: list[str] = []
    yield from portions(
        record
        for segment, runs in asked
        for run in merge_ranges(tuple(runs))
        for record in _run(reader, segment, run, unreadable)
    )
    if unreadable:
        metadata = {"partition": info.name, "sequences": ",".join(unreadable)}
        raise ContractError(Reason.LEDGER_DAMAGED, "some of the records asked for cannot be read", metadata=metadata)


def _run(reader: LedgerReader, segment: SegmentInfo, run: IndexRange, unreadable: list[str]) -> Iterator[Record]:
    """The records of a run; the sequences of those that cannot be read are added to `unreadable`, as "7" or "7-9"."""
    expected, last = run
    for record in reader.ranges(segment.partition, segment.ordinal, [run]):
        index = record.position.record_index
        unreadable.extend(sequences(segment.ordinal, expected, index - 1))
        yield record
        expected = index + 1
    unreadable.extend(sequences(segment.ordinal, expected, last))


def sequences(ordinal: int, first: int, last: int) -> Iterator[str]:
    if first < last:
        yield f"{sequence_of(ordinal, first)}-{sequence_of(ordinal, last)}"
    elif first == last:
        yield str(sequence_of(ordinal, first))
