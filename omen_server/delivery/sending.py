"""Messages out of a backlog onto one stream: what is not in memory any more is read from the ledger."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import structlog

from contract.limits import BATCH_BYTES_MAX, BATCH_ITEMS_MAX, EVENT_BYTES_MAX
from ledger import Record
from ledger.format import frame_bytes
from omen_server.delivery.backlog import Backlog, Run
from omen_server.delivery.failing import Failing, Place, records_max
from omen_server.delivery.newest import Newest
from omen_server.delivery.pace import Pace
from omen_server.delivery.stream import MESSAGE_EVENT_BYTES_MAX, RiskCastStream

log = structlog.get_logger(__name__)


class Sending:
    """`work` is set whenever there may be more to do."""

    def __init__(
        self,
        stream: RiskCastStream,
        backlog: Backlog,
        newest: Newest,
        pace: Pace,
        failing: Failing,
        work: asyncio.Event,
    ) -> None:
        self._stream = stream
        self._backlog = backlog
        self._newest = newest
        self._pace = pace
        self._failing = failing
        self._work = work
        self._clock = asyncio.get_running_loop().time
        self._has_sent_others = False
        self.tries_failing = False  # one is under way, and nothing else

    async def run(self) -> None:
        """Until the stream breaks."""
        while True:
            await self._stream.window()
            while not self._is_due():
                self._work.clear()
                await self._until_work()
            if records := await self._next_message():
                self._backlog.send()
                self._pace.sent(self._clock())
                await self._stream.send(records)
            else:
                self._stream.leave_window()

    def _is_due(self) -> bool:
        """RiskCast commits one message after the other: one that is not full can as well gather until the answer to
        the one before, and costs both sides less."""
        if self._stream.is_waiting:
            is_one_by_one = self.tries_failing or self._failing.is_in_doubt
            return not is_one_by_one and self._backlog.fills(BATCH_ITEMS_MAX, BATCH_BYTES_MAX)
        return self._backlog.unsent_count > 0 or self._failing.maybe_due(self._clock()) is not None

    async def _until_work(self) -> None:
        """An answer is work too, so while one is to come there is nothing else to wake up for."""
        maybe_wait_s = None if self._stream.is_waiting else self._failing.maybe_wait_s(self._clock())
        with suppress(TimeoutError):
            async with asyncio.timeout(maybe_wait_s):
                await self._work.wait()

    async def _next_message(self) -> list[Record]:
        """A record that is failing by itself, when nothing else is under way; otherwise what fits into a message.

        A stream that it may end has carried others before, if there are any.
        """
        self.tries_failing = False
        may_try = not self._stream.is_waiting and (self._has_sent_others or not self._backlog.unsent_count)
        while may_try and (place := self._failing.maybe_due(self._clock())):
            run = self._backlog.pick(*place)
            if run and (records := await self._taken(run, MESSAGE_EVENT_BYTES_MAX)):
                self.tries_failing = True
                self._failing.trying(self._clock())
                return records
            self._failing.forget(place)
        self._has_sent_others = True
        return await self._full_message()

    async def _full_message(self) -> list[Record]:
        """As many runs as fit and are as doubtful as the first; nothing when none of them can be read."""
        records: list[Record] = []
        room_bytes, doubts = MESSAGE_EVENT_BYTES_MAX, self._next_doubts()
        most = records_max(doubts)
        while len(records) < most and room_bytes >= EVENT_BYTES_MAX and self._next_doubts() == doubts:
            run = self._backlog.take(most - len(records))
            if run is None:
                break
            taken = await self._taken(run, room_bytes)
            records += taken
            room_bytes -= sum(len(record.payload) for record in taken)
        return records

    def _next_doubts(self) -> int:
        place = self._backlog.maybe_next()
        return self._failing.doubts(place) if place else 0

    async def _taken(self, run: Run, room_bytes: int) -> list[Record]:
        """The records of the run taken last that fit; the others are given back, and what cannot be read left out."""
        records = self._newest.take(run, room_bytes)
        if not records:
            self._newest.drop(run)
            records = await self._stream.read(run, room_bytes)
        last = records[-1].position.record_index if records else run.last
        for place in unreadable(run, last, records):
            log.error("ledger_record_unreadable", partition=run.segment.partition, record_index=place[1])
            self._failing.forget(place)
        if records:
            self._backlog.keep(last, sum(frame_bytes(len(record.payload)) for record in records))
        else:
            self._backlog.leave_out()
        return records


def unreadable(run: Run, last: int, records: Sequence[Record]) -> list[Place]:
    """What of a run, to its record `last`, was not read."""
    read = {record.position.record_index for record in records}
    return [(run.segment.segment_id, index) for index in range(run.first, last + 1) if index not in read]
