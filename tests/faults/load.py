"""Clients that emit for as long as they are let, through every fault, and remember what they tried and were told."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import grpc

import serving
from contract.errors import ErrorDetails, timestamp
from contract.identity import fill_identity
from contract.limits import BATCH_ITEMS_MAX
from contract.versions import SCHEMA_VERSION
from ledger import LedgerReader
from omen.v1 import signal_service_pb2 as pb
from omen.v1.delivery_service_pb2 import GetDeliveryStateRequest
from omen.v1.delivery_service_pb2_grpc import DeliveryServiceStub
from omen.v1.signal_event_pb2 import SignalEvent
from omen.v1.signal_service_pb2_grpc import SignalServiceStub
from tests.faults.history import Attempt, Held, History, Row, Told
from tests.omen_server.running import event, seconds
from tests.system.processes import MOMENT_S

DEADLINE_S = 30.0
WORKERS = 32
DELIVERY_S = 0.5  # how long an emit waits for RiskCast while there are faults, which may be for ever
REPEAT_EVERY = 8  # every so many events an earlier one is sent again


@dataclass
class Load:
    """`attempts` grows while workers run; wait for more of them with `until`, or for more that RiskCast has answered
    with `until_delivered`. Each worker pauses between two of its emits, not at all when it is to do what it can."""

    attempts: list[Attempt] = field(default_factory=list)
    acknowledged: int = 0
    delivered: int = 0
    pause_s: float = 0.0
    description: str = ""  # of every event
    is_after_the_last_fault: bool = False
    is_over: bool = False
    _numbers: Any = field(default_factory=lambda: count(1))
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def until(self, acknowledged: int) -> None:
        async with asyncio.timeout(DEADLINE_S), self._changed:
            await self._changed.wait_for(lambda: self.acknowledged >= acknowledged)

    async def until_delivered(self, more: int = 1) -> None:
        """So many answers from now on that tell what RiskCast said."""
        goal = self.delivered + more
        async with asyncio.timeout(DEADLINE_S), self._changed:
            await self._changed.wait_for(lambda: self.delivered >= goal)

    def new_since(self, index: int) -> list[Attempt]:
        """Attempts that repeat none of before; a repeat may be told what RiskCast said then."""
        known = {attempt.signal_id for attempt in self.attempts[:index]}
        return [attempt for attempt in self.attempts[index:] if attempt.signal_id not in known]

    async def work(self, target: str) -> None:
        """One client with a connection of its own."""
        async with serving.channel(target) as channel:
            stub = SignalServiceStub(channel)
            while not self.is_over:
                await self._emit(stub, self._next())
                await asyncio.sleep(self.pause_s)

    def _next(self) -> SignalEvent:
        number = next(self._numbers)
        if number % REPEAT_EVERY == 0:
            return event_of(self.attempts[-1].payload) if self.attempts else complete(number, self.description)
        return complete(number, self.description)

    async def flood(self, target: str, count: int) -> None:
        """So many events in one stream, beside the workers."""
        async with serving.channel(target) as channel:
            stub: Any = SignalServiceStub(channel)
            call = stub.EmitStream(timeout=DEADLINE_S)
            for start in range(0, count, BATCH_ITEMS_MAX):
                events = [self._next() for _ in range(min(BATCH_ITEMS_MAX, count - start))]
                await call.write(pb.EmitStreamRequest(events=events, delivery_timeout=seconds(DELIVERY_S)))
                for made, result in zip(events, (await call.read()).results, strict=True):
                    assert result.HasField("emission"), result
                    await self._note(made, made.SerializeToString(), self.is_after_the_last_fault, result.emission)
            await call.done_writing()

    async def _emit(self, stub: Any, made: SignalEvent) -> None:
        is_after = self.is_after_the_last_fault
        payload = made.SerializeToString()
        request = pb.EmitRequest(event=made, delivery_timeout=seconds(20 if is_after else DELIVERY_S))
        try:
            answer = await stub.Emit(request, timeout=DEADLINE_S, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            self.attempts.append(Attempt(made.signal_id, payload, told_by(error), is_after_the_last_fault=is_after))
        else:
            await self._note(made, payload, is_after, answer.emission)

    async def _note(self, made: SignalEvent, payload: bytes, is_after: bool, emission: pb.Emission) -> None:
        place = (emission.position.partition, emission.position.sequence)
        self.attempts.append(Attempt(made.signal_id, payload, Told.ACKNOWLEDGED, place, emission.ack_id, is_after))
        async with self._changed:
            self.acknowledged += 1
            self.delivered += bool(emission.ack_id)
            self._changed.notify_all()


def complete(number: int, description: str = "") -> SignalEvent:
    """Nothing is left to derive, so that the bytes sent are the bytes appended."""
    made = event(number, emitted_at=timestamp(datetime.now(UTC)))
    made.signal.description = description
    made.schema_version = SCHEMA_VERSION
    fill_identity(made)
    return made


def event_of(payload: bytes) -> SignalEvent:
    return SignalEvent.FromString(payload)


def told_by(error: grpc.aio.AioRpcError) -> Told:
    details = ErrorDetails.from_trailing_metadata(error.trailing_metadata())
    refusing = ("SHUTTING_DOWN", "QUEUE_FULL", "LEDGER_FULL")
    return Told.REFUSED if details and details.reason in refusing else Told.UNKNOWN


@asynccontextmanager
async def under_load(
    target: str, workers: int = WORKERS, pause_s: float = 0.0, description: str = ""
) -> AsyncIterator[Load]:
    """Workers run beside the block and finish what they are at after it."""
    load = Load(pause_s=pause_s, description=description)
    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(load.work(target))
        try:
            yield load
        finally:
            load.is_over = True


async def until_drained(target: str, within_s: float = DEADLINE_S, in_flight: int = 0) -> None:
    """RiskCast has settled all of the ledger but what is in flight: under load it hardly ever has settled that too."""
    async with serving.channel(target) as channel, asyncio.timeout(within_s):
        stub: Any = DeliveryServiceStub(channel)
        backlog: int | None = None
        while backlog is None or backlog > in_flight:
            await asyncio.sleep(MOMENT_S)
            state = await stub.GetDeliveryState(GetDeliveryStateRequest(), timeout=5, wait_for_ready=True)
            backlog = state.backlog_record_count if state.HasField("backlog_record_count") else None


def history_of(attempts: list[Attempt], ledger: Path, database: Path) -> History:
    """What is in the files of both, after both have stopped."""
    reader = LedgerReader(ledger)
    held = [
        Held(info.name, record.position.sequence, event_of(record.payload).signal_id, record.payload)
        for info in reader.partitions()
        for record in reader.records(info.name)
    ]
    return History(attempts, held, rows_of(database))


def rows_of(database: Path) -> list[Row]:
    with closing(sqlite3.connect(database)) as connection:
        return [Row(*row) for row in connection.execute("SELECT signal_id, ack_id, event FROM signals")]
