"""A real OMEN and a real RiskCast on loopback, in this process, and what their clients ask of them."""

import asyncio
import math
import socket
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

import omen_server.app
import riskcast_server.app
import serving
from contract.errors import ErrorDetails
from ledger import LedgerReader, Record
from omen.v1 import ledger_service_pb2 as ledger_pb
from omen.v1 import signal_service_pb2 as pb
from omen.v1.delivery_service_pb2 import GetDeliveryStateRequest, GetDeliveryStateResponse
from omen.v1.delivery_service_pb2_grpc import DeliveryServiceStub
from omen.v1.ledger_record_pb2 import LedgerRecord
from omen.v1.ledger_service_pb2_grpc import LedgerServiceStub
from omen.v1.pipeline_service_pb2_grpc import PipelineServiceStub
from omen.v1.signal_event_pb2 import SignalEvent
from omen.v1.signal_service_pb2_grpc import SignalServiceStub
from omen_server.settings import OmenSettings
from riskcast.v1 import signal_service_pb2 as stored_pb
from riskcast.v1.signal_service_pb2_grpc import SignalServiceStub as StoredSignalsStub
from riskcast_server.settings import RiskcastSettings
from serving.security import PLAIN, ClientSecurity
from tests.riskcast_server.events import event as event_of_a_ledger
from tests.system.processes import MOMENT_S

DEADLINE_S = 20.0
IN_FLIGHT_MAX = 200  # below the streams a server allows per connection, which a new connection does not know yet

DELIVERED = pb.EMISSION_STATUS_DELIVERED
DUPLICATE = pb.EMISSION_STATUS_DUPLICATE
LEDGER_ONLY = pb.EMISSION_STATUS_LEDGER_ONLY
REJECTED = pb.EMISSION_STATUS_REJECTED


def event(number: int, *, emitted_at: Timestamp | None = None, title: str = "Will it close?") -> SignalEvent:
    """As a producer sends it: what can be derived is left out."""
    made = event_of_a_ledger(number, title=title)
    for derivable in ("schema_version", "signal_id", "deterministic_trace_id", "emitted_at"):
        made.ClearField(derivable)
    if emitted_at:
        made.emitted_at.CopyFrom(emitted_at)
    return made


def seconds(count: float) -> Duration:
    return Duration(seconds=int(count), nanos=round(math.fmod(count, 1) * 1e9))


