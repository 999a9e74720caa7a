"""Events in: completed, checked, appended; then, if asked, the wait for what RiskCast says of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import structlog
from google.protobuf.duration_pb2 import Duration
from structlog.contextvars import bind_contextvars

from contract.errors import ContractError, Reason, Violation, invalid_signal, item_error, timestamp
from contract.identity import fill_identity
from contract.limits import DELIVERY_TIMEOUT_DEFAULT, DELIVERY_TIMEOUT_MAX, EVENT_BYTES_MAX
from contract.validation import check_emitted_at, check_fields, check_ids
from contract.versions import SCHEMA_VERSION
from ledger import Position
from ledger.times import moment_of
from omen.v1 import signal_service_pb2 as pb
from omen.v1.signal_event_pb2 import SignalEvent
from omen_server.appends import Answer, Append, Request
from omen_server.conflict import widened
from omen_server.journal import Journal
from omen_server.outcome import Outcome
from omen_server.recent import Recent, RecentSignals
from omen_server.records import put_position
from serving.telemetry.names import bind_signal, signal_names
from serving.telemetry.traces import current_traceparent

TRACEPARENT_BYTES_MAX = 64  # the current one is of the version that has 55, and its field has a head

WAITS = frozenset(pb.WaitFor.values())

DERIVED = ("signal_id", "deterministic_trace_id")  # from source_event_id, input_event_hash and ruleset_version

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Wait:
    """How long to wait for RiskCast, in seconds; None: for the ledger alone."""

    delivery_timeout_s: float | None = DELIVERY_TIMEOUT_DEFAULT.total_seconds()


def wait_of(wait_for: "pb.WaitFor.ValueType", delivery_timeout: Duration | None) -> Wait:
    """What a request asks to wait for; `delivery_timeout` is None where the request leaves it out.

    Raises ContractError: INVALID_SIGNAL.
    """
    if wait_for not in WAITS:
        raise invalid_signal([Violation("wait_for", "must be one of those that this server knows")])
    asked = Wait()
    if delivery_timeout is not None:
        timeout_s = delivery_timeout.seconds + delivery_timeout.nanos / 1e9
        if not (0 <= delivery_timeout.nanos < 1e9 and 0 <= timeout_s <= DELIVERY_TIMEOUT_MAX.total_seconds()):
            raise invalid_signal([Violation("delivery_timeout", "must be from 0 to 60 s")])
        asked = Wait(timeout_s)
    return Wait(None) if wait_for == pb.WAIT_FOR_LEDGER else asked


class Origin:
    """When, and in which trace, events are emitted; the same for all of a request."""

    def __init__(self, now: datetime, traceparent: str) -> None:
        self.now = now
        self.emitted_at = timestamp(now)
        self.traceparent = traceparent


class Outcomes(Protocol):
    """Where the outcomes of records come in."""

    def join(self, append: Append, position: Position) -> bool:
        """Wait for the outcome of a record that is durable already; False when none is to come."""


class Emitter:
    """The one way into the ledger."""

    def __init__(
        self, journal: Journal, recent: RecentSignals, outcomes: Outcomes, *, now: Callable[[], datetime]
    ) -> None:
        self._journal = journal
        self._recent = recent
        self._outcomes = outcomes
        self._now = now

    async def emit(self, event: SignalEvent, wait: Wait) -> pb.Emission:
        """Append `event`, whose empty derivable fields are filled in; it is in the ledger when this returns.

        Every line that is logged from then on in the same task names it; several go into tasks of their own.
        Raises ContractError: INVALID_SIGNAL, SIGNAL_ID_MISMATCH, SCHEMA_VERSION_UNSUPPORTED, PARTITION_CLOSED,
        QUEUE_FULL, LEDGER_FULL (nothing was stored), LEDGER_UNAVAILABLE (outcome unknown).
        """
        try:
            [answer] = await self._answers([event], wait)
        finally:
            bind_signal(event.signal_id, event.deterministic_trace_id, event.traceparent)
        if isinstance(answer, ContractError):
            raise answer
        status = pb.EmissionStatus.Name(answer.status).removeprefix("EMISSION_STATUS_")
        bind_contextvars(status=status, signal_id=answer.signal_id)
        emission = pb.Emission()
        self._tell(event, answer, emission)
        return emission

    async def emit_each(self, events: Sequence[SignalEvent], wait: Wait) -> pb.EmitStreamResponse:
        """What `emit` would answer or raise for each, in order. A bad event fails itself, not its neighbours."""
        response = pb.EmitStreamResponse()
        for event, answer in zip(events, await self._answers(events, wait), strict=True):
            result = response.results.add()
            if isinstance(answer, ContractError):
                result.error.CopyFrom(item_error(answer))
            else:
                self._tell(event, answer, result.emission)
        return response

    async def _answers(self, events: Sequence[SignalEvent], wait: Wait) -> list[Answer]:
        origin = Origin(self._now(), current_traceparent())
        request = Request(len(events), waits_for_riskcast=wait.delivery_timeout_s is not None)
        appends: list[Append] = []
        for index, event in enumerate(events):
            try:
                append = self._append(event, request, index, origin)
            except ContractError as error:
                request.answer(index, error)
            else:
                appends += [append] if append else []
        if appends:
            self._journal.append(appends)
        return await request.answered(wait.delivery_timeout_s)

    def _append(self, event: SignalEvent, request: Request, index: int, origin: Origin) -> Append | None:
        """None: a record that is there already answers for the event. Raises ContractError."""
        is_emitted_now = not event.HasField("emitted_at")
        payload = checked(event, origin)
        recent = self._recent.maybe_recent(event.signal_id)
        if recent is not None and recent.input_event_hash != event.input_event_hash:
            event, recent = self._widened(event)
            payload = event.SerializeToString()
        emitted_at = origin.now if is_emitted_now else moment_of(event.emitted_at.ToMicroseconds())
        append = Append(payload, emitted_at, event.signal_id, event.input_event_hash, request, index)
        return append if recent is None or not self._repeats(append, recent) else None

    def _widened(self, event: SignalEvent) -> tuple[SignalEvent, Recent | None]:
        """Another event has the id: this one goes under more digits of its own digest, if that leaves room for it."""
        wide = widened(event)
        if wide is None or wide.ByteSize() > EVENT_BYTES_MAX:
            return event, None
        names = signal_names(event.signal_id, event.deterministic_trace_id, event.traceparent)
        log.warning("signal_id_conflict", emitted_again_as=wide.signal_id, **names)
        return wide, self._recent.maybe_recent(wide.signal_id)

    def _repeats(self, append: Append, recent: Recent) -> bool:
        """Whether the record that is there already answers for this one too."""
        if recent.ack_id:
            status = pb.EMISSION_STATUS_DUPLICATE
            append.answer(Outcome(status, recent.position, recent.signal_id, recent.ack_id))
            return True
        if append.request.waits_for_riskcast:
            return self._outcomes.join(append, recent.position)
        append.became_durable(recent.position)
        return True

    def _tell(self, event: SignalEvent, outcome: Outcome, into: pb.Emission) -> None:
        into.status = outcome.status
        into.signal_id = outcome.signal_id
        into.deterministic_trace_id = event.deterministic_trace_id
        into.input_event_hash = event.input_event_hash
        put_position(into.position, self._journal.ledger_id, outcome.position)
        into.ack_id = outcome.ack_id
        into.ledger_only_reason = outcome.ledger_only_reason
        if outcome.rejection is not None:
            into.rejection.CopyFrom(outcome.rejection)


def checked(event: SignalEvent, origin: Origin) -> bytes:
    """The event completed, checked, and as the ledger is to hold it.

    Raises ContractError: INVALID_SIGNAL, SIGNAL_ID_MISMATCH, SCHEMA_VERSION_UNSUPPORTED.
    """
    are_ids_given = event.signal_id or event.deterministic_trace_id
    is_emitted_now = not event.HasField("emitted_at")
    complete(event, origin)
    payload = event.SerializeToString()
    check_completed(event, len(payload))
    if not is_emitted_now:
        check_emitted_at(event, origin.now)
    if are_ids_given:
        check_ids(event)
    return payload


def complete(event: SignalEvent, origin: Origin) -> None:
    """Fill in what a producer may leave out. What is given stays, and is checked."""
    event.schema_version = event.schema_version or SCHEMA_VERSION
    if not event.HasField("emitted_at"):
        event.emitted_at.CopyFrom(origin.emitted_at)
    if event.HasField("signal"):
        event.signal.probability += 0.0  # -0.0 becomes 0.0
    fill_identity(event)
    is_traced = origin.traceparent and not event.traceparent
    if is_traced and event.ByteSize() + TRACEPARENT_BYTES_MAX <= EVENT_BYTES_MAX:
        event.traceparent = origin.traceparent  # says who emitted it, and is no part of what it says


def check_completed(event: SignalEvent, byte_size: int) -> None:
    """As `check_fields`, but what could not be derived is not asked for: what it derives from is."""
    try:
        check_fields(event, byte_size)
    except ContractError as error:
        named = [flaw for flaw in error.violations if flaw.field not in DERIVED or getattr(event, flaw.field)]
        if error.reason is not Reason.INVALID_SIGNAL or not named:
            raise
        raise invalid_signal(named) from error
