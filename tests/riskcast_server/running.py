"""A real RiskCast on loopback, and what its clients ask of it."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import grpc

import serving
from contract.errors import ErrorDetails
from contract.limits import PAGE_SIZE_MAX
from omen.v1.ledger_record_pb2 import LedgerPosition, LedgerRecord
from omen.v1.signal_event_pb2 import SignalEvent
from riskcast.v1 import ingest_service_pb2 as ingest_pb
from riskcast.v1 import reconcile_service_pb2 as reconcile_pb
from riskcast.v1.ingest_service_pb2_grpc import IngestServiceStub
from riskcast.v1.reconcile_service_pb2_grpc import ReconcileServiceStub
from riskcast.v1.signal_service_pb2 import CountSignalsRequest, ListSignalsRequest, StoredSignal
from riskcast.v1.signal_service_pb2_grpc import SignalServiceStub
from riskcast_server import app
from riskcast_server.committer import committing
from riskcast_server.ingest import Door, utc_now
from riskcast_server.reconcile import Reconciler
from riskcast_server.settings import RiskcastSettings
from riskcast_server.store import Store
from tests.riskcast_server.events import LEDGER

TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Client:
    """Asks a RiskCast. Calls raise grpc.aio.AioRpcError; `refused` reads it."""

    channel: grpc.aio.Channel
    target: str = ""

    @cached_property
    def ingest_stub(self) -> Any:
        return IngestServiceStub(self.channel)

    @cached_property
    def signals(self) -> Any:
        return SignalServiceStub(self.channel)

    async def ingest(self, event: SignalEvent, position: LedgerPosition | None = None) -> ingest_pb.IngestResponse:
        request = ingest_pb.IngestRequest(event=event, position=position)
        response: ingest_pb.IngestResponse = await self.ingest_stub.Ingest(request, timeout=TIMEOUT_S)
        return response

    async def hello(
        self, *segment_ids: bytes, ledger_id: str = LEDGER, rejected_page_token: str = ""
    ) -> ingest_pb.IngestHelloResult:
        async with self.stream(*segment_ids, ledger_id=ledger_id, rejected_page_token=rejected_page_token) as stream:
            return stream.hello

    @asynccontextmanager
    async def stream(
        self, *segment_ids: bytes, ledger_id: str = LEDGER, rejected_page_token: str = ""
    ) -> AsyncIterator["Stream"]:
        call = self.ingest_stub.IngestStream(timeout=TIMEOUT_S)
        segments = [ingest_pb.SegmentCount(segment_id=each, record_count=1) for each in segment_ids]
        hello = ingest_pb.IngestHello(ledger_id=ledger_id, segments=segments, rejected_page_token=rejected_page_token)
        await call.write(ingest_pb.IngestStreamRequest(hello=hello))
        answer = await call.read()
        if answer is grpc.aio.EOF:
            await call  # raises what ended it
        stream = Stream(call, answer.hello)
        try:
            yield stream
        finally:
            call.cancel()

    async def deliver(self, records: Sequence[LedgerRecord]) -> list[ingest_pb.RecordResult]:
        """One batch on a stream of its own."""
        async with self.stream() as stream:
            await stream.send(records)
            return await stream.results()

    async def reconcile(self, **request: Any) -> list[reconcile_pb.ReconcileResponse]:
        """All messages of a run."""
        stub: Any = ReconcileServiceStub(self.channel)
        call = stub.Reconcile(reconcile_pb.ReconcileRequest(**request), timeout=TIMEOUT_S)
        return [message async for message in call]

    async def reconcile_until(
        self, count: int, stored_before_the_cut: int = 0, **request: Any
    ) -> list[reconcile_pb.ReconcileResponse]:
        """The first so many messages of a run, which is cut after them, and once so many signals are stored."""
        stub: Any = ReconcileServiceStub(self.channel)
        call = stub.Reconcile(reconcile_pb.ReconcileRequest(**request), timeout=TIMEOUT_S)
        messages = [await call.read() for _ in range(count)]
        while await self.count() < stored_before_the_cut:
            pass
        call.cancel()
        return messages

    async def states(self, **request: Any) -> list[reconcile_pb.ReconcileState]:
        """Every page of them."""
        stub: Any = ReconcileServiceStub(self.channel)
        states: list[reconcile_pb.ReconcileState] = []
        while True:
            answer = await stub.ListReconcileStates(
                reconcile_pb.ListReconcileStatesRequest(**request), timeout=TIMEOUT_S
            )
            states += answer.states
            if not answer.next_page_token:
                return states
            request["page_token"] = answer.next_page_token

    async def accept(self, ledger_id: str, reason: str) -> dict[str, int]:
        stub: Any = ReconcileServiceStub(self.channel)
        request = reconcile_pb.AcceptDivergenceRequest(ledger_id=ledger_id, reason=reason)
        answer = await stub.AcceptDivergence(request, timeout=TIMEOUT_S)
        return {each.partition: each.record_count for each in answer.accepted}

    async def listed(self) -> AsyncIterator[StoredSignal]:
        """All that is stored, page by page."""
        request = ListSignalsRequest(page_size=PAGE_SIZE_MAX)
        while True:
            page = await self.signals.ListSignals(request, timeout=TIMEOUT_S)
            for signal in page.signals:
                yield signal
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def count(self, **filters: str) -> int:
        response = await self.signals.CountSignals(CountSignalsRequest(**filters), timeout=TIMEOUT_S)
        return int(response.signal_count)


@dataclass
class Stream:
    """An IngestStream after its hello."""

    call: Any
    hello: ingest_pb.IngestHelloResult

    async def send(self, records: Sequence[LedgerRecord]) -> None:
        await self.call.write(ingest_pb.IngestStreamRequest(batch=ingest_pb.IngestBatch(records=records)))

    async def results(self) -> list[ingest_pb.RecordResult]:
        """Of the next batch. Raises what ended the stream instead."""
        answer = await self.call.read()
        if answer is grpc.aio.EOF:
            await self.call
            code, details = await self.call.code(), await self.call.details()
            raise AssertionError(f"the stream ended: {code} {details}")
        return list(answer.batch.results)


def refused(error: grpc.aio.AioRpcError) -> ErrorDetails:
    """The rich status of a failed call."""
    found = ErrorDetails.from_trailing_metadata(error.trailing_metadata())
    assert found is not None, error
    return found


@asynccontextmanager
async def riskcast(at: Path | str, **settings: Any) -> AsyncIterator[Client]:
    """A whole RiskCast in this process, on a file in a directory or on the database of a URL."""
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    told = RiskcastSettings(listen="127.0.0.1:0", database_url=at if isinstance(at, str) else url(at), **settings)
    server = asyncio.create_task(app.serve(told, stop, ready.set_result))
    await asyncio.wait([server, ready], return_when=asyncio.FIRST_COMPLETED)
    if server.done():
        await server
    try:
        async with serving.channel(f"127.0.0.1:{ready.result()}") as channel:
            yield Client(channel, f"127.0.0.1:{ready.result()}")
    finally:
        stop.set()
        await server


@asynccontextmanager
async def served(store: Store) -> AsyncIterator[Client]:
    """The same services around a store that the test has opened."""
    async with committing(store, utc_now) as committer:
        door = Door(committer, utc_now)
        mounts = app.mounts(store, door, Reconciler(store, door, [], utc_now))
        async with (
            serving.serve("127.0.0.1:0", mounts, domain=app.DOMAIN) as running,
            serving.channel(running.target) as channel,
        ):
            yield Client(channel, running.target)


def url(directory: Path) -> str:
    return f"sqlite:///{database(directory)}"


def database(directory: Path) -> Path:
    return directory / "riskcast.db"


def sql(directory: Path, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Run beside the server, as an operator might, and committed."""
    connection = sqlite3.connect(database(directory))
    try:
        with connection:
            return connection.execute(statement, values).fetchall()
    finally:
        connection.close()
