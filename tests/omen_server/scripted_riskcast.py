"""A peer that speaks IngestStream over a real connection as a script says: to be what RiskCast never should."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeAlias

import grpc

import serving
from contract.errors import ContractError, not_implemented
from contract.identity import ack_id
from omen.v1.ledger_record_pb2 import IndexRange, LedgerRecord, SegmentRanges
from omen.v1.signal_event_pb2 import SignalEvent
from riskcast.v1 import ingest_service_pb2 as pb
from riskcast.v1.ingest_service_pb2_grpc import IngestServiceServicer, add_IngestServiceServicer_to_server

SERVICE = pb.DESCRIPTOR.services_by_name["IngestService"]
DEADLINE_S = 20.0

Requests: TypeAlias = AsyncIterator[pb.IngestStreamRequest]
Script: TypeAlias = Callable[["Peer", Requests], AsyncIterator[pb.IngestStreamResponse]]
Judge: TypeAlias = Callable[[LedgerRecord], pb.RecordResult]


class ClientLeft(Exception):
    """The other side has ended the stream: so does the script."""


async def next_of(requests: Requests) -> pb.IngestStreamRequest:
    request = await anext(requests, None)
    if request is None:
        raise ClientLeft
    return request


class Peer(IngestServiceServicer):
    """Plays one script per stream, in order, the last one again and again; remembers what it was sent."""

    def __init__(self, *scripts: Script) -> None:
        self.port = 0
        self.hellos: list[pb.IngestHello] = []
        self.batches: list[list[LedgerRecord]] = []
        self.streams_opened_at: list[float] = []
        self.clients: list[str] = []  # the address of each stream's connection
        self._scripts = scripts
        self._changed = asyncio.Condition()

    @property
    def records(self) -> list[LedgerRecord]:
        return [record for batch in self.batches for record in batch]

    @property
    def ids(self) -> list[str]:
        return [SignalEvent.FromString(record.event).signal_id for record in self.records]

    def Ingest(self, request: pb.IngestRequest, context: "grpc.aio.ServicerContext[Any, Any]") -> pb.IngestResponse:
        raise not_implemented("Ingest")

    async def IngestStream(
        self, request_iterator: Requests, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> AsyncIterator[pb.IngestStreamResponse]:
        number = len(self.streams_opened_at)
        self.streams_opened_at.append(asyncio.get_running_loop().time())
        self.clients.append(context.peer())
        script = self._scripts[min(number, len(self._scripts) - 1)]
        with suppress(ClientLeft):
            async for response in script(self, aiter(request_iterator)):
                yield response

    async def next_hello(self, requests: Requests) -> pb.IngestHello:
        hello = (await next_of(requests)).hello
        self.hellos.append(hello)
        await self._notify()
        return hello

    async def next_batch(self, requests: Requests) -> list[LedgerRecord]:
        batch = list((await next_of(requests)).batch.records)
        self.batches.append(batch)
        await self._notify()
        return batch

    async def until(self, holds: Callable[["Peer"], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S), self._changed:
            await self._changed.wait_for(lambda: holds(self))

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def stored(record: LedgerRecord) -> pb.RecordResult:
    event = SignalEvent.FromString(record.event)
    return pb.RecordResult(outcome=pb.RECORD_OUTCOME_STORED, ack_id=ack_id(event.signal_id, event.input_event_hash))


def hello(settled: Mapping[bytes, Sequence[tuple[int, int]]] | None = None) -> pb.IngestStreamResponse:
    ranges = [
        SegmentRanges(segment_id=segment_id, ranges=[IndexRange(first=first, last=last) for first, last in runs])
        for segment_id, runs in (settled or {}).items()
    ]
    return pb.IngestStreamResponse(hello=pb.IngestHelloResult(settled=ranges))


def outcomes(results: Sequence[pb.RecordResult]) -> pb.IngestStreamResponse:
    return pb.IngestStreamResponse(batch=pb.IngestBatchResult(results=results))


def answering(judge: Judge = stored, settled: Mapping[bytes, Sequence[tuple[int, int]]] | None = None) -> Script:
    """Answers every record."""

    async def script(peer: Peer, requests: Requests) -> AsyncIterator[pb.IngestStreamResponse]:
        await peer.next_hello(requests)
        yield hello(settled)
        while True:
            yield outcomes([judge(record) for record in await peer.next_batch(requests)])

    return script


def when_told(may_answer: asyncio.Event) -> Script:
    """Answers from then on, and takes what comes before."""

    async def script(peer: Peer, requests: Requests) -> AsyncIterator[pb.IngestStreamResponse]:
        await peer.next_hello(requests)
        yield hello()
        waiting: asyncio.Queue[list[pb.RecordResult]] = asyncio.Queue()

        async def read() -> None:
            while True:
                waiting.put_nowait([stored(record) for record in await peer.next_batch(requests)])

        reader = asyncio.create_task(read())
        try:
            await may_answer.wait()
            while True:
                yield outcomes(await waiting.get())
        finally:
            reader.cancel()

    return script


async def hanging(peer: Peer, requests: Requests) -> AsyncIterator[pb.IngestStreamResponse]:
    """Takes everything and says nothing after the hello."""
    await peer.next_hello(requests)
    yield hello()
    while True:
        await peer.next_batch(requests)


def ending(error: ContractError | None, *, after: int, judge: Judge = stored) -> Script:
    """Ends the stream after so many answers, the hello being the first; without an error it just ends."""

    async def script(peer: Peer, requests: Requests) -> AsyncIterator[pb.IngestStreamResponse]:
        for answered in range(after + 1):
            said = await (peer.next_batch(requests) if answered else peer.next_hello(requests))
            if answered == after:
                break
            yield outcomes([judge(record) for record in said]) if isinstance(said, list) else hello()
        if error:
            raise error

    return script


@asynccontextmanager
async def peer_of(*scripts: Script, listen: str = "127.0.0.1:0") -> AsyncIterator[Peer]:
    peer = Peer(*scripts)
    mount = serving.Mount(SERVICE, partial(add_IngestServiceServicer_to_server, peer))
    async with serving.serve(listen, [mount], domain="riskcast.v1", grace_s=1.0) as running:
        peer.port = running.port
        yield peer