@dataclass(frozen=True)
class Omen:
    """A client of one. Calls raise grpc.aio.AioRpcError; `refusal` reads it."""

    channel: grpc.aio.Channel
    port: int
    directory: Path
    task: asyncio.Task[None]
    in_flight: asyncio.Semaphore

    @cached_property
    def signals(self) -> Any:
        return SignalServiceStub(self.channel)

    @cached_property
    def pipeline(self) -> Any:
        return PipelineServiceStub(self.channel)

    @cached_property
    def ledger(self) -> Any:
        return LedgerServiceStub(self.channel)

    @cached_property
    def delivery(self) -> Any:
        return DeliveryServiceStub(self.channel)

    async def emit(self, made: SignalEvent, **request: Any) -> pb.Emission:
        async with self.in_flight:
            answer = await self.signals.Emit(pb.EmitRequest(event=made, **request), timeout=DEADLINE_S)
        emission: pb.Emission = answer.emission
        return emission

    async def to_ledger(self, *numbers: int) -> list[pb.Emission]:
        """Emits events one after the other, waiting for the ledger alone."""
        return [await self.emit(event(number), wait_for=pb.WAIT_FOR_LEDGER) for number in numbers]

    async def state(self) -> GetDeliveryStateResponse:
        state: GetDeliveryStateResponse = await self.delivery.GetDeliveryState(
            GetDeliveryStateRequest(), timeout=DEADLINE_S
        )
        return state

    async def until_state(self, holds: Callable[[GetDeliveryStateResponse], bool]) -> GetDeliveryStateResponse:
        """The first delivery state for which it holds."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                state = await self.state()
                if holds(state):
                    return state
                await asyncio.sleep(MOMENT_S)

    async def until_drained(self) -> None:
        await self.until_state(lambda state: state.HasField("backlog_record_count") and not state.backlog_record_count)

    async def records(self) -> list[LedgerRecord]:
        """What the ledger holds now, as it says itself; a reader of the files is up to an idle mark behind."""
        partitions = await self.ledger.ListPartitions(ledger_pb.ListPartitionsRequest(), timeout=DEADLINE_S)
        return [
            record
            for partition in partitions.partitions
            async for message in self.replay(partition.partition)
            for record in message.records
        ]

    def replay(self, partition: str, **request: Any) -> Any:
        """The call, an iterator of ReplayResponses."""
        return self.ledger.Replay(ledger_pb.ReplayRequest(partition=partition, **request), timeout=DEADLINE_S)


def records_of(directory: Path) -> list[Record]:
    """What the files of a ledger hold whose server has stopped, read as an auditor would."""
    reader = LedgerReader(directory)
    return [record for info in reader.partitions() for record in reader.records(info.name)]


@asynccontextmanager
async def omen(
    directory: Path,
    riskcast_port: int,
    *,
    listen: str = "127.0.0.1:0",
    client: ClientSecurity = PLAIN,
    **settings: Any,
) -> AsyncIterator[Omen]:
    """A whole OMEN. Leaving stops it, and raises what ended it unless the test has awaited that itself."""
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    told = OmenSettings(listen=listen, ledger_dir=directory, riskcast_target=f"127.0.0.1:{riskcast_port}", **settings)
    task = asyncio.create_task(omen_server.app.serve(told, stop, ready.set_result))
    await started(task, ready)
    try:
        async with serving.channel(f"127.0.0.1:{ready.result()}", client) as channel:
            yield Omen(channel, ready.result(), directory, task, asyncio.Semaphore(IN_FLIGHT_MAX))
    finally:
        stop.set()
        await asyncio.wait([task])
    if task.exception() is None:
        await task


@dataclass(frozen=True)
class Riskcast:
    """A client of one."""

    signals: Any
    port: int
    database: Path
    channel: grpc.aio.Channel

    def ids(self) -> list[str]:
        """The signal_id of every row, as its file says."""
        with closing(sqlite3.connect(self.database)) as connection:
            return [row[0] for row in connection.execute("SELECT signal_id FROM signals")]

    async def count(self) -> int:
        answer = await self.signals.CountSignals(stored_pb.CountSignalsRequest(), timeout=DEADLINE_S)
        return int(answer.signal_count)

    async def stored(self, signal_id: str) -> Any:
        request = stored_pb.GetSignalRequest(signal_id=signal_id)
        return (await self.signals.GetSignal(request, timeout=DEADLINE_S)).signal


@asynccontextmanager
async def riskcast(
    database: Path, port: int = 0, *, client: ClientSecurity = PLAIN, **settings: Any
) -> AsyncIterator[Riskcast]:
    """A whole RiskCast on a SQLite file."""
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    told = RiskcastSettings(listen=f"127.0.0.1:{port}", database_url=f"sqlite:///{database}", **settings)
    task = asyncio.create_task(riskcast_server.app.serve(told, stop, ready.set_result))
    await started(task, ready)
    try:
        async with serving.channel(f"127.0.0.1:{ready.result()}", client) as channel:
            yield Riskcast(StoredSignalsStub(channel), ready.result(), database, channel)
    finally:
        stop.set()
        await task


async def started(task: asyncio.Task[None], ready: asyncio.Future[int]) -> None:
    waited: list[asyncio.Future[Any]] = [task, ready]
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task


def closed_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def refusal(call: Awaitable[object]) -> ErrorDetails:
    """The rich status a call fails with; an answer is an error of the test."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    details = ErrorDetails.from_trailing_metadata(caught.value.trailing_metadata())
    assert details is not None, caught.value
    assert (details.code, details.domain) == (caught.value.code().value[0], "omen.v1")
    return details
