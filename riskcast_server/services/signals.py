"""riskcast.v1.SignalService."""

from typing import Any, TypeAlias

import grpc

from contract.errors import ContractError, Reason, Violation, invalid_signal
from contract.identity import SIGNAL_ID
from contract.pages import maybe_signal_key, page_size_of, signal_token
from contract.queries import check_count_signals, check_list_stored_signals
from riskcast.v1 import signal_service_pb2 as pb
from riskcast.v1.signal_service_pb2_grpc import SignalServiceServicer
from riskcast_server.store import Store
from riskcast_server.stored_signals import named, page_of, signal_query, stored_signal
from serving.telemetry.names import bind_signal

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class SignalService(SignalServiceServicer):
    def __init__(self, store: Store) -> None:
        self._store = store

    async def GetSignal(self, request: pb.GetSignalRequest, context: Context) -> pb.GetSignalResponse:
        if not SIGNAL_ID.fullmatch(request.signal_id):
            raise invalid_signal([Violation("signal_id", "must be OMEN- and 12 to 64 upper-case hex digits")])
        bind_signal(request.signal_id)
        maybe_row = await self._store.maybe_signal(request.signal_id)
        if maybe_row is None:
            metadata = {"signal_id": request.signal_id}
            raise ContractError(Reason.SIGNAL_NOT_FOUND, "no such signal is stored", metadata=metadata)
        signal = stored_signal(maybe_row)
        bind_signal(request.signal_id, signal.event.deterministic_trace_id)
        return pb.GetSignalResponse(signal=signal)

    async def ListSignals(self, request: pb.ListSignalsRequest, context: Context) -> pb.ListSignalsResponse:
        check_list_stored_signals(request)
        size = page_size_of(request.page_size)
        query = signal_query(request)
        name = named(query)
        page = await page_of(self._store, query, maybe_signal_key(name, request.page_token), size)
        next_page_token = signal_token(name, page.after) if page.after else ""
        return pb.ListSignalsResponse(signals=page.signals, next_page_token=next_page_token)

    async def CountSignals(self, request: pb.CountSignalsRequest, context: Context) -> pb.CountSignalsResponse:
        check_count_signals(request)
        counts = await self._store.count_signals(request.ledger_id, request.partition)
        partitions = [
            pb.PartitionCount(ledger_id=count.ledger_id, partition=count.partition, signal_count=count.signal_count)
            for count in counts
        ]
        total = sum(count.signal_count for count in counts)
        return pb.CountSignalsResponse(signal_count=total, partitions=partitions)
