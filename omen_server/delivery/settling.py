"""What the outcomes of a message mean: for whoever waits, for repeats of the same signals, and for the ledger."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime

import structlog

from contract.coverage import Coverage
from contract.errors import ContractError, timestamp
from contract.limits import EVENT_BYTES_MAX
from ledger import Position, Record
from omen.v1 import signal_service_pb2 as signal_pb
from omen.v1.signal_event_pb2 import SignalEvent
from omen_server.appends import Append, Place, Request, place_of
from omen_server.conflict import widened
from omen_server.dead_letters import DeadLetters, Rejected
from omen_server.journal import Journal
from omen_server.outcome import Outcome
from omen_server.pause import PauseSwitch
from omen_server.recent import RecentSignals
from omen_server.records import names_of
from omen_server.waiting import WaitingRoom
from riskcast.v1 import ingest_service_pb2 as ingest_pb

REJECTIONS_IN_A_ROW_MAX = 100  # then it is not the signals that are wrong, but what makes or judges them
PUT_OFF_MAX = 256  # refused records, a message of them: with more it is no use to go on

STATUSES = {
    ingest_pb.RECORD_OUTCOME_STORED: signal_pb.EMISSION_STATUS_DELIVERED,
    ingest_pb.RECORD_OUTCOME_DUPLICATE: signal_pb.EMISSION_STATUS_DUPLICATE,
}

NOTHING = Coverage()

Result = tuple[Record, ingest_pb.RecordResult]

log = structlog.get_logger(__name__)


class Settling:
    """`settle` each message, in the order of the messages."""

    def __init__(
        self,
        journal: Journal,
        waiting: WaitingRoom,
        recent: RecentSignals,
        pause: PauseSwitch,
        letters: DeadLetters,
        is_in_ledger: Callable[[str], Awaitable[bool]],
        now: Callable[[], datetime],
    ) -> None:
        """`is_in_ledger`: whether a signal_id is known to be; when in doubt it is not."""
        self._journal = journal
        self._waiting = waiting
        self._recent = recent
        self._pause = pause
        self._letters = letters
        self._is_in_ledger = is_in_ledger
        self._now = now
        self._rejected_before: Mapping[bytes, Coverage] = {}
        self._put_off: set[Place] = set()
        self._rejections_in_a_row = 0

    def greeted(self, rejected: Mapping[bytes, Coverage]) -> None:
        """RiskCast's hello told what it had rejected by then, by segment."""
        self._rejected_before = rejected
        self._put_off.clear()

    async def settle(self, results: Sequence[Result]) -> list[Position]:
        """Whoever waits for a record that was refused is told once what follows from that is durable here.

        Returns what is to be asked about again, because the ledger or delivery.db takes nothing now. Raises
        ContractError when that has become much.
        """
        pause_because = self._count_rejections(results)
        refused: list[Result] = []
        for record, result in results:  # without a pause: a stream that breaks must not drop half of the answers
            if status := STATUSES.get(result.outcome):
                self._accept(record, result.ack_id, status)
            else:
                refused.append((record, result))
        try:
            if self._letters:  # mostly there are none
                taken = (record for record, result in results if is_taken(result))
                await self._letters.resolved(place_of(record.position) for record in taken)
            if refused:
                await self._refuse(refused)
        except ContractError as error:
            return self._asked_again(results, error)
        if self._put_off:
            self._put_off.difference_update(place_of(record.position) for record, _ in results)
        if pause_because:
            log.error("delivery_paused", reason=pause_because)
            await self._pause.pause(pause_because, self._now())
        return []

    def _asked_again(self, results: Sequence[Result], error: ContractError) -> list[Position]:
        again = [
            record.position
            for record, result in results
            if not is_taken(result) or place_of(record.position) in self._letters
        ]
        if not self._put_off:
            log.warning("refusals_put_off", error=str(error))
        self._put_off.update(map(place_of, again))
        if len(self._put_off) > PUT_OFF_MAX:
            raise error
        return again

    def _accept(self, record: Record, ack_id: str, status: "signal_pb.EmissionStatus.ValueType") -> None:
        place = place_of(record.position)
        self._recent.acknowledged(place, ack_id)
        if append := self._waiting.leave(place):
            append.answer(Outcome(status, record.position, append.signal_id, ack_id))

    async def _refuse(self, refused: Sequence[Result]) -> None:
        """A record that met a conflict is emitted again; whoever waited for it waits for the new one."""
        again, rejected = [], []
        for record, result in refused:
            if result.outcome == ingest_pb.RECORD_OUTCOME_CONFLICT and (wide := maybe_widened(record)):
                again.append((record, wide))
            else:
                rejected.append((record, result))
        if rejected:
            await self._reject(rejected)
        requests = [self._emit_again(*each) for each in again if not await self._is_emitted_again(*each)]
        for request in requests:
            [answer] = await request.answered(None)
            if isinstance(answer, ContractError):
                raise answer
        await self._letters.resolved(place_of(record.position) for record, _ in again)

    async def _reject(self, rejected: Sequence[Result]) -> None:
        at = self._now()
        await self._letters.record(Rejected(record.position, result.error, at) for record, result in rejected)
        for record, result in rejected:
            at_place = {"partition": record.position.partition, "sequence": record.position.sequence}
            log.error("record_rejected", reason=result.error.reason, **at_place, **names_of(record.payload))
            self._recent.refused(place_of(record.position))
            if append := self._waiting.leave(place_of(record.position)):
                status = signal_pb.EMISSION_STATUS_REJECTED
                append.answer(Outcome(status, record.position, append.signal_id, rejection=result.error))

    async def _is_emitted_again(self, record: Record, wide: SignalEvent) -> bool:
        """RiskCast asks for a conflict until the wider id is stored, which it may never be. One record of it is enough,
        unless somebody waits to hear what becomes of it."""
        if self._waiting.awaits(place_of(record.position)):
            return False
        return self._recent.maybe_recent(wide.signal_id) is not None or await self._is_in_ledger(wide.signal_id)

    def _emit_again(self, record: Record, wide: SignalEvent) -> Request:
        """Emitted now: the day of its first emission may take no more records."""
        log.warning("signal_id_conflict", emitted_again_as=wide.signal_id, **names_of(record.payload))
        self._recent.refused(place_of(record.position))
        now = self._now()
        wide.emitted_at.CopyFrom(timestamp(now))
        request = Request(1, waits_for_riskcast=False)
        maybe_waiting = self._waiting.leave(place_of(record.position))
        payload, hash_ = wide.SerializeToString(), wide.input_event_hash
        self._journal.append([Append(payload, now, wide.signal_id, hash_, request, maybe_stands_for=maybe_waiting)])
        return request

    def _count_rejections(self, results: Sequence[Result]) -> str:
        """Why delivery is to be paused, with the last reason; "" when it is not.

        What was rejected before is only asked about again: redriven, missed here, or put off. That tells nothing new.
        """
        pause_because = ""
        for record, result in results:
            if result.outcome != ingest_pb.RECORD_OUTCOME_REJECTED:
                self._rejections_in_a_row = 0
            elif not self._was_rejected(place_of(record.position)):
                self._rejections_in_a_row += 1
            if self._rejections_in_a_row == REJECTIONS_IN_A_ROW_MAX:
                self._rejections_in_a_row = 0
                pause_because = f"{REJECTIONS_IN_A_ROW_MAX} records in a row were rejected, the last one for "
                pause_because += result.error.reason or "no reason given"
        return pause_because

    def _was_rejected(self, place: Place) -> bool:
        segment_id, index = place
        is_told = index in self._rejected_before.get(segment_id, NOTHING)
        return is_told or place in self._letters or place in self._put_off


def is_taken(result: ingest_pb.RecordResult) -> bool:
    return result.outcome in STATUSES


def maybe_widened(record: Record) -> SignalEvent | None:
    """None: no wider id resolves it, or leaves no room for the event, so that it counts as rejected."""
    wide = widened(SignalEvent.FromString(record.payload))
    return wide if wide is not None and wide.ByteSize() <= EVENT_BYTES_MAX else None
