"""Events in: completed, checked, appended; then, if asked, the wait for what RiskCast says of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import structlog
from google.protobuf.duration_pb2 import Duration
from structlog.contextvars import bind_contextvars

from contract.errors import ContractError, Reason, Violation, invalid_signal, timestamp
from contract.identity import fill_identity
from contract.limits import DELIVERY_TIMEOUT_DEFAULT, DELIVERY_TIMEOUT_MAX, EVENT_BYTES_MAX
from contract.validation import check_event
from contract.versions import SCHEMA_VERSION
from ledger import Position
from omen.v1 import signal_service_pb2 as pb
from omen.v1.signal_event_pb2 import SignalEvent
from omen_server.appends import Answer, Append, Request
from omen_server.conflict import widened
from omen_server.journal import Journal
from omen_server.outcome import Outcome
from omen_server.recent import Recent, RecentSignals
from omen_server.records import ledger_position
from serving.telemetry.names import bind_signal, signal_names
from serving.telemetry.traces import current_traceparent

TRACEPARENT_BYTES_MAX = 64  # the current one is of the version that has 55, and its field has a head

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
    if wait_for == pb.WAIT_FOR_LEDGER:
        return Wait(None)
    if delivery_timeout is None:
        return Wait()
    timeout_s = delivery_timeout.seconds + delivery_timeout.nanos / 1e9
    if not (0 <= delivery_timeout.nanos < 1e9 and 0 <= timeout_s <= DELIVERY_TIMEOUT_MAX.total_seconds()):
        raise invalid_signal([Violation("delivery_timeout", "must be from 0 to 60 s")])
    return Wait(timeout_s)


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
            [answer] = await self.emit_each([event], wait)
        finally:
            bind_signal(event.signal_id, event.deterministic_trace_id, event.traceparent)
        if isinstance(answer, ContractError):
            raise answer
        status = pb.EmissionStatus.Name(answer.status).removeprefix("EMISSION_STATUS_")
        bind_contextvars(status=status, signal_id=answer.signal_id)
        return answer

    async def emit_each(self, events: Sequence[SignalEvent], wait: Wait) -> list[pb.Emission | ContractError]:
        """What `emit` would answer or raise for each, in order. A bad event fails itself, not its neighbours."""
        now = self._now()
        request = Request(len(events), waits_for_riskcast=wait.delivery_timeout_s is not None)
        for index, event in enumerate(events):
            try:
                self._hand_in(event, request, index, now)
            except ContractError as error:
                request.answer(index, error)
        answers = await request.answered(wait.delivery_timeout_s)
        return [self._told(event, answer) for event, answer in zip(events, answers, strict=True)]

    def _hand_in(self, event: SignalEvent, request: Request, index: int, now: datetime) -> None:
        complete(event, now)
        check_completed(event, now)
        recent = self._recent.maybe_recent(event.signal_id)
        if recent is not None and recent.input_event_hash != event.input_event_hash:
            event, recent = self._widened(event)
        append = Append(
            event.SerializeToString(),
            event.emitted_at.ToDatetime(now.tzinfo),
            event.signal_id,
            event.input_event_hash,
            request,
            index,
        )
        if recent is None or not self._repeats(append, recent):
            self._journal.append(append)

    def _widened(self, event: SignalEvent) -> tuple[SignalEvent, Recent | None]:
        """Another event has the id: this one goes under more digits of its own digest."""
        wide = widened(event) or event
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

    def _told(self, event: SignalEvent, answer: Answer) -> pb.Emission | ContractError:
        if isinstance(answer, ContractError):
            return answer
        return pb.Emission(
            status=answer.status,
            signal_id=answer.signal_id,
            deterministic_trace_id=event.deterministic_trace_id,
            input_event_hash=event.input_event_hash,
            position=ledger_position(self._journal.ledger_id, answer.position),
            ack_id=answer.ack_id,
            rejection=answer.rejection,
            ledger_only_reason=answer.ledger_only_reason,
        )


def complete(event: SignalEvent, now: datetime) -> None:
    """Fill in what a producer may leave out. What is given stays, and is checked."""
    event.schema_version = event.schema_version or SCHEMA_VERSION
    if not event.HasField("emitted_at"):
        event.emitted_at.CopyFrom(timestamp(now))
    if event.HasField("signal"):
        event.signal.probability += 0.0  # -0.0 becomes 0.0
    fill_identity(event)
    if not event.traceparent and event.ByteSize() + TRACEPARENT_BYTES_MAX <= EVENT_BYTES_MAX:
        event.traceparent = current_traceparent()  # says who emitted it, and is no part of what it says


def check_completed(event: SignalEvent, now: datetime) -> None:
    """As `check_event`, but what could not be derived is not asked for: what it derives from is."""
    try:
        check_event(event, now=now)
    except ContractError as error:
        named = [flaw for flaw in error.violations if flaw.field not in DERIVED or getattr(event, flaw.field)]
        if error.reason is not Reason.INVALID_SIGNAL or not named:
            raise
        raise invalid_signal(named) from error
