"""riskcast.v1.SignalService."""

import re
from typing import Any, NoReturn, TypeAlias

import grpc

from contract.errors import ContractError, Reason, Violation, invalid_signal, not_implemented, timestamp
from contract.identity import SIGNAL_ID
from contract.validation import PARTITION, UUID
from omen.v1.ledger_record_pb2 import LedgerPosition
from omen.v1.signal_event_pb2 import SignalEvent
from riskcast.v1 import signal_service_pb2 as pb
from riskcast.v1.signal_service_pb2_grpc import SignalServiceServicer
from riskcast_server.ingest import datetime_of
from riskcast_server.settlement import Row
from riskcast_server.store import Store

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class SignalService(SignalServiceServicer):
    def __init__(self, store: Store) -> None:
        self._store = store

    async def GetSignal(self, request: pb.GetSignalRequest, context: Context) -> pb.GetSignalResponse:
        if not SIGNAL_ID.fullmatch(request.signal_id):
            raise _bad("signal_id", "must be OMEN- and 12 to 64 upper-case hex digits")
        maybe_row = await self._store.maybe_signal(request.signal_id)
        if maybe_row is None:
            metadata = {"signal_id": request.signal_id}
            raise ContractError(Reason.SIGNAL_NOT_FOUND, "no such signal is stored", metadata=metadata)
        return pb.GetSignalResponse(signal=_stored_signal(maybe_row))

    async def ListSignals(self, request: pb.ListSignalsRequest, context: Context) -> NoReturn:
        raise not_implemented("ListSignals")

    async def CountSignals(self, request: pb.CountSignalsRequest, context: Context) -> pb.CountSignalsResponse:
        _check_filter("ledger_id", request.ledger_id, UUID)
        _check_filter("partition", request.partition, PARTITION)
        counts = await self._store.count_signals(request.ledger_id, request.partition)
        partitions = [
            pb.PartitionCount(ledger_id=count.ledger_id, partition=count.partition, signal_count=count.signal_count)
            for count in counts
        ]
        total = sum(count.signal_count for count in counts)
        return pb.CountSignalsResponse(signal_count=total, partitions=partitions)


def _stored_signal(row: Row) -> pb.StoredSignal:
    at = row.signal.position
    stored = pb.StoredSignal(
        event=SignalEvent.FromString(row.signal.event),
        stored_event=row.signal.event,
        ack_id=row.signal.ack_id,
        ingested_at=timestamp(datetime_of(row.ingested_at)),
        first_arrival=pb.Arrival(path=row.signal.path, run_id=row.signal.run_id),
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
