"""Follows the ledger and streams it to RiskCast: the only path a signal takes after the ledger.

    connecting ──hello──► following ──stream breaks──► connecting (backoff, breaker)
        ▲                     │                            │
        └─resume── paused ◄───┴───────────pause────────────┘

RiskCast holds the cursor: the hello of every stream asks what is settled, and the rest is sent in order. So nothing
has to be remembered here over a crash of either side. Whoever waits for a record's outcome is answered LEDGER_ONLY as
soon as it is known that RiskCast cannot be reached, or is more than a second behind; after a stream that broke and came
back, what somebody still waits for is sent again, settled or not, because the answer was lost.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime

import structlog

from contract.coverage import Coverage, Interval
from contract.errors import ContractError
from contract.limits import BATCH_BYTES_MAX, BATCH_ITEMS_MAX
from ledger import LedgerReader, Position, Record
from ledger.format import frame_bytes
from omen.v1 import signal_service_pb2 as signal_pb
from omen.v1.delivery_service_pb2 import BreakerState, DeliveryPhase
from omen_server.appends import Append, place_of
from omen_server.dead_letters import DeadLetters
from omen_server.delivery.backlog import NOTHING, Backlog, Run, Segment, by_segment
from omen_server.delivery.contact import ASKED_FOR_MAX_S, Contact
from omen_server.delivery.failing import ATTEMPTS_MAX, Failing
from omen_server.delivery.line import Line
from omen_server.delivery.newest import Newest
from omen_server.delivery.pace import Pace
from omen_server.delivery.sending import Sending
from omen_server.delivery.settling import Result, Settling
from omen_server.delivery.stream import READ_RETRY_S, Disconnected, RiskCastStream, Told, in_hellos
from omen_server.journal import Durable, Journal
from omen_server.metrics import LEDGER, DeliveryMetrics
from omen_server.pause import PauseSwitch
from omen_server.recent import RecentSignals
from omen_server.waiting import WaitingRoom
from serving.tasks import first_of

REJECTED_PAGES_MAX = 100  # a million records; a RiskCast that has more to tell, or repeats itself, keeps none waiting
BEHIND_S = 1.0  # whoever emits is not kept waiting for a backlog that takes longer

log = structlog.get_logger(__name__)


class Delivery:
    """`survey()` before anything is appended, then `run()` as one task; all on the event loop of the journal."""

    def __init__(
        self,
        journal: Journal,
        line: Line,
        contact: Contact,
        settling: Settling,
        waiting: WaitingRoom,
        recent: RecentSignals,
        pause: PauseSwitch,
        letters: DeadLetters,
        *,
        now: Callable[[], datetime],
        metrics: DeliveryMetrics | None = None,
    ) -> None:
        self._journal = journal
        self._line = line
        self._contact = contact
        self._settling = settling
        self._waiting = waiting
        self._recent = recent
        self._pause = pause
        self._letters = letters
        self._now = now
        self._metrics = metrics or DeliveryMetrics()
        self._clock = asyncio.get_running_loop().time
        self._segments: dict[bytes, Segment] = {}
        self._maybe_backlog: Backlog | None = None
        self._newest = Newest()
        self._pace = Pace()
        self._failing = Failing()
        self._work = asyncio.Event()
        self.phase = DeliveryPhase.DELIVERY_PHASE_CONNECTING
        self.last_success_at: datetime | None = None
        self.last_error_at: datetime | None = None
        self.last_error = ""

    @property
    def backlog_record_count(self) -> int | None:
        """Durable records that RiskCast has not settled; None before RiskCast has been asked."""
        return self._maybe_backlog.record_count if self._maybe_backlog else None

    @property
    def backlog_bytes(self) -> int | None:
        """Their bytes in the ledger, in part by an estimate; None before RiskCast has been asked."""
        return self._maybe_backlog.byte_count if self._maybe_backlog else None

    @property
    def breaker_state(self) -> "BreakerState.ValueType":
        return self._contact.breaker_state

    def oldest_written_at(self, reader: LedgerReader) -> int | None:
        """When the oldest unsettled record was written, in microseconds; None when there is none or it is not known.

        Reads one record of each partition that has a backlog, however long: on a thread.
        """
        runs = self._maybe_backlog.heads() if self._maybe_backlog else []
        return min(filter(None, (maybe_written_at(reader, run) for run in runs)), default=None)

    def delivery_status(self, position: Position) -> "signal_pb.DeliveryStatus.ValueType":
        """What is known of a durable record."""
        if self._maybe_backlog is None:
            return signal_pb.DELIVERY_STATUS_UNSPECIFIED
        settled = self._maybe_backlog.is_settled(position.segment_id, position.record_index)
        return signal_pb.DELIVERY_STATUS_SETTLED if settled else signal_pb.DELIVERY_STATUS_PENDING

    def join(self, append: Append, position: Position) -> bool:
        """Wait for the outcome of a record that is durable already; False when none is to come."""
        if self.delivery_status(position) == signal_pb.DELIVERY_STATUS_SETTLED:
            return False
        append.payload = b""  # the record has it
        append.became_durable(position)
        if behind := self._maybe_behind():
            append.answer(append.ledger_only(behind))
        else:
            self._waiting.enter(append, position)
        return True

    async def run(self) -> None:
        """Deliver until cancelled. Whatever ends it, nobody waits any longer."""
        try:
            while True:
                if self._pause.current is not None:
                    self.phase = DeliveryPhase.DELIVERY_PHASE_PAUSED
                    self._waiting.close(f"delivery is paused: {self._pause.current.reason}")
                    await self._pause.until_resumed()
                    self._contact.forgive()
                self.phase = DeliveryPhase.DELIVERY_PHASE_CONNECTING
                self._waiting.open()
                await first_of(self._deliver(), self._pause.until_paused())
        finally:
            self.stop_waiting("OMEN delivers nothing more")

    def stop_waiting(self, reason: str) -> None:
        """From now on answer LEDGER_ONLY, with this reason, to whoever waits or comes to wait."""
        self._waiting.close_for_good(reason)

    async def survey(self) -> None:
        """Learn what the ledger holds, then hear of every record that becomes durable."""
        for partition in await self._journal.partitions():
            for info in () if partition.is_pruned else partition.segments:
                self._segments[info.segment_id] = Segment(
                    info.partition,
                    info.ordinal,
                    info.segment_id,
                    info.record_count,
                    info.byte_length,
                    Coverage.spanning(info.damaged),
                )
        self._journal.follow(self._on_durable)
        self._letters.follow(self._send_again)

    def forget(self, partition: str) -> None:
        """What it held was given up: the next hello does not ask for it, and nothing of it is sent."""
        held = self._segments.values()
        self._segments = {each.segment_id: each for each in held if each.partition != partition}
        if self._maybe_backlog is not None:
            self._maybe_backlog.forget(partition)

    def _send_again(self, positions: Sequence[Position]) -> None:
        """RiskCast has settled these, and is to be sent them once more; without a stream the next hello sees to it."""
        if self._maybe_backlog is None:
            return
        for segment_id, indexes in by_segment(map(place_of, positions)).items():
            if segment := self._segments.get(segment_id):
                self._maybe_backlog.ask_again(segment, indexes)
        self._work.set()

    def _postpone(self, backlog: Backlog, positions: Sequence[Position]) -> None:
        """Others go on meanwhile: it is a disk of ours that refuses, not RiskCast."""
        for segment_id, indexes in by_segment(map(place_of, positions)).items():
            if segment := self._segments.get(segment_id):
                backlog.postpone(segment, indexes)
        if positions:
            asyncio.get_running_loop().call_later(READ_RETRY_S, self._resume, backlog, positions)

    def _resume(self, backlog: Backlog, positions: Sequence[Position]) -> None:
        for segment_id, indexes in by_segment(map(place_of, positions)).items():
            backlog.resume(segment_id, indexes)
        self._work.set()

    async def _deliver(self) -> None:
        """Streams one after the other, with patience."""
        while True:
            await self._contact.until_allowed()
            try:
                await self._follow()
            except Disconnected as broken:
                self._note(broken)
                await self._contact.back_off(broken)

    async def _follow(self) -> None:
        """One stream from its hello to its end."""
        *older, newest = in_hellos(self._segments.values())
        told = [await self._asked(segments) for segments in older]
        async with self._stream() as stream:
            backlog = await self._greet(stream, told, newest)
            sending = Sending(stream, backlog, self._newest, self._pace, self._failing, self._work)
            try:
                await first_of(sending.run(), self._receive(stream, backlog), stream.until_silent())
            except Disconnected as broken:
                # What people have to mend, or what our disk refused, is no record's fault.
                if not (broken.holds or broken.is_ours):
                    broken.is_expected = sending.tries_failing and bool(stream.oldest)
                    self._note_failing(stream.oldest)
                    # Who says when to come again, or nothing at all, has troubles of his own.
                    blames_none = bool(stream.oldest) and not broken.retry_delay_s and not broken.is_silent
                    broken.is_in_doubt = blames_none and self._failing.is_record_suspected
                raise
            finally:
                self._newest.clear()
                self._pace.broken()

    def _note_failing(self, oldest: Sequence[Record]) -> None:
        if self._failing.broke([place_of(record.position) for record in oldest], self._clock()):
            at = oldest[0].position
            log.error("record_failing", attempts=ATTEMPTS_MAX, partition=at.partition, sequence=at.sequence)

    def _stream(self) -> RiskCastStream:
        return RiskCastStream(self._line, self._journal, self._contact.hello_timeout_s)

    async def _asked(self, segments: Sequence[Segment], next_rejected: str = "") -> Told:
        """By a stream of its own, which takes one hello."""
        await self._contact.paced()
        async with self._stream() as stream:
            return await stream.hello(segments, next_rejected)

    async def _asked_patiently(self, next_rejected: str) -> Told:
        """Where RiskCast wants time, not at once from the first page again: a slow key might never come to the last."""
        for _ in range(ATTEMPTS_MAX - 1):
            try:
                return await self._asked((), next_rejected)
            except Disconnected as broken:
                if broken.holds or not broken.retry_delay_s:
                    raise
                await asyncio.sleep(min(broken.retry_delay_s, ASKED_FOR_MAX_S))
        return await self._asked((), next_rejected)

    async def _further_rejected(self, next_rejected: str) -> list[Told]:
        """Page by page, of what this ledger holds: partitions that were pruned are still told of."""
        pages: list[Told] = []
        while next_rejected:
            if len(pages) == REJECTED_PAGES_MAX:
                log.error("rejected_not_all_told", pages=len(pages))
                break
            page = await self._asked_patiently(next_rejected)
            pages.append(Told({}, {id_: found for id_, found in page.rejected.items() if id_ in self._segments}))
            next_rejected = page.next_rejected
        return pages

    async def _greet(self, stream: RiskCastStream, told: list[Told], newest: Sequence[Segment]) -> Backlog:
        """Everything is compared each time: a RiskCast restored from an older copy shows there. Of most ledgers, whose
        segments all fit into one hello, nothing was `told` before."""
        all_told = [*told, await stream.hello(newest)]
        self._metrics.stream_opened()
        all_told += await self._further_rejected(all_told[-1].next_rejected)
        rejected = all_rejected(all_told)
        self._settling.greeted(rejected)
        # A record is settled as rejected before it is a dead letter here, and delivery.db may be lost or old.
        unknown = self._letters.unknown(rejected)
        settled = {
            segment_id: done - unknown.get(segment_id, NOTHING)
            for each in all_told
            for segment_id, done in each.settled.items()
        }
        asked_for = (*self._waiting.awaited(), *self._letters.redriving)
        backlog = Backlog(self._segments.values(), settled, asked_for, self._failing.apart)
        self._maybe_backlog = backlog
        self._failing.greeted(backlog.is_settled)
        self._contact.greeted(is_more_to_come=backlog.unsent_count > 0)
        self.phase = DeliveryPhase.DELIVERY_PHASE_FOLLOWING
        self._waiting.open()
        log.info("delivery_following", backlog_records=backlog.record_count)
        return backlog

    async def _receive(self, stream: RiskCastStream, backlog: Backlog) -> None:
        while True:
            results = await stream.receive()
            self._metrics.message()
            self._metrics.answered([result for _, result in results])
            try:
                put_off = await self._settling.settle(results)
            except ContractError as error:  # the next hello shows what is still missing
                # Not as long as an emit is told to wait: there are other records to deliver meanwhile.
                delay_s = min(error.retry_delay_s or 0.0, READ_RETRY_S)
                raise Disconnected(str(error), retry_delay_s=delay_s, cause=LEDGER) from error
            backlog.answer()
            if self._failing.is_watching:
                self._failing.answered([place_of(record.position) for record, _ in results])
            self._postpone(backlog, put_off)
            self._send_again(asked_meanwhile(self._letters, results))
            self._pace.answered(self._clock(), is_more_under_way=stream.is_waiting)
            self._work.set()
            self._contact.answered()
            self.last_success_at = self._now()

    def _note(self, broken: Disconnected) -> None:
        self._metrics.disconnected(broken.cause)
        was_following = self.phase == DeliveryPhase.DELIVERY_PHASE_FOLLOWING
        self.phase = DeliveryPhase.DELIVERY_PHASE_HELD if broken.holds else DeliveryPhase.DELIVERY_PHASE_CONNECTING
        is_first = not self._contact.failures
        self._contact.failed(broken)
        if broken.is_expected or (was_following and is_first and not broken.holds and not broken.is_silent):
            # Connections are replaced every few minutes: an error only if it cannot be opened again.
            log.info("riskcast_stream_ended", reason=str(broken), detail=broken.detail)
            return
        self.last_error, self.last_error_at = str(broken), self._now()
        if broken.is_ours:
            log.warning("delivery_interrupted", error=str(broken), detail=broken.detail)
            self._waiting.close(f"OMEN cannot deliver now: {broken}")
            return
        if broken.holds or not self._waiting.is_closed:
            log.warning("riskcast_unreachable", error=str(broken), detail=broken.detail, held=broken.holds)
        self._waiting.close(f"RiskCast cannot be reached: {broken}")

    def _on_durable(self, durable: Durable) -> None:
        is_following = self.phase == DeliveryPhase.DELIVERY_PHASE_FOLLOWING
        for run, records in self._grown(durable):
            if self._maybe_backlog is not None:
                sizes = sum(frame_bytes(len(record.payload)) for record in records)
                self._maybe_backlog.grow(run, sizes)
            for record in records if is_following else ():
                self._newest.keep(record)
        behind = self._maybe_behind()
        for append, position in durable.appends:
            self._recent.enter(append, position)
            if behind and append.waits_for_riskcast:
                append.answer(append.ledger_only(behind))
            elif append.waits_for_riskcast:
                self._waiting.enter(append, position)
        self._work.set()

    def _grown(self, durable: Durable) -> Iterator[tuple[Run, list[Record]]]:
        """The batch by segment; within one, a batch is in order and without a gap."""
        records: dict[bytes, list[Record]] = {}
        for append, position in durable.appends:
            record = Record(position, durable.written_at, 0, append.payload)
            append.payload = b""  # whoever waits for the outcome needs it no more, and may wait for long
            records.setdefault(position.segment_id, []).append(record)
        for segment_id, grown in records.items():
            first, last = grown[0].position, grown[-1].position
            segment = self._segments.get(segment_id)
            if segment is None:
                segment = Segment(first.partition, first.segment_ordinal, segment_id, 0)
                self._segments[segment_id] = segment
            segment.record_count = last.record_index
            segment.byte_length += sum(frame_bytes(len(record.payload)) for record in grown)
            yield Run(segment, first.record_index, last.record_index), grown

    def _maybe_behind(self) -> str:
        """Why nobody need wait; "" when RiskCast keeps up."""
        backlog = self._maybe_backlog
        if backlog is None or self.phase != DeliveryPhase.DELIVERY_PHASE_FOLLOWING:
            return ""
        messages = backlog.message_count(BATCH_ITEMS_MAX, BATCH_BYTES_MAX)
        drain_s = self._pace.drain_s(messages, self._clock())
        if drain_s <= BEHIND_S:
            return ""
        return f"RiskCast is {backlog.record_count} records behind, some {drain_s:.1f} s"


def all_rejected(told: Iterable[Told]) -> dict[bytes, Coverage]:
    """By segment, of which one hello may tell some, and the next one the rest."""
    ranges: dict[bytes, list[Interval]] = {}
    for each in told:
        for segment_id, found in each.rejected.items():
            ranges.setdefault(segment_id, []).extend(found.intervals)
    return {segment_id: Coverage.spanning(found) for segment_id, found in ranges.items()}


def asked_meanwhile(letters: DeadLetters, results: Sequence[Result]) -> list[Position]:
    """What somebody has redriven while the answer that rejected it was being dealt with."""
    if not letters.redriving:
        return []
    return [record.position for record, _ in results if place_of(record.position) in letters.redriving]


def maybe_written_at(reader: LedgerReader, run: Run) -> int | None:
    """Of the first record that can be read; None when the segment cannot be."""
    try:
        ranges = [(run.first, run.last)]
        first = next(iter(reader.ranges(run.segment.partition, run.segment.ordinal, ranges)), None)
    except (OSError, KeyError):
        return None
    return first.written_at if first else None
