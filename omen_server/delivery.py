"""Follows the ledger and streams it to RiskCast: the only path a signal takes after the ledger.

    connecting ──hello──► following ──stream breaks──► connecting (backoff)
        ▲                     │                            │
        └─resume── paused ◄───┴───────────pause────────────┘

RiskCast holds the cursor: the hello of every stream asks what is settled, and the rest is sent in order. So nothing
has to be remembered here over a crash of either side. Whoever waits for a record's outcome is answered LEDGER_ONLY as
soon as it is known that RiskCast cannot be reached; after a stream that broke and came back, what somebody still waits
for is sent again, settled or not, because the answer was lost.
"""

import asyncio
import random
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

import structlog

from contract.coverage import Coverage
from contract.errors import ContractError, timestamp
from contract.limits import BATCH_ITEMS_MAX, EVENT_BYTES_MAX
from ledger import Position, Record
from omen.v1 import signal_service_pb2 as signal_pb
from omen.v1.delivery_service_pb2 import DeliveryPhase
from omen.v1.signal_event_pb2 import SignalEvent
from omen_server.backlog import Backlog, Run, Segment
from omen_server.conflict import widened
from omen_server.journal import Durable, Journal
from omen_server.metrics import LEDGER, DeliveryMetrics
from omen_server.outcome import Outcome
from omen_server.pause import PauseSwitch
from omen_server.records import names_of
from omen_server.riskcast_stream import MESSAGE_EVENT_BYTES_MAX, Disconnected, RiskCastStream
from omen_server.waiting import Listener, WaitingRoom
from riskcast.v1 import ingest_service_pb2 as ingest_pb
from serving.tasks import first_of

if TYPE_CHECKING:  # at run time there is one stub class for both kinds of channels
    from riskcast.v1.ingest_service_pb2_grpc import IngestServiceAsyncStub

BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 2.0  # after an outage RiskCast is found again within this
HELD_RETRY_S = 30.0  # credentials and versions are mended by people, not by asking again soon

STATUSES = {
    ingest_pb.RECORD_OUTCOME_STORED: signal_pb.EMISSION_STATUS_DELIVERED,
    ingest_pb.RECORD_OUTCOME_DUPLICATE: signal_pb.EMISSION_STATUS_DUPLICATE,
    ingest_pb.RECORD_OUTCOME_REJECTED: signal_pb.EMISSION_STATUS_REJECTED,
}

log = structlog.get_logger(__name__)


