"""An OMEN as Reconcile sees it: the real ledger, served by the least that LedgerService must be."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import serving
from contract.errors import ContractError, Reason, not_implemented, timestamp
from ledger import Ledger, LedgerSettings, PartitionInfo, Record, SegmentState
from omen.v1 import ledger_service_pb2 as pb
from omen.v1.ledger_record_pb2 import LedgerPosition, LedgerRecord
from omen.v1.ledger_service_pb2_grpc import LedgerServiceServicer, add_LedgerServiceServicer_to_server
from omen.v1.signal_event_pb2 import SignalEvent
from riskcast.v1.ingest_service_pb2 import RecordResult
from tests.ledger.faults import NOON, Answers, append_each, flip_byte, segment_of
from tests.riskcast_server.events import DAY
from tests.riskcast_server.running import Client

BATCH = 256


class Omen(LedgerServiceServicer):
    """`asked` counts the records that were sent. `breaks_after`: Replay ends with UNAVAILABLE after so many records.
    While `gate` is not set, Replay waits. `meanwhile` happens while GetPartition's answer is on its way. `dropped`
    sequences are dead letters that an operator dropped. `is_silent`: what cannot be read is left out without a word."""

    def __init__(self, directory: Path, *, segment_records_max: int = 65_536, due: bool = True) -> None:
        self.directory = directory
        self.answers = Answers()
        settings = LedgerSettings(segment_records_max=segment_records_max, free_bytes_min=0)
        self.ledger = Ledger.open(directory, on_commit=self.answers, settings=settings, now=lambda: NOON)
        self.due_at = NOON - timedelta(days=1) if due else datetime(2099, 1, 1, tzinfo=UTC)
        self.breaks_after: int | None = None
        self.meanwhile: Callable[[], Awaitable[object]] | None = None
        self.dropped: list[int] = []
        self.is_silent = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.sent_count = 0

    def append(self, events: Sequence[SignalEvent | bytes], emitted_at: datetime = NOON) -> list[LedgerRecord]:
        payloads = [each if isinstance(each, bytes) else each.SerializeToString() for each in events]
        positions = append_each(self.ledger, self.answers, payloads, emitted_at)
        return [
            self.record(Record(position, 0, 0, payload)) for position, payload in zip(positions, payloads, strict=True)
        ]

    async def deliver(self, client: Client, records: Sequence[LedgerRecord]) -> list[RecordResult]:
        async with client.stream(ledger_id=self.ledger.ledger_id) as stream:
            await stream.send(records)
            return await stream.results()

    def damage(self, payload: bytes) -> None:
        """Flips a byte in the middle of a stored payload, and reads on so that the ledger notices."""
        path = segment_of(self.directory)
        flip_byte(path, path.read_bytes().index(payload) + len(payload) // 2)
        list(self.ledger.reader().records(DAY))

    async def ListPartitions(self, request: pb.ListPartitionsRequest, context: Any) -> pb.ListPartitionsResponse:
        """One partition a page, whatever is asked for."""
        partitions = self.ledger.partitions()
        at = int(request.page_token or 0)
        return pb.ListPartitionsResponse(
            ledger_id=self.ledger.ledger_id,
            partitions=[self.summary(each) for each in partitions[at : at + 1]],
            next_page_token=str(at + 1) if at + 1 < len(partitions) else "",
        )

    async def GetPartition(self, request: pb.GetPartitionRequest, context: Any) -> pb.GetPartitionResponse:
        info = self.ledger.partition(request.partition)
        response = pb.GetPartitionResponse(
            ledger_id=self.ledger.ledger_id,
            summary=self.summary(info),
            segments=[
                pb.Segment(
                    ordinal=each.ordinal,
                    segment_id=each.segment_id,
                    record_count=each.record_count,
                    is_damaged=each.state is SegmentState.DAMAGED,
                )
                for each in info.segments
            ],
            damaged_sequences=[
                pb.SequenceRange(first=each.ordinal << 32 | first, last=each.ordinal << 32 | last)
                for each in info.segments
                for first, last in each.damaged
            ],
            dropped_sequences=[pb.SequenceRange(first=each, last=each) for each in self.dropped],
        )
        if self.meanwhile:
            await self.meanwhile()
        return response

    async def Replay(self, request: pb.ReplayRequest, context: Any) -> AsyncIterator[pb.ReplayResponse]:
        await self.gate.wait()
        ordinals = {each.segment_id: each.ordinal for each in self.ledger.partition(request.partition).segments}
        unread = sum(each.last - each.first + 1 for asked in request.ranges for each in asked.ranges)
        for asked in request.ranges:
            ranges = [(each.first, each.last) for each in asked.ranges]
            found = list(self.ledger.reader().ranges(request.partition, ordinals[asked.segment_id], ranges))
            for start in range(0, len(found), BATCH):
                if self.breaks_after is not None and self.sent_count >= self.breaks_after:
                    raise ContractError(Reason.LEDGER_UNAVAILABLE, "the disk is gone", retry_delay_s=1)
                records = [self.record(each) for each in found[start : start + BATCH]]
                self.sent_count += len(records)
                unread -= len(records)
                yield pb.ReplayResponse(records=records)
        if unread and not self.is_silent:
            raise ContractError(Reason.LEDGER_DAMAGED, "some of the records asked for cannot be read")

    async def SealPartition(self, request: pb.SealPartitionRequest, context: Any) -> NoReturn:
        raise not_implemented("SealPartition")

    async def PrunePartition(self, request: pb.PrunePartitionRequest, context: Any) -> NoReturn:
        raise not_implemented("PrunePartition")

    def VerifyPartition(self, request: pb.VerifyPartitionRequest, context: Any) -> NoReturn:
        raise not_implemented("VerifyPartition")

    def record(self, record: Record) -> LedgerRecord:
        at = record.position
        position = LedgerPosition(
            ledger_id=self.ledger.ledger_id, partition=at.partition, segment_id=at.segment_id, sequence=at.sequence
        )
        return LedgerRecord(position=position, written_at=timestamp(NOON), event=record.payload)

    def summary(self, info: PartitionInfo) -> pb.PartitionSummary:
        return pb.PartitionSummary(
            partition=info.name,
            is_late=info.is_late,
            is_damaged=info.damaged,
            record_count=info.record_count,
            highwater_sequence=info.highwater_sequence,
            damaged_record_count=sum(last - first + 1 for each in info.segments for first, last in each.damaged),
            due_at=timestamp(self.due_at),
        )


@asynccontextmanager
async def omen(directory: Path, **settings: Any) -> AsyncIterator[tuple[Omen, str]]:
    """The OMEN and its target."""
    served = Omen(directory, **settings)
    service = pb.DESCRIPTOR.services_by_name["LedgerService"]
    mount = serving.Mount(service, partial(add_LedgerServiceServicer_to_server, served))
    try:
        async with serving.serve("127.0.0.1:0", [mount], domain="omen.v1") as running:
            yield served, running.target
    finally:
        served.ledger.close()
