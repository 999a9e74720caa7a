"""The gRPC services: thin, each method says what it asks of whom."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, NoReturn, TypeAlias

import grpc

from contract.coverage import Coverage
from contract.errors import ContractError, Reason, Violation, invalid_signal, not_implemented, timestamp
from contract.identity import SIGNAL_ID
from contract.limits import HELLO_RANGES_MAX, HELLO_SEGMENTS_MAX, SEGMENT_ID_BYTES
from contract.validation import PARTITION, UUID
from omen.v1.ledger_record_pb2 import IndexRange, LedgerPosition, SegmentRanges
from omen.v1.signal_event_pb2 import SignalEvent
from riskcast.v1 import ingest_service_pb2 as ingest_pb
from riskcast.v1 import reconcile_service_pb2 as reconcile_pb
from riskcast.v1 import signal_service_pb2 as signal_pb
from riskcast.v1.ingest_service_pb2_grpc import IngestServiceServicer
from riskcast.v1.reconcile_service_pb2_grpc import ReconcileServiceServicer
from riskcast.v1.signal_service_pb2_grpc import SignalServiceServicer
from riskcast_server.ingest import Door, Receipt, datetime_of
from riskcast_server.reconcile import Messages, Reconciler
from riskcast_server.settlement import Row
from riskcast_server.store import Store

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Requests: TypeAlias = AsyncIterator[ingest_pb.IngestStreamRequest]

WINDOW_BATCHES = 4  # one commits, one is parsed, two cover the way there and back


class IngestService(IngestServiceServicer):
    def __init__(self, door: Door, store: Store) -> None:
        self._door = door
        self._store = store

    async def Ingest(self, request: ingest_pb.IngestRequest, context: Context) -> ingest_pb.IngestResponse:
        maybe_position = request.position if request.HasField("position") else None
        row = await self._door.ingest(request.event, maybe_position)
        stored_at = timestamp(datetime_of(row.ingested_at))
        return ingest_pb.IngestResponse(ack_id=row.signal.ack_id, ingested_at=stored_at)

    async def IngestStream(
        self, request_iterator: Requests, context: Context
    ) -> AsyncIterator[ingest_pb.IngestStreamResponse]:
        """Reads ahead while batches commit, at most WINDOW_BATCHES, and answers in order."""
        requests = aiter(request_iterator)
        hello = await _hello(requests)
        yield ingest_pb.IngestStreamResponse(hello=await self._greet(hello))
        receipts: asyncio.Queue[Receipt | None] = asyncio.Queue()
        room = asyncio.Semaphore(WINDOW_BATCHES)
        reader = asyncio.create_task(self._read(requests, hello.ledger_id, receipts, room))
        try:
            while receipt := await receipts.get():
                results = await receipt.results()
                yield ingest_pb.IngestStreamResponse(batch=ingest_pb.IngestBatchResult(results=results))
                room.release()
            await reader  # raises what ended the reading, now that all before it is answered
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            while not receipts.empty():
                if unanswered := receipts.get_nowait():
                    unanswered.outcomes.cancel()  # they are committed all the same

    async def _read(
        self, requests: Requests, ledger_id: str, receipts: asyncio.Queue[Receipt | None], room: asyncio.Semaphore
    ) -> None:
        """Hands every batch to the door as long as there is room; None marks the end, whatever it is."""
        try:
            await room.acquire()
            async for request in requests:
                if not request.HasField("batch"):
                    raise _bad("message", "must be a batch after the hello")
                path = signal_pb.ARRIVAL_PATH_DELIVERY
                receipts.put_nowait(self._door.receive(request.batch.records, ledger_id, path))
                await room.acquire()
        finally:
            receipts.put_nowait(None)

    async def _greet(self, hello: ingest_pb.IngestHello) -> ingest_pb.IngestHelloResult:
        settled = await self._store.coverage(hello.ledger_id, [each.segment_id for each in hello.segments])
        return ingest_pb.IngestHelloResult(
            settled=_told(settled),
            settled_count=await self._store.settled_count(hello.ledger_id),
        )


class ReconcileService(ReconcileServiceServicer):
    def __init__(self, reconciler: Reconciler) -> None:
        self._reconciler = reconciler

    def Reconcile(self, request: reconcile_pb.ReconcileRequest, context: Context) -> Messages:
        return self._reconciler.run(request)

    async def ListReconcileStates(self, request: reconcile_pb.ListReconcileStatesRequest, context: Context) -> NoReturn:
        raise not_implemented("ListReconcileStates")

    async def AcceptDivergence(self, request: reconcile_pb.AcceptDivergenceRequest, context: Context) -> NoReturn:
        raise not_implemented("AcceptDivergence")


class SignalService(SignalServiceServicer):
    def __init__(self, store: Store) -> None:
        self._store = store

    async def GetSignal(self, request: signal_pb.GetSignalRequest, context: Context) -> signal_pb.GetSignalResponse:
        if not SIGNAL_ID.fullmatch(request.signal_id):
            raise _bad("signal_id", "must be OMEN- and 12 to 64 upper-case hex digits")
        maybe_row = await self._store.maybe_signal(request.signal_id)
        if maybe_row is None:
            metadata = {"signal_id": request.signal_id}
            raise ContractError(Reason.SIGNAL_NOT_FOUND, "no such signal is stored", metadata=metadata)
        return signal_pb.GetSignalResponse(signal=_stored_signal(maybe_row))

    async def ListSignals(self, request: signal_pb.ListSignalsRequest, context: Context) -> NoReturn:
        raise not_implemented("ListSignals")

    async def CountSignals(
        self, request: signal_pb.CountSignalsRequest, context: Context
    ) -> signal_pb.CountSignalsResponse:
        _check_filter("ledger_id", request.ledger_id, UUID)
        _check_filter("partition", request.partition, PARTITION)
        counts = await self._store.count_signals(request.ledger_id, request.partition)
        partitions = [
            signal_pb.PartitionCount(
                ledger_id=count.ledger_id, partition=count.partition, signal_count=count.signal_count
            )
            for count in counts
        ]
        total = sum(count.signal_count for count in counts)
        return signal_pb.CountSignalsResponse(signal_count=total, partitions=partitions)


async def _hello(requests: Requests) -> ingest_pb.IngestHello:
    first = await anext(requests, None)
    if first is None or not first.HasField("hello"):
        raise _bad("message", "must be a hello first")
    hello = first.hello
    if not re.fullmatch(UUID, hello.ledger_id):
        raise _bad("hello.ledger_id", "must be a UUID in lower case")
    if len(hello.segments) > HELLO_SEGMENTS_MAX:
        raise _bad("hello.segments", f"must have at most {HELLO_SEGMENTS_MAX} items, has {len(hello.segments)}")
    for index, segment in enumerate(hello.segments):
        if len(segment.segment_id) != SEGMENT_ID_BYTES:
            raise _bad(f"hello.segments[{index}].segment_id", f"must be {SEGMENT_ID_BYTES} bytes")
    return hello


def _told(settled: Mapping[bytes, Coverage]) -> Iterator[SegmentRanges]:
    """What fits into one answer. The ledger sends the rest again, which ends as stored or duplicate."""
    left = HELLO_RANGES_MAX
    for segment_id, indexes in settled.items():
        if intervals := indexes.intervals[:left]:
            left -= len(intervals)
            ranges = [IndexRange(first=first, last=last) for first, last in intervals]
            yield SegmentRanges(segment_id=segment_id, ranges=ranges)


def _stored_signal(row: Row) -> signal_pb.StoredSignal:
    at = row.signal.position
    stored = signal_pb.StoredSignal(
        event=SignalEvent.FromString(row.signal.event),
        stored_event=row.signal.event,
        ack_id=row.signal.ack_id,
        ingested_at=timestamp(datetime_of(row.ingested_at)),
        first_arrival=signal_pb.Arrival(path=row.signal.path, run_id=row.signal.run_id),
    )
    if at:
        position = LedgerPosition(
            ledger_id=at.ledger_id, partition=at.partition, segment_id=at.segment_id, sequence=at.sequence
        )
        stored.position.CopyFrom(position)
    return stored


def _check_filter(field: str, value: str, form: str) -> None:
    if value and not re.fullmatch(form, value):
        raise _bad(field, "must be in the form of the ledger's own, or empty")


def _bad(field: str, description: str) -> ContractError:
    return invalid_signal([Violation(field, description)])
