"""riskcast.v1.IngestService."""

import asyncio
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import grpc

from contract.coverage import Coverage
from contract.errors import ContractError, Violation, invalid_signal, timestamp
from contract.limits import HELLO_RANGES_MAX, HELLO_REJECTED_MAX, HELLO_SEGMENTS_MAX, SEGMENT_ID_BYTES
from contract.pages import key_of_token, not_a_token, page_token
from contract.validation import UUID
from omen.v1.ledger_record_pb2 import IndexRange, SegmentRanges
from riskcast.v1 import ingest_service_pb2 as pb
from riskcast.v1.ingest_service_pb2_grpc import IngestServiceServicer
from riskcast.v1.signal_service_pb2 import ARRIVAL_PATH_DELIVERY
from riskcast_server.ingest import Door, Receipt, datetime_of
from riskcast_server.store import NO_PLACE, SegmentPlace, Store
from serving.telemetry.names import bind_signal

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Requests: TypeAlias = AsyncIterator[pb.IngestStreamRequest]

COUNTED_PER_HELLO = 1_000_000  # records: half a second, for which the ledger waits; Reconcile counts the rest
WINDOW_BATCHES = 4  # one commits, one is parsed, two cover the way there and back

_REJECTED_KEY = re.compile(r"([0-9a-f]{32})\|([0-9]{1,10})")


class IngestService(IngestServiceServicer):
    def __init__(self, door: Door, store: Store) -> None:
        self._door = door
        self._store = store

    async def Ingest(self, request: pb.IngestRequest, context: Context) -> pb.IngestResponse:
        event = request.event
        bind_signal(event.signal_id, event.deterministic_trace_id, event.traceparent)
        maybe_position = request.position if request.HasField("position") else None
        row = await self._door.ingest(event, maybe_position)
        stored_at = timestamp(datetime_of(row.ingested_at))
        return pb.IngestResponse(ack_id=row.signal.ack_id, ingested_at=stored_at)

    async def IngestStream(
        self, request_iterator: Requests, context: Context
    ) -> AsyncIterator[pb.IngestStreamResponse]:
        """Reads ahead while batches commit, at most WINDOW_BATCHES, and answers in order."""
        requests = aiter(request_iterator)
        hello = await _hello(requests)
        yield pb.IngestStreamResponse(hello=await self._greet(hello))
        receipts: asyncio.Queue[Receipt | None] = asyncio.Queue()
        room = asyncio.Semaphore(WINDOW_BATCHES)
        reader = asyncio.create_task(self._read(requests, hello.ledger_id, receipts, room))
        try:
            while receipt := await receipts.get():
                results = await receipt.results()
                yield pb.IngestStreamResponse(batch=pb.IngestBatchResult(results=results))
                room.release()
            await reader  # raises what ended the reading, now that all before it is answered
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _read(
        self, requests: Requests, ledger_id: str, receipts: asyncio.Queue[Receipt | None], room: asyncio.Semaphore
    ) -> None:
        """Hands every batch to the door as long as there is room; None marks the end, whatever it is."""
        try:
            await room.acquire()
            async for request in requests:
                if not request.HasField("batch"):
                    raise _bad("message", "must be a batch after the hello")
                receipts.put_nowait(self._door.receive(request.batch.records, ledger_id, ARRIVAL_PATH_DELIVERY))
                await room.acquire()
        finally:
            receipts.put_nowait(None)

    async def _greet(self, hello: pb.IngestHello) -> pb.IngestHelloResult:
        segment_ids = [each.segment_id for each in hello.segments]
        settled = await self._store.coverage(hello.ledger_id, segment_ids, counted_max=COUNTED_PER_HELLO)
        after = _rejected_before(hello.ledger_id, hello.rejected_page_token)
        places = await self._store.rejected(hello.ledger_id, after, HELLO_REJECTED_MAX)
        rejected = _by_segment_id(places)
        about = list(rejected) if hello.rejected_page_token else segment_ids
        return pb.IngestHelloResult(
            settled=_told(settled),
            settled_count=await self._store.settled_count(hello.ledger_id),
            rejected=_told({segment_id: rejected[segment_id] for segment_id in about if segment_id in rejected}),
            next_rejected_page_token=_rejected_token(hello.ledger_id, places),
        )


async def _hello(requests: Requests) -> pb.IngestHello:
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


def _by_segment_id(places: Sequence[SegmentPlace]) -> dict[bytes, Coverage]:
    indexes: defaultdict[bytes, list[int]] = defaultdict(list)
    for segment_id, index in places:
        indexes[segment_id].append(index)
    return {segment_id: Coverage.of(of_segment) for segment_id, of_segment in indexes.items()}


def _told(settled: Mapping[bytes, Coverage]) -> Iterator[SegmentRanges]:
    """What fits into one answer. The ledger sends the rest again, which ends as stored or duplicate."""
    left = HELLO_RANGES_MAX
    for segment_id, indexes in settled.items():
        if intervals := indexes.intervals[:left]:
            left -= len(intervals)
            ranges = [IndexRange(first=first, last=last) for first, last in intervals]
            yield SegmentRanges(segment_id=segment_id, ranges=ranges)


def _rejected_before(ledger_id: str, token: str) -> SegmentPlace:
    """The last rejected record of the hello before. Raises ContractError INVALID_PAGE_TOKEN."""
    if not token:
        return NO_PLACE
    if (match := _REJECTED_KEY.fullmatch(key_of_token(_rejected_query(ledger_id), token))) is None:
        raise not_a_token()
    return bytes.fromhex(match[1]), int(match[2])


def _rejected_token(ledger_id: str, places: Sequence[SegmentPlace]) -> str:
    """Where the next hello goes on; "" when all was told."""
    if len(places) < HELLO_REJECTED_MAX:
        return ""
    segment_id, index = places[-1]
    return page_token(_rejected_query(ledger_id), f"{segment_id.hex()}|{index}")


def _rejected_query(ledger_id: str) -> str:
    return f"IngestStream rejected {ledger_id}"


def _bad(field: str, description: str) -> ContractError:
    return invalid_signal([Violation(field, description)])
