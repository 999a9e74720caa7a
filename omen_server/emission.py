"""An event in: completed, checked, appended; then, if asked, the wait for what RiskCast says of it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

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
from omen_server.conflict import widened
from omen_server.journal import Journal
from omen_server.outcome import Outcome
from omen_server.records import ledger_position
from serving.telemetry.names import bind_signal
from serving.telemetry.traces import current_traceparent

TRACEPARENT_BYTES_MAX = 64  # the current one is of the version that has 55, and its field has a head

DERIVED = ("signal_id", "deterministic_trace_id")  # from source_event_id, input_event_hash and ruleset_version


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


class Emitter:
    """The one way into the ledger."""

    def __init__(self, journal: Journal, *, now: Callable[[], datetime]) -> None:
        self._journal = journal
        self._now = now

    async def emit(self, event: SignalEvent, wait: Wait) -> pb.Emission:
        """Append `event`, whose empty derivable fields are filled in; it is in the ledger when this returns.

        Every line that is logged from then on in the same task names it; several go into tasks of their own.
        Raises ContractError: INVALID_SIGNAL, SIGNAL_ID_MISMATCH, SCHEMA_VERSION_UNSUPPORTED, PARTITION_CLOSED,
        QUEUE_FULL, LEDGER_FULL (nothing was stored), LEDGER_UNAVAILABLE (outcome unknown).
        """
        now = self._now()
        complete(event, now)
        bind_signal(event.signal_id, event.deterministic_trace_id, event.traceparent)
        check_completed(event, now)
        emitted_at = event.emitted_at.ToDatetime(now.tzinfo)
        payload = event.SerializeToString()
        if wait.delivery_timeout_s is None:
            position = await self._journal.append(payload, emitted_at)
            return self._emission(event, Outcome(pb.EMISSION_STATUS_LEDGER_ONLY, position))
        delivered: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        position = await self._journal.append(payload, emitted_at, delivered)
        outcome = await within(wait.delivery_timeout_s, delivered, position)
        if outcome.position != position:  # it met a conflict and was appended again
            event = widened(event) or event
        return self._emission(event, outcome)

    def _emission(self, event: SignalEvent, outcome: Outcome) -> pb.Emission:
        status = pb.EmissionStatus.Name(outcome.status).removeprefix("EMISSION_STATUS_")
        bind_contextvars(status=status, signal_id=event.signal_id)
        return pb.Emission(
            status=outcome.status,
            signal_id=event.signal_id,
            deterministic_trace_id=event.deterministic_trace_id,
            input_event_hash=event.input_event_hash,
            position=ledger_position(self._journal.ledger_id, outcome.position),
            ack_id=outcome.ack_id,
            rejection=outcome.rejection,
            ledger_only_reason=outcome.ledger_only_reason,
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


async def within(timeout_s: float, delivered: asyncio.Future[Outcome], position: Position) -> Outcome:
    try:
        async with asyncio.timeout(timeout_s):
            return await delivered
    except TimeoutError:
        reason = f"RiskCast did not answer within {timeout_s:g} s"
        return Outcome(pb.EMISSION_STATUS_LEDGER_ONLY, position, ledger_only_reason=reason)
