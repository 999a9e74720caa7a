"""An OMEN as RiskCast's Reconcile sees it: the public surface of riskcast_server.ledger_client.LedgerClient."""

from collections import defaultdict
from collections.abc import AsyncGenerator, Iterator, Sequence
from datetime import timedelta
from typing import cast

from contract.errors import timestamp
from contract.reasons import Reason
from omen.v1.ledger_record_pb2 import LedgerRecord, SegmentRanges
from omen.v1.ledger_service_pb2 import GetPartitionResponse, PartitionSummary, SequenceRange
from omen.v1.ledger_service_pb2 import Segment as SegmentSummary
from riskcast_server.ledger_client import LedgerBroke, LedgerClient, Survey
from tests.riskcast_server.events import DAY, NOON
from tests.riskcast_server.simulation.ledger import Held, Segment, SimulatedLedger
from tests.riskcast_server.simulation.world import Fault, World

TODAY = DAY  # still takes records; all other partitions are due


class LedgerReader:
    """`snapshots` holds, by partition, the segments that were told last: by them a comparison is to be judged."""

    def __init__(self, world: World, ledger: SimulatedLedger) -> None:
        self._world = world
        self.ledger = ledger
        self.target = "simulated"
        self.ledger_id = ""  # as it was told last
        self.snapshots: dict[str, list[Segment]] = {}

    async def survey(self) -> Survey:
        await self._world.travel()
        client = cast("LedgerClient", self)
        if self._world.happens(Fault.LEDGER_UNREACHABLE):
            return Survey(client, self.ledger_id, failure="UNAVAILABLE: it cannot be read")
        self.ledger_id = self.ledger.ledger_id
        summaries = [_summary(name, segments) for name, segments in sorted(self.ledger.partitions.items())]
        return Survey(client, self.ledger_id, summaries)

    async def partition(self, name: str) -> GetPartitionResponse:
        await self._world.travel()
        if self._world.happens(Fault.LEDGER_SILENT):
            raise LedgerBroke("DEADLINE_EXCEEDED", "it does not answer")
        if name not in self.ledger.partitions:
            raise LedgerBroke(Reason.PARTITION_NOT_FOUND, name)
        segments = self.snapshots[name] = [segment.copy() for segment in self.ledger.partitions[name]]
        await self._world.travel()
        return GetPartitionResponse(
            ledger_id=self.ledger_id,
            summary=_summary(name, segments),
            segments=[_told(segment) for segment in segments],
            damaged_sequences=[run for segment in segments for run in _damaged(segment)],
        )

    async def replay(self, name: str, ranges: Sequence[SegmentRanges]) -> AsyncGenerator[Sequence[LedgerRecord], None]:
        """Damage is told after the records that could be read, as the real one does."""
        await self._world.travel()
        asked = _indexes(ranges)
        segments = {segment.segment_id: segment for segment in self.ledger.partitions.get(name, [])}
        if not asked.keys() <= segments.keys():
            raise LedgerBroke(Reason.INVALID_SIGNAL, "no such segment")
        for segment_id, indexes in asked.items():
            readable = [record for record in segments[segment_id].readable if record.index in indexes]
            for batch in self._batches(readable):
                await self._world.travel()
                if self._world.happens(Fault.REPLAY_BROKEN):
                    raise LedgerBroke("UNAVAILABLE", "the connection was reset")
                yield [record.on_the_wire() for record in batch]
        if any(segments[segment_id].damaged & indexes for segment_id, indexes in asked.items()):
            raise LedgerBroke(Reason.LEDGER_DAMAGED, "some cannot be read")

    def _batches(self, records: Sequence[Held]) -> Iterator[Sequence[Held]]:
        at = 0
        while at < len(records):
            size = self._world.chance.randint(1, 6)
            yield records[at : at + size]
            at += size


def _summary(name: str, segments: Sequence[Segment]) -> PartitionSummary:
    return PartitionSummary(
        partition=name,
        is_late=name.endswith("-late"),
        is_damaged=any(segment.damaged for segment in segments),
        record_count=sum(len(segment.records) for segment in segments),
        highwater_sequence=segments[-1].records[-1].sequence if segments else 0,
        damaged_record_count=sum(len(segment.damaged) for segment in segments),
        due_at=timestamp(NOON + timedelta(days=1 if name == TODAY else -1)),
    )


def _told(segment: Segment) -> SegmentSummary:
    return SegmentSummary(
        ordinal=segment.ordinal,
        segment_id=segment.segment_id,
        record_count=len(segment.records),
        is_damaged=bool(segment.damaged),
    )


def _damaged(segment: Segment) -> Iterator[SequenceRange]:
    for index in sorted(segment.damaged):
        yield SequenceRange(first=segment.ordinal << 32 | index, last=segment.ordinal << 32 | index)


def _indexes(ranges: Sequence[SegmentRanges]) -> dict[bytes, set[int]]:
    asked: defaultdict[bytes, set[int]] = defaultdict(set)
    for each in ranges:
        for run in each.ranges:
            asked[each.segment_id] |= set(range(run.first, run.last + 1))
    return dict(asked)
