"""One IngestStream to RiskCast: hello, records out, outcomes in. Whatever breaks it is told as `Disconnected`."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Iterable, Sequence
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

import grpc

from contract.coverage import Coverage
from contract.errors import ErrorDetails
from contract.limits import BATCH_BYTES_MAX, BATCH_ITEMS_MAX, HELLO_REJECTED_MAX, HELLO_SEGMENTS_MAX, ID_CHARS_MAX
from ledger import Ledger, Record, SegmentCursor
from omen.v1.ledger_record_pb2 import SegmentRanges
from omen_server.delivery.backlog import Run, Segment
from omen_server.delivery.line import Line
from omen_server.journal import Journal
from omen_server.metrics import LEDGER, NO_ANSWER, NO_HELLO, PROTOCOL
from omen_server.records import put_record
from riskcast.v1 import ingest_service_pb2 as pb
from serving.telemetry.call_meters import GO_CODES

T = TypeVar("T")

MESSAGES_IN_FLIGHT = 4  # enough to hide a round trip behind a commit; more only adds memory
HELLO_TIMEOUT_S = 4.0  # some tens of milliseconds, a second for a RiskCast that has to count a million records
HELLO_TIMEOUT_MAX_S = 32.0  # for one that needs longer: each hello in vain doubles the patience for the next
ANSWER_TIMEOUT_S = 5.0  # a message takes some tens of milliseconds; without an answer the connection is given up
READ_RETRY_S = 1.0
RECORD_OVERHEAD_BYTES = 128  # position, time and tags around the event bytes of one record
MESSAGE_EVENT_BYTES_MAX = BATCH_BYTES_MAX - BATCH_ITEMS_MAX * RECORD_OVERHEAD_BYTES

# What settles a record.
OUTCOMES = frozenset(pb.RecordOutcome.values()) - {pb.RECORD_OUTCOME_UNSPECIFIED}

# What no repeat mends: somebody has to change credentials or upgrade the receiver.
HOLDING_CODES = (
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.FAILED_PRECONDITION,
)


class Disconnected(Exception):
    """The stream is over. `holds` when asking again soon cannot help; never sooner than `retry_delay_s`.

    `is_expected` when a record was tried that has ended streams before: that says nothing of RiskCast. `is_in_doubt`
    while it is being found out whether a record is to blame.
    """

    def __init__(
        self,
        message: str,
        *,
        holds: bool = False,
        retry_delay_s: float = 0.0,
        detail: str = "",
        cause: str = PROTOCOL,
    ) -> None:
        """`message` may be shown to whoever emits; `detail`, with addresses and system errors, is for the log; `cause`,
        one of the metrics' CAUSES, is counted."""
        super().__init__(message)
        self.holds = holds
        self.retry_delay_s = retry_delay_s
        self.detail = detail
        self.cause = cause
        self.is_expected = False
        self.is_in_doubt = False

    @property
    def is_ours(self) -> bool:
        """RiskCast has no part in it."""
        return self.cause == LEDGER

    @property
    def is_silent(self) -> bool:
        """Nothing was heard any more: the connection may be dead without saying so."""
        return self.cause in (NO_HELLO, NO_ANSWER)


class Told(NamedTuple):
    """What RiskCast has settled, by segment_id, and which of that it rejected.

    Where that does not fit into one hello, it is told of the next rejected ones with `next_rejected` in another.
    """

    settled: dict[bytes, Coverage]
    rejected: dict[bytes, Coverage]
    next_rejected: str = ""