class Delivery:
    """`survey()` before anything is appended, then `run()` as one task; all on the event loop of the journal."""

    def __init__(
        self,
        journal: Journal,
        stub: "IngestServiceAsyncStub",
        pause: PauseSwitch,
        *,
        now: Callable[[], datetime],
        jitter: random.Random,
        metrics: DeliveryMetrics | None = None,
    ) -> None:
        self._journal = journal
        self._stub = stub
        self._pause = pause
        self._now = now
        self._jitter = jitter
        self._metrics = metrics or DeliveryMetrics()
        self._segments: dict[bytes, Segment] = {}
        self._backlog: Backlog | None = None
        self._waiting = WaitingRoom()
        self._work = asyncio.Event()
        self._failed_attempts = 0  # since RiskCast last settled something
        self.phase = DeliveryPhase.DELIVERY_PHASE_CONNECTING
        self.last_success_at: datetime | None = None
        self.last_error_at: datetime | None = None
        self.last_error = ""

    @property
    def backlog_record_count(self) -> int | None:
        """Durable records that RiskCast has not settled; None before RiskCast has been asked."""
        return self._backlog.record_count if self._backlog else None

    def delivery_status(self, position: Position) -> "signal_pb.DeliveryStatus.ValueType":
        """What is known of a durable record."""
        if self._backlog is None:
            return signal_pb.DELIVERY_STATUS_UNSPECIFIED
        settled = self._backlog.is_settled(position.segment_id, position.record_index)
        return signal_pb.DELIVERY_STATUS_SETTLED if settled else signal_pb.DELIVERY_STATUS_PENDING

    async def run(self) -> None:
        """Deliver until cancelled. Whatever ends it, nobody waits any longer."""
        try:
            while True:
                if self._pause.current is not None:
                    self.phase = DeliveryPhase.DELIVERY_PHASE_PAUSED
                    self._waiting.close(f"delivery is paused: {self._pause.current.reason}")
                    await self._pause.until_resumed()
                self.phase = DeliveryPhase.DELIVERY_PHASE_CONNECTING
                self._failed_attempts = 0
                self._waiting.open()
                await self._connect_until_paused()
        finally:
            self.stop_waiting("OMEN delivers nothing more")

    def stop_waiting(self, reason: str) -> None:
        """From now on answer LEDGER_ONLY, with this reason, to whoever waits or comes to wait."""
        self._waiting.close_for_good(reason)

    async def survey(self) -> None:
        """Learn what the ledger holds, then hear of every record that becomes durable."""
        for partition in await self._journal.partitions():
            for info in () if partition.is_pruned else partition.segments:
                damaged = Coverage.spanning(info.damaged)
                self._segments[info.segment_id] = Segment(
                    info.partition, info.ordinal, info.segment_id, info.record_count, damaged
                )
        self._journal.follow(self._on_durable)

    async def _connect_until_paused(self) -> None:
        while self._pause.current is None:
            try:
                await first_of(self._follow(), self._pause.until_paused())
            except Disconnected as broken:
                self._note(broken)
                await first_of(self._back_off(broken), self._pause.until_paused())

    async def _follow(self) -> None:
        """One stream from its hello to its end."""
        async with RiskCastStream(self._stub, self._journal) as stream:
            settled = await stream.hello(list(self._segments.values()))
            self._metrics.stream_opened()
            self._backlog = Backlog(self._segments.values(), settled, self._waiting.awaited)
            self.phase = DeliveryPhase.DELIVERY_PHASE_FOLLOWING
            self._waiting.open()
            log.info("delivery_following", backlog_records=self._backlog.record_count)
            await first_of(self._send(stream, self._backlog), self._receive(stream, self._backlog))

    async def _send(self, stream: RiskCastStream, backlog: Backlog) -> None:
        while True:
            await stream.window()
            while not (records := await self._next_message(stream, backlog)):
                self._work.clear()
                await self._work.wait()
            await stream.send(records)

    async def _next_message(self, stream: RiskCastStream, backlog: Backlog) -> list[Record]:
        """As many runs as fit into one message; nothing when everything was taken, found out without a pause."""
        records: list[Record] = []
        room_bytes = MESSAGE_EVENT_BYTES_MAX
        while room_bytes >= EVENT_BYTES_MAX and (run := backlog.take(BATCH_ITEMS_MAX - len(records))):
            read = await stream.read(run, room_bytes)
            self._account_for(backlog, run, read)
            records += read
            room_bytes -= sum(len(record.payload) for record in read)
            if len(records) == BATCH_ITEMS_MAX:
                break
        return records

    def _account_for(self, backlog: Backlog, run: Run, records: list[Record]) -> None:
        """Give back what did not fit into one message; name what cannot be read."""
        read = {record.position.record_index for record in records}
        last = max(read, default=run.last)
        if last < run.last:
            backlog.give_back(Run(run.segment, last + 1, run.last))
        for index in range(run.first, last + 1):
            if index not in read:
                backlog.settle(run.segment.segment_id, index)
                log.error("ledger_record_unreadable", partition=run.segment.partition, record_index=index)

    async def _receive(self, stream: RiskCastStream, backlog: Backlog) -> None:
        while True:
            results = await stream.receive()
            self._metrics.message()
            try:
                # Without a pause in between: a stream that breaks meanwhile must not drop half of the answers.
                emitted_again = [self._settle(backlog, record, result) for record, result in results]
                self.last_success_at = self._now()
                self._failed_attempts = 0
                await asyncio.gather(*filter(None, emitted_again))
            except ContractError as error:  # the next hello shows what is still missing
                raise Disconnected(str(error), retry_delay_s=error.retry_delay_s or 0.0, cause=LEDGER) from error

    def _settle(
        self, backlog: Backlog, record: Record, result: ingest_pb.RecordResult
    ) -> asyncio.Future[Position] | None:
        """Tell whoever waits; a record that met a conflict is emitted again instead, for the same listener."""
        backlog.settle(record.position.segment_id, record.position.record_index)
        self._metrics.answered(result.outcome)
        if result.outcome == ingest_pb.RECORD_OUTCOME_CONFLICT:
            event = SignalEvent.FromString(record.payload)
            if (wide := widened(event)) is not None:
                log.warning("signal_id_conflict", emitted_again_as=wide.signal_id, **names_of(record.payload))
                return self._emit(wide, self._waiting.leave(record.position))
        if result.outcome not in (ingest_pb.RECORD_OUTCOME_STORED, ingest_pb.RECORD_OUTCOME_DUPLICATE):
            at = {"partition": record.position.partition, "sequence": record.position.sequence}
            log.error("record_rejected", reason=result.error.reason, **at, **names_of(record.payload))
        self._waiting.answer(record.position, outcome_of(record, result))
        return None

    def _emit(self, event: SignalEvent, listener: Listener | None) -> asyncio.Future[Position]:
        """Emitted now: the day of its first emission may take no more records."""
        now = self._now()
        event.emitted_at.CopyFrom(timestamp(now))
        return self._journal.append(event.SerializeToString(), now, listener)

    async def _back_off(self, broken: Disconnected) -> None:
        ceiling_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** min(self._failed_attempts, 10))
        delay_s = HELD_RETRY_S if broken.holds else self._jitter.uniform(0, ceiling_s)
        self._failed_attempts += 1
        await asyncio.sleep(max(delay_s, broken.retry_delay_s))

    def _note(self, broken: Disconnected) -> None:
        self._metrics.disconnected(broken.cause)
        was_following = self.phase == DeliveryPhase.DELIVERY_PHASE_FOLLOWING
        self.phase = DeliveryPhase.DELIVERY_PHASE_HELD if broken.holds else DeliveryPhase.DELIVERY_PHASE_CONNECTING
        if was_following and not broken.holds and not self._failed_attempts:
            # Connections are replaced every few minutes: an error only if it cannot be opened again.
            log.info("riskcast_stream_ended", reason=str(broken), detail=broken.detail)
            return
        self.last_error, self.last_error_at = str(broken), self._now()
        if broken.holds or not self._waiting.is_closed:
            log.warning("riskcast_unreachable", error=str(broken), detail=broken.detail, held=broken.holds)
        self._waiting.close(f"RiskCast cannot be reached: {broken}")

    def _on_durable(self, durable: Durable) -> None:
        for pending, position in durable:
            segment = self._segments.get(position.segment_id)
            if segment is None:
                segment = Segment(position.partition, position.segment_ordinal, position.segment_id, 0)
                self._segments[position.segment_id] = segment
            segment.record_count = position.record_index
            if self._backlog is not None:
                self._backlog.grow(segment, position.record_index)
            if pending.listener is not None:
                self._waiting.enter(position, pending.listener)
        self._work.set()


def outcome_of(record: Record, result: ingest_pb.RecordResult) -> Outcome:
    """A conflict that no wider id resolves counts as rejected."""
    status = STATUSES.get(result.outcome, signal_pb.EMISSION_STATUS_REJECTED)
    rejection = result.error if status == signal_pb.EMISSION_STATUS_REJECTED else None
    return Outcome(status, record.position, result.ack_id, rejection)
