"""The ledger followed by many readers, each from where it stands, told what is read for it from the ledger.

Nothing waits in memory for a reader but the batch that is being written to it; gRPC's flow control slows the reading
down to what it takes. One wake-up tells all who wait that there is more, and one listing says where. Readers take
turns: all of them at once would leave the event loop no time for those who emit.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TypeVar

from contract.errors import ContractError, Reason
from contract.limits import BATCH_BYTES_MAX, BATCH_ITEMS_MAX, WATCH_CURSOR_BYTES_MAX
from contract.pages import key_of_token, not_a_token, page_token
from ledger import Ledger, PartitionInfo, Position, Record, SegmentInfo
from ledger.positions import RECORD_INDEX_MAX, sequence_of
from omen.v1 import signal_service_pb2 as pb
from omen_server.journal import Durable, Journal, partition_pruned, reads_answered
from omen_server.reading.standing import Listing, Standing
from omen_server.records import ledger_record
from serving.tasks import Turns, each_on_a_thread

HEARTBEAT_S = 15.0  # a reader that hears nothing for twice that knows that nobody is there; proxies wait for longer
TAKEN_WITHIN_S = 30.0  # a reader that has taken nothing for so long, with megabytes waiting for it, has stopped reading
RESUME_DELAY_S = 1.0
REST_S = 0.02  # between two wake-ups while records come in: what came in between is read at once
TOLD_AT_ONCE = 4  # readers in one turn of the event loop, half a millisecond each: a thousand slow ones stop no emit
READING_MAX = 2  # readers for whom files are read at once: others need the threads too

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Missed:
    """Records of one segment up to `last` that cannot be read: damaged, or pruned with their partition."""

    first_sequence: int
    last: Position
    is_pruned: bool = False


class Watching:
    """Belongs to the event loop of the journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._waking: asyncio.TimerHandle | None = None
        self._woken_at = 0.0
        self._listing = Listing()
        self._listing_up_to_date: asyncio.Task[None] | None = None
        self._listing_turn = asyncio.Lock()
        self._reading = asyncio.Semaphore(READING_MAX)
        self._turns = Turns(TOLD_AT_ONCE)
        journal.follow(self._wake)

    def watch(self, cursor: str, *, passes_pruned: bool = False) -> AsyncGenerator[pb.WatchSignalsResponse, None]:
        """From the cursor, or from now, without end; what was pruned is passed over, or ends it.

        Raises ContractError: INVALID_PAGE_TOKEN, PARTITION_PRUNED, QUEUE_FULL, LEDGER_UNAVAILABLE.
        """
        return taken_in_time(self._watch(cursor, passes_pruned), TAKEN_WITHIN_S, too_slow)

    async def _watch(self, cursor: str, passes_pruned: bool) -> AsyncGenerator[pb.WatchSignalsResponse, None]:
        standing = await self._begun(cursor)
        await self._turns.come()
        yield self._message(standing)
        while True:
            news = self._news
            await self._turns.come()
            await self._list_once()
            listing = self._listing
            for info in standing.unread(listing):
                async with aclosing(self._told(standing, info, passes_pruned)) as messages:
                    async for message in messages:
                        yield message
            standing.settle(listing)
            if not await comes_within(news, HEARTBEAT_S):
                await self._turns.come()
                yield self._message(standing)

    async def _begun(self, cursor: str) -> Standing:
        if not cursor:
            await self._list()  # not what was listed at the last wake-up: now means now
            return Standing.at_the_end(self._listing)
        if len(cursor) > WATCH_CURSOR_BYTES_MAX:
            raise not_a_token()
        standing = Standing.maybe_of(key_of_token(self._query, cursor))
        await self._list_once()
        if standing is None or not standing.fits(self._listing):
            raise not_a_token()
        return standing

    async def _told(
        self, standing: Standing, info: PartitionInfo, passes_pruned: bool
    ) -> AsyncGenerator[pb.WatchSignalsResponse, None]:
        try:
            async with aclosing(self._read(standing, info)) as messages:
                async for message in messages:
                    yield message
        except ContractError as error:
            if error.reason is not Reason.PARTITION_PRUNED or not passes_pruned:
                raise
            for gone in pruned(info, standing.sequence(info.name)):
                await self._turns.come()
                standing.advance(gone.last)
                yield self._message(standing, gone)

    async def _read(self, standing: Standing, info: PartitionInfo) -> AsyncGenerator[pb.WatchSignalsResponse, None]:
        after = standing.sequence(info.name)
        with reads_answered():
            passages = await self._journal.read(lambda ledger: unread(ledger, info, after))
            async with aclosing(each_on_a_thread(passages, self._reading)) as portions:
                async for portion in portions:
                    for passage in portion:
                        await self._turns.come()
                        standing.advance(passage.last if isinstance(passage, Missed) else passage.position)
                        yield self._message(standing, passage)

    def _message(self, standing: Standing, passage: Record | Missed | None = None) -> pb.WatchSignalsResponse:
        cursor = page_token(self._query, standing.text)
        if isinstance(passage, Record):
            return pb.WatchSignalsResponse(cursor=cursor, record=ledger_record(self._journal.ledger_id, passage))
        return pb.WatchSignalsResponse(cursor=cursor, passed_over=passed_over(passage) if passage else None)

    @property
    def _query(self) -> str:
        return f"WatchSignals {self._journal.ledger_id}"

    async def _list_once(self) -> None:
        """One listing serves all who ask between two wake-ups."""
        if self._listing_up_to_date is None:
            self._listing_up_to_date = asyncio.create_task(self._list())
        await asyncio.shield(self._listing_up_to_date)

    async def _list(self) -> None:
        async with self._listing_turn:  # so that a listing never takes the place of a newer one
            number = self._listing.last_number
            listed = await self._journal.read(lambda ledger: ledger.listed(number))
            self._listing = self._listing.updated(listed)

    def _wake(self, durable: Durable) -> None:
        if self._waking is None:
            at = max(self._loop.time(), self._woken_at + REST_S)
            self._waking = self._loop.call_at(at, self._tell)

    def _tell(self) -> None:
        self._waking, self._woken_at = None, self._loop.time()
        self._listing_up_to_date = None
        self._news.set()
        self._news = asyncio.Event()


