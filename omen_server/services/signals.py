"""omen.v1.SignalService."""

from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import grpc

from contract.errors import Violation, invalid_signal
from contract.identity import SIGNAL_ID
from contract.limits import BATCH_BYTES_MAX, BATCH_ITEMS_MAX
from contract.pages import maybe_signal_key, page_size_of, signal_token
from contract.queries import check_list_signals
from ledger import Position
from omen.v1 import signal_service_pb2 as pb
from omen.v1 import signal_service_pb2_grpc as pb_grpc
from omen.v1.signal_event_pb2 import SignalEvent
from omen_server.appends import place_of
from omen_server.dead_letters import DeadLetters
from omen_server.delivery import Delivery
from omen_server.emission import Emitter, Wait, wait_of
from omen_server.reading.stored_signals import StoredSignals, index_query, named
from omen_server.reading.watching import Watching
from omen_server.records import ledger_position
from serving.tasks import answered_in_order
from serving.telemetry.names import bind_signal

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


# Messages of one stream whose events are on their way; the next one is read when the oldest is answered. One is in the
# ledger's hands, one in RiskCast's, two cover the way there and back.
EMITTED_AT_ONCE = 4


class SignalService(pb_grpc.SignalServiceServicer):
    def __init__(
        self,
        emitter: Emitter,
        stored: StoredSignals,
        watching: Watching,
        delivery: Delivery,
        letters: DeadLetters,
        ledger_id: str,
    ) -> None:
        self._emitter = emitter
        self._stored = stored
        self._watching = watching
        self._delivery = delivery
        self._letters = letters
        self._ledger_id = ledger_id

    async def Emit(self, request: pb.EmitRequest, context: Context) -> pb.EmitResponse:
        return pb.EmitResponse(emission=await self._emitter.emit(request.event, asked_wait(request)))

    async def EmitStream(
        self, request_iterator: AsyncIterator[pb.EmitStreamRequest], context: Context
    ) -> AsyncIterator[pb.EmitStreamResponse]:
        async for response in answered_in_order(checked_batches(request_iterator), self._emit_each, EMITTED_AT_ONCE):
            yield response

    async def _emit_each(self, request: pb.EmitStreamRequest) -> pb.EmitStreamResponse:
        return await self._emitter.emit_each(request.events, asked_wait(request))

    async def GetSignal(self, request: pb.GetSignalRequest, context: Context) -> pb.GetSignalResponse:
        signal_id = request.signal_id
        if not SIGNAL_ID.fullmatch(signal_id):
            raise invalid_signal([Violation("signal_id", 'must be "OMEN-" and 12 to 64 upper-case hex digits')])
        bind_signal(signal_id)
        record = await self._stored.get(signal_id)
        event = SignalEvent.FromString(record.payload)
        bind_signal(signal_id, event.deterministic_trace_id)
        return pb.GetSignalResponse(
            event=event,
            stored_event=record.payload,
            position=ledger_position(self._ledger_id, record.position),
            delivery_status=self._delivery_status(record.position),
        )

    def _delivery_status(self, position: Position) -> "pb.DeliveryStatus.ValueType":
        """A dead letter is one even before RiskCast has been asked, and while it is sent again."""
        if place_of(position) in self._letters:
            return pb.DELIVERY_STATUS_DEAD_LETTER
        return self._delivery.delivery_status(position)

    async def ListSignals(self, request: pb.ListSignalsRequest, context: Context) -> pb.ListSignalsResponse:
        check_list_signals(request)
        size = page_size_of(request.page_size)
        query = index_query(request)
        name = named(query)
        page = await self._stored.page(query, maybe_signal_key(name, request.page_token), size)
        return pb.ListSignalsResponse(
            events=[SignalEvent.FromString(record.payload) for record in page.records],
            next_page_token=signal_token(name, page.after) if page.after else "",
            indexed_through=ledger_position(self._ledger_id, page.through) if page.through else None,
            unreadable=[ledger_position(self._ledger_id, position) for position in page.unreadable],
        )

    def WatchSignals(self, request: pb.WatchSignalsRequest, context: Context) -> AsyncIterator[pb.WatchSignalsResponse]:
        return self._watching.watch(request.cursor, passes_pruned=request.pass_over_pruned)


def asked_wait(request: pb.EmitRequest | pb.EmitStreamRequest) -> Wait:
    return wait_of(request.wait_for, request.delivery_timeout if request.HasField("delivery_timeout") else None)


async def checked_batches(requests: AsyncIterator[pb.EmitStreamRequest]) -> AsyncIterator[pb.EmitStreamRequest]:
    """Ends, by raising ContractError, at a message that is none: of what comes after it nothing is taken."""
    async for request in requests:
        check_batch(request)
        yield request


def check_batch(request: pb.EmitStreamRequest) -> None:
    """Raises ContractError: INVALID_SIGNAL."""
    events = request.events
    if not 1 <= len(events) <= BATCH_ITEMS_MAX:
        raise invalid_signal([Violation("events", f"must have 1 to {BATCH_ITEMS_MAX} items, has {len(events)}")])
    asked_wait(request)
    if len(events) == 1 or request.ByteSize() <= BATCH_BYTES_MAX:  # most are, and that takes one call to know
        return
    if sum(event.ByteSize() for event in events) > BATCH_BYTES_MAX:
        raise invalid_signal([Violation("events", f"must be at most {BATCH_BYTES_MAX} bytes together")])
