"""The one door into the store: live push, delivery and replay come through it.

Parse, validate, commit, then acknowledge. A bad record fails itself, not its neighbours.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from google.protobuf.message import DecodeError

from contract.errors import ContractError, Reason, duplicate_signal, invalid_signal, item_error
from contract.identity import SIGNAL_ID, ack_id
from contract.limits import BATCH_BYTES_MAX, BATCH_ITEMS_MAX, EVENT_BYTES_MAX
from contract.validation import (
    EPOCH,
    Violation,
    check_event,
    check_fields,
    check_ids,
    violations_of_position,
)
from omen.v1.ledger_record_pb2 import LedgerPosition, LedgerRecord
from omen.v1.signal_event_pb2 import SignalEvent
from omen.v1.signal_pb2 import Signal
from riskcast.v1.ingest_service_pb2 import RecordOutcome, RecordResult
from riskcast.v1.signal_service_pb2 import ArrivalPath
from riskcast_server.batch import Batch
from riskcast_server.committer import Clock, Committer
from riskcast_server.metrics import IngestMetrics
from riskcast_server.settlement import Candidate, Entry, Failed, Outcome, Position, Refused, Row, Verdict
from serving.telemetry.traces import Spans

log = structlog.get_logger(__name__)

WIRE_OUTCOMES = {
    Verdict.STORED: RecordOutcome.RECORD_OUTCOME_STORED,
    Verdict.DUPLICATE: RecordOutcome.RECORD_OUTCOME_DUPLICATE,
    Verdict.CONFLICT: RecordOutcome.RECORD_OUTCOME_CONFLICT,
    Verdict.REJECTED: RecordOutcome.RECORD_OUTCOME_REJECTED,
}


@dataclass(frozen=True, slots=True)
class Receipt:
    """Records that are queued for commit."""

    door: "Door"
    entries: Sequence[Entry]
    outcomes: asyncio.Future[list[Outcome]]

    async def results(self) -> list[RecordResult]:
        """One per record, in order, once all are durable. ContractError STORE_UNAVAILABLE: outcome unknown."""
        outcomes = await asyncio.shield(self.outcomes)  # what becomes of them is told, whoever leaves
        return [self.door.result(entry, outcome) for entry, outcome in zip(self.entries, outcomes, strict=True)]


class Door:
    """Lets in what is valid. `other_content_count` is how many repeats since the start said something else."""

    def __init__(
        self,
        committer: Committer,
        now: Clock,
        maybe_spans: Spans | None = None,
        metrics: IngestMetrics | None = None,
    ) -> None:
        self._committer = committer
        self._now = now
        self._maybe_spans = maybe_spans
        self._metrics = metrics or IngestMetrics()
        self.other_content_count = 0

    async def ingest(self, event: SignalEvent, maybe_position: LedgerPosition | None) -> Row:
        """Stores one event and returns its row. Every other outcome is a ContractError, DUPLICATE_SIGNAL among them."""
        with self._refusals_counted():
            check_event(event, now=self._now())
            position = _checked_position(maybe_position) if maybe_position else None
            candidate = _candidate(event, event.SerializeToString(), position, ArrivalPath.ARRIVAL_PATH_INGEST)
            submitted = self._committer.submit([candidate])
        [outcome] = await submitted
        if isinstance(outcome, Failed):
            raise outcome.error
        if outcome.verdict is Verdict.DUPLICATE:
            raise self._duplicate(candidate, outcome.row)
        return outcome.row

    def receive(
        self, records: Sequence[LedgerRecord], ledger_id: str, path: ArrivalPath.ValueType, run_id: str = ""
    ) -> Receipt:
        """Queues records of one ledger. 1 to 256, at most 1 MiB unless a single one is larger.

        Raises ContractError, and then none of them is queued: INVALID_SIGNAL for a batch or a position out of bounds,
        SCHEMA_VERSION_UNSUPPORTED, QUEUE_FULL, STORE_UNAVAILABLE.
        """
        with self._refusals_counted():
            _check_batch(records, ledger_id)
            batch = Batch(ledger_id, path, run_id)
            for record in records:
                batch.add(*_entry(record, path, run_id))
            outcomes = self._committer.submit(batch.entries)
        batch.follow(outcomes, self._maybe_spans)
        return Receipt(self, batch.entries, outcomes)

    def result(self, entry: Entry, outcome: Outcome) -> RecordResult:
        """For a ledger, a record whose own position holds the row is stored, however often it is sent."""
        if isinstance(outcome, Failed):
            return RecordResult(outcome=WIRE_OUTCOMES[outcome.verdict], error=item_error(outcome.error))
        verdict = outcome.verdict
        if verdict is Verdict.DUPLICATE:
            if isinstance(entry, Candidate):
                self._content_matches(entry, outcome.row)
            at, stored_at = entry.held_at, outcome.row.signal.held_at
            if at is not None and stored_at is not None and at.place == stored_at.place:
                verdict = Verdict.STORED
        return RecordResult(outcome=WIRE_OUTCOMES[verdict], ack_id=outcome.row.signal.ack_id)

    @contextmanager
    def _refusals_counted(self) -> Iterator[None]:
        try:
            yield
        except ContractError as error:
            self._metrics.refused(error.reason)
            raise

    def _duplicate(self, candidate: Candidate, row: Row) -> ContractError:
        matches = self._content_matches(candidate, row)
        return duplicate_signal(
            candidate.signal_id, row.signal.ack_id, datetime_of(row.ingested_at), content_matches=matches
        )

    def _content_matches(self, candidate: Candidate, row: Row) -> bool:
        matches = same_content(candidate.event, row.signal.event)
        if not matches:
            self.other_content_count += 1
            log.warning("repeat_with_other_content", signal_id=candidate.signal_id, count=self.other_content_count)
        return matches


def datetime_of(microseconds: int) -> datetime:
    """Aware, from microseconds since the epoch."""
    return EPOCH + timedelta(microseconds=microseconds)


def utc_now() -> datetime:
    return datetime.now(UTC)


def same_content(one: bytes, other: bytes) -> bool:
    """Whether two stored events say the same signal, as far as this program knows its fields; when and how they were
    emitted may differ. Bytes that somebody garbled say nothing."""
    return one == other or ((known := _maybe_content(one)) is not None and known == _maybe_content(other))


def _maybe_content(encoded: bytes) -> Signal | None:
    try:
        event = SignalEvent.FromString(encoded)
    except DecodeError:
        return None
    event.DiscardUnknownFields()
    return event.signal


def _check_batch(records: Sequence[LedgerRecord], ledger_id: str) -> None:
    if not 1 <= len(records) <= BATCH_ITEMS_MAX:
        raise _bad("records", f"must have 1 to {BATCH_ITEMS_MAX} items, has {len(records)}")
    if len(records) > 1 and sum(len(record.event) for record in records) > BATCH_BYTES_MAX:
        raise _bad("records", f"must be at most {BATCH_BYTES_MAX} bytes together")
    for index, record in enumerate(records):
        if violations := violations_of_position(record.position):
            path = f"records[{index}].position."
            raise invalid_signal([Violation(path + field, description) for field, description in violations])
        if record.position.ledger_id != ledger_id:
            raise _bad(f"records[{index}].position.ledger_id", "must be the ledger of the hello")


def _entry(record: LedgerRecord, path: ArrivalPath.ValueType, run_id: str) -> tuple[Entry, SignalEvent | None]:
    """With the event, if it is valid."""
    event = SignalEvent()
    position = _position(record.position)
    try:
        if len(record.event) > EVENT_BYTES_MAX:
            raise _bad("event", f"must be at most {EVENT_BYTES_MAX} bytes, is {len(record.event)}")
        event.ParseFromString(record.event)
        check_fields(event, len(record.event))  # not the clock: OMEN's judged it, and ours may be behind
        check_ids(event)
    except DecodeError:
        return Refused(position, "", _bad("event", "must be a SignalEvent"), record.event, path), None
    except ContractError as error:
        if error.reason is Reason.SCHEMA_VERSION_UNSUPPORTED:
            raise
        signal_id = event.signal_id if SIGNAL_ID.fullmatch(event.signal_id) else ""
        return Refused(position, signal_id, error, record.event, path), None
    return _candidate(event, record.event, position, path, run_id), event


def _candidate(
    event: SignalEvent, encoded: bytes, position: Position | None, path: ArrivalPath.ValueType, run_id: str = ""
) -> Candidate:
    signal_id, input_event_hash, emitted_at = event.signal_id, event.input_event_hash, event.emitted_at
    return Candidate(
        signal_id,
        input_event_hash,
        ack_id(signal_id, input_event_hash),
        encoded,
        emitted_at.seconds * 1_000_000 + emitted_at.nanos // 1000,
        event.signal.category,
        event.source_event_id,
        position,
        path,
        run_id,
    )


def _checked_position(position: LedgerPosition) -> Position:
    if violations := violations_of_position(position):
        raise invalid_signal([Violation(f"position.{field}", description) for field, description in violations])
    return _position(position)


def _position(position: LedgerPosition) -> Position:
    return Position(position.ledger_id, position.partition, position.segment_id, position.sequence)


def _bad(field: str, description: str) -> ContractError:
    return invalid_signal([Violation(field, description)])