def unread(ledger: Ledger, info: PartitionInfo, after: int) -> Iterator[list[Record | Missed]]:
    """What a partition holds behind the sequence `after`, as far as it is listed, in portions. Reads files."""
    if info.is_sealed and ledger.partition(info.name).is_pruned:
        raise partition_pruned(info.name)
    for segment, first in segments_behind(info, after):
        yield from unread_of_segment(ledger, segment, first)


def pruned(info: PartitionInfo, after: int) -> Iterator[Missed]:
    """What a partition held behind the sequence `after`, as its SEAL tells."""
    for segment, first in segments_behind(info, after):
        for gone in missed(segment, first, segment.record_count):
            yield replace(gone, is_pruned=True)


def segments_behind(info: PartitionInfo, after: int) -> Iterator[tuple[SegmentInfo, int]]:
    """From that of the sequence `after` on, each with the first index behind it."""
    begun = after >> 32
    for segment in info.segments[max(begun - 1, 0) :]:
        yield segment, (after & RECORD_INDEX_MAX) + 1 if segment.ordinal == begun else 1


def unread_of_segment(ledger: Ledger, segment: SegmentInfo, first: int) -> Iterator[list[Record | Missed]]:
    if first > segment.record_count:
        return
    cursor = ledger.reader().segment_cursor(segment.partition, segment.ordinal, first)
    while first <= segment.record_count:
        records = cursor.read(min(BATCH_ITEMS_MAX, segment.record_count - first + 1), BATCH_BYTES_MAX)
        if cursor.is_away:
            require_its_absence_is_known(ledger, segment)
        portion: list[Record | Missed] = []
        for record in records:
            portion += missed(segment, first, record.position.record_index - 1)
            portion.append(record)
            first = record.position.record_index + 1
        if not records:
            portion += missed(segment, first, segment.record_count)
            first = segment.record_count + 1
        yield portion


def missed(segment: SegmentInfo, first: int, last: int) -> list[Missed]:
    if first > last:
        return []
    position = Position(segment.partition, segment.segment_id, sequence_of(segment.ordinal, last))
    return [Missed(sequence_of(segment.ordinal, first), position)]


def passed_over(missed: Missed) -> pb.PassedOver:
    return pb.PassedOver(
        partition=missed.last.partition,
        first_sequence=missed.first_sequence,
        last_sequence=missed.last.sequence,
        is_pruned=missed.is_pruned,
    )


def require_its_absence_is_known(ledger: Ledger, segment: SegmentInfo) -> None:
    """A file that is not there is no reason to pass over its records, unless they are known to be lost."""
    info = ledger.partition(segment.partition)
    if info.is_pruned:
        raise partition_pruned(info.name)
    held = info.segments[segment.ordinal - 1]
    if sum(last - first + 1 for first, last in held.damaged) < held.record_count:
        raise FileNotFoundError(f"segment {segment.ordinal} of {segment.partition} is away")


async def comes_within(event: asyncio.Event, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def taken_in_time(
    messages: AsyncGenerator[T, None], timeout_s: float, refusal: Callable[[], ContractError]
) -> AsyncGenerator[T, None]:
    """Ends with the refusal when a message is not taken within so many seconds.

    Whoever iterates is cancelled while he hands the message on, and closes this generator: so the refusal replaces the
    cancellation.
    """
    async with aclosing(messages):
        async for message in messages:
            try:
                async with asyncio.timeout(timeout_s) as patience:
                    yield message
            except GeneratorExit:
                if patience.expired():
                    raise refusal() from None
                raise


def too_slow() -> ContractError:
    message = f"no message was taken for {TAKEN_WITHIN_S:.0f} s; go on by the last cursor"
    return ContractError(Reason.QUEUE_FULL, message, retry_delay_s=RESUME_DELAY_S)