class RiskCastStream:
    """An async context manager; leaving it ends the call."""

    def __init__(self, line: Line, journal: Journal, hello_timeout_s: float = HELLO_TIMEOUT_S) -> None:
        self._call = line.stream()
        self._hello_timeout_s = hello_timeout_s
        self._journal = journal
        self._in_flight: deque[list[Record]] = deque()
        self._window = asyncio.Semaphore(MESSAGES_IN_FLIGHT)
        self._answer_due = asyncio.Event()
        self._waiting_since_s = 0.0
        self._cursor: tuple[bytes, SegmentCursor] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call.cancel()

    async def hello(self, segments: Sequence[Segment], next_rejected: str = "") -> Told:
        """Ask what of these segments is settled, or what else of all was rejected."""
        hello = pb.IngestHello(
            ledger_id=self._journal.ledger_id,
            segments=[
                pb.SegmentCount(segment_id=segment.segment_id, record_count=segment.record_count)
                for segment in segments
            ],
            rejected_page_token=next_rejected,
        )
        response = await self._translated(self._greet(pb.IngestStreamRequest(hello=hello)))
        if response.WhichOneof("message") != "hello":
            raise Disconnected("RiskCast did not answer the hello with a hello")
        told = response.hello
        if sum(len(each.ranges) for each in told.rejected) > HELLO_REJECTED_MAX:
            raise Disconnected("RiskCast told of more rejected records than fit into a hello")
        try:
            return Told(coverages(told.settled), coverages(told.rejected), told.next_rejected_page_token)
        except ValueError as error:
            raise Disconnected(f"RiskCast answered the hello with what is {error}") from error

    @property
    def oldest(self) -> Sequence[Record]:
        """The message that is to be answered next; empty when none is."""
        return self._in_flight[0] if self._in_flight else ()

    @property
    def is_waiting(self) -> bool:
        """Whether an answer is to come."""
        return bool(self._in_flight)

    async def window(self) -> None:
        """Wait until one more message may be in flight."""
        await self._window.acquire()

    def leave_window(self) -> None:
        """It was nothing to send after all."""
        self._window.release()

    async def read(self, run: Run, bytes_max: int) -> list[Record]:
        """The records of a run, as many as fit, but at least one; those that cannot be read are left out."""
        try:
            return await self._journal.read(lambda ledger: self._read_run(ledger, run, bytes_max))
        except OSError as error:  # a bad sector, no descriptors left: it may pass, and OMEN has other work
            message = "the ledger could not be read"
            raise Disconnected(message, retry_delay_s=READ_RETRY_S, detail=repr(error), cause=LEDGER) from error

    async def send(self, records: list[Record]) -> None:
        request = pb.IngestStreamRequest()
        ledger_id, add = self._journal.ledger_id, request.batch.records.add
        for record in records:
            put_record(add(), ledger_id, record)
        if not self._in_flight:
            self._waiting_since_s = asyncio.get_running_loop().time()
            self._answer_due.set()
        self._in_flight.append(records)
        await self._translated(self._call.write(request))

    async def receive(self) -> list[tuple[Record, pb.RecordResult]]:
        """The outcomes of the oldest message in flight."""
        response = await self._translated(self._next())
        if not self._in_flight or response.WhichOneof("message") != "batch":
            raise Disconnected("RiskCast answered out of turn")
        records = self._in_flight.popleft()
        self._waiting_since_s = asyncio.get_running_loop().time()
        if not self._in_flight:
            self._answer_due.clear()
        results = response.batch.results
        if len(results) != len(records):
            raise Disconnected(f"RiskCast gave {len(results)} outcomes for {len(records)} records")
        if any(result.outcome not in OUTCOMES for result in results):
            raise Disconnected("RiskCast gave an outcome that is not known here")
        if any(len(result.ack_id) > ID_CHARS_MAX for result in results):
            raise Disconnected("RiskCast gave an ack_id that is too long")
        self._window.release()
        return list(zip(records, results, strict=True))

    async def until_silent(self) -> None:
        """Raises Disconnected once an answer is overdue; while none is expected, a stream may rest for hours."""
        loop = asyncio.get_running_loop()
        while True:
            await self._answer_due.wait()
            left_s = self._waiting_since_s + ANSWER_TIMEOUT_S - loop.time()
            if left_s <= 0:
                message = f"no answer within {ANSWER_TIMEOUT_S:g} s"
                raise Disconnected(message, cause=NO_ANSWER)
            await asyncio.sleep(left_s)

    async def _greet(self, hello: pb.IngestStreamRequest) -> pb.IngestStreamResponse:
        try:
            async with asyncio.timeout(self._hello_timeout_s):
                await self._call.write(hello)
                return await self._next()
        except TimeoutError as error:
            message = f"no answer to the hello within {self._hello_timeout_s:g} s"
            raise Disconnected(message, cause=NO_HELLO) from error

    async def _next(self) -> pb.IngestStreamResponse:
        response = await self._call.read()
        if isinstance(response, pb.IngestStreamResponse):
            return response
        if response is grpc.aio.EOF:
            raise await self._ended()
        raise Disconnected("RiskCast answered with bytes that are no message")

    async def _translated(self, operation: Awaitable[T]) -> T:
        try:
            return await operation
        except grpc.aio.AioRpcError as error:
            raise disconnected(error.code(), error.details(), error.trailing_metadata()) from error
        except asyncio.InvalidStateError as error:  # written to after it ended: its status tells why
            raise await self._ended() from error

    async def _ended(self) -> Disconnected:
        call = self._call
        return disconnected(await call.code(), await call.details(), await call.trailing_metadata())

    def _read_run(self, ledger: Ledger, run: Run, bytes_max: int) -> list[Record]:
        """Follow a segment with one cursor, so that reading on costs only what is new."""
        segment = run.segment
        if self._cursor is None or self._cursor[0] != segment.segment_id or not self._cursor[1].skip_to(run.first):
            cursor = ledger.reader().segment_cursor(segment.partition, segment.ordinal, run.first)
            self._cursor = (segment.segment_id, cursor)
        records = self._cursor[1].read(run.last - run.first + 1, bytes_max)
        # Stepping over what is damaged, it may have gone beyond the run.
        return [record for record in records if record.position.record_index <= run.last]


def in_hellos(segments: Iterable[Segment]) -> list[list[Segment]]:
    """In portions for one hello each; one at least, which may be empty."""
    in_order = list(segments)
    return [in_order[at : at + HELLO_SEGMENTS_MAX] for at in range(0, max(len(in_order), 1), HELLO_SEGMENTS_MAX)]


def coverages(told: Iterable[SegmentRanges]) -> dict[bytes, Coverage]:
    """ValueError for what is no range of indexes."""
    return {each.segment_id: Coverage.spanning((run.first, run.last) for run in each.ranges) for each in told}


def disconnected(code: grpc.StatusCode, details: str | None, metadata: grpc.aio.Metadata | None) -> Disconnected:
    """The end of a call in one line: its reason if it gave one, its code, its text."""
    if code is grpc.StatusCode.OK:
        return Disconnected("RiskCast ended the stream", cause=GO_CODES[code])
    rich = ErrorDetails.from_trailing_metadata(metadata)
    message = f"{rich.reason}: {rich.message}" if rich else code.name
    return Disconnected(
        message,
        holds=code in HOLDING_CODES,
        retry_delay_s=(rich.retry_delay_s if rich else None) or 0.0,
        detail=details or "",
        cause=GO_CODES[code],
    )
