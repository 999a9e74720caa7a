"""omen.v1.SignalService."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import grpc

from contract.errors import ContractError, Reason, Violation, invalid_signal, not_implemented
from contract.identity import SIGNAL_ID
from ledger import Ledger, Record
from omen.v1 import signal_service_pb2 as pb
from omen.v1 import signal_service_pb2_grpc as pb_grpc
from omen.v1.signal_event_pb2 import SignalEvent
from omen_server.delivery import Delivery
from omen_server.emission import Emitter, wait_of
from omen_server.journal import Journal
from omen_server.records import ledger_position

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class SignalService(pb_grpc.SignalServiceServicer):
    def __init__(self, emitter: Emitter, journal: Journal, delivery: Delivery) -> None:
        self._emitter = emitter
        self._journal = journal
        self._delivery = delivery
        self._scan = asyncio.Semaphore(1)  # a scan may read all of the ledger, on a thread that delivery waits for too

    async def Emit(self, request: pb.EmitRequest, context: Context) -> pb.EmitResponse:
        timeout = request.delivery_timeout if request.HasField("delivery_timeout") else None
        wait = wait_of(request.wait_for, timeout)
        return pb.EmitResponse(emission=await self._emitter.emit(request.event, wait))

    async def GetSignal(self, request: pb.GetSignalRequest, context: Context) -> pb.GetSignalResponse:
        signal_id = request.signal_id
        if not SIGNAL_ID.fullmatch(signal_id):
            raise invalid_signal([Violation("signal_id", 'must be "OMEN-" and 12 to 64 upper-case hex digits')])
        async with self._scan:
            record = await self._journal.read(lambda ledger: first_of_id(ledger, signal_id))
        if record is None:
            raise ContractError(Reason.SIGNAL_NOT_FOUND, f"no signal {signal_id} in the ledger")
        return pb.GetSignalResponse(
            event=SignalEvent.FromString(record.payload),
            stored_event=record.payload,
            position=ledger_position(self._journal.ledger_id, record.position),
            delivery_status=self._delivery.delivery_status(record.position),
        )

    def EmitStream(
        self, request_iterator: AsyncIterator[pb.EmitStreamRequest], context: Context
    ) -> AsyncIterator[pb.EmitStreamResponse]:
        raise not_implemented("EmitStream")

    def ListSignals(self, request: pb.ListSignalsRequest, context: Context) -> pb.ListSignalsResponse:
        raise not_implemented("ListSignals")

    def WatchSignals(self, request: pb.WatchSignalsRequest, context: Context) -> AsyncIterator[pb.WatchSignalsResponse]:
        raise not_implemented("WatchSignals")


def first_of_id(ledger: Ledger, signal_id: str) -> Record | None:
    """The first append of a signal, by reading the ledger from its beginning."""
    needle = signal_id.encode()
    reader = ledger.reader()
    for partition in reader.partitions():
        for record in reader.records(partition.name):
            if needle in record.payload and SignalEvent.FromString(record.payload).signal_id == signal_id:
                return record
    return None
