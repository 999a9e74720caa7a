"""`omen delivery dead-letters | redrive | drop`: records that RiskCast rejected."""

from collections.abc import AsyncIterator
from typing import Annotated

import typer
from google.protobuf.message import DecodeError

from contract.limits import PAGE_SIZE_MAX
from omen.v1 import delivery_service_pb2 as pb
from omen.v1.delivery_service_pb2_grpc import DeliveryServiceStub
from omen.v1.ledger_record_pb2 import LedgerPosition
from omen.v1.signal_event_pb2 import SignalEvent
from omen_server.cli.connection import CALL_TIMEOUT_S, Target, connected
from serving.console import Exit, Output, Printer, fields, finish, run_command, say, show

COLUMNS = ("position", "signal_id", "reason", "message", "attempt_count", "last_rejected_at", "state", "title")


def a_position(text: str) -> LedgerPosition:
    """As `dead-letters` shows it."""
    partition, _, sequence = text.partition("/")
    if not (sequence.isascii() and sequence.isdecimal() and int(sequence) < 1 << 64):
        raise typer.BadParameter(f"{text!r} is no position such as 2026-01-29/4294967297")
    return LedgerPosition(partition=partition, sequence=int(sequence))


Positions = Annotated[
    list[LedgerPosition] | None,
    typer.Option("--position", parser=a_position, metavar="PARTITION/SEQUENCE", help="Only this one; may be repeated."),
]
ReasonCode = Annotated[str, typer.Option("--reason-code", help="Only rejected for this, for example INVALID_SIGNAL.")]
Partition = Annotated[str, typer.Option(help="Only of this partition.")]
Format = Annotated[Output, typer.Option("--output", "-o", help="How to write the data.")]


def dead_letters(
    position: Positions = None,
    reason_code: ReasonCode = "",
    partition: Partition = "",
    output: Format = Output.TABLE,
    target: Target = None,
) -> None:
    """List what RiskCast rejected, oldest first, with what was given up."""
    picked = pb.DeadLetterFilter(positions=position or (), reason=reason_code, partition=partition)
    with Printer(output, COLUMNS) as printer:
        run_command(_list(target, picked, printer))


def redrive(
    position: Positions = None,
    reason_code: ReasonCode = "",
    partition: Partition = "",
    output: Format = Output.TABLE,
    target: Target = None,
) -> None:
    """Send dead letters again. What was given up only by its position. Exit code 3 when there is none of the kind."""
    picked = pb.DeadLetterFilter(positions=position or (), reason=reason_code, partition=partition)
    response = run_command(_redrive(target, picked))
    count = response.redriven_count
    say(f"{count} dead letters are sent again" if count else "no such dead letter")
    show(response, output)
    finish(Exit.OK if count else Exit.NOT_FOUND)


def drop(
    reason: Annotated[str, typer.Option(help="Why; it is kept and shown.")],
    position: Positions = None,
    reason_code: ReasonCode = "",
    partition: Partition = "",
    output: Format = Output.TABLE,
    target: Target = None,
) -> None:
    """Give dead letters up; Reconcile then does without them. Exit code 3 when there is none of the kind."""
    picked = pb.DeadLetterFilter(positions=position or (), reason=reason_code, partition=partition)
    response = run_command(_drop(target, picked, reason))
    count = response.dropped_count
    say(f"{count} dead letters are given up" if count else "no such dead letter, or it was given up before")
    show(response, output)
    finish(Exit.OK if count else Exit.NOT_FOUND)


async def _list(target: str | None, picked: pb.DeadLetterFilter, printer: Printer) -> None:
    async for letter in _letters(target, picked):
        event = _maybe_event(letter.record.event)
        row = {
            "position": f"{letter.record.position.partition}/{letter.record.position.sequence}",
            "signal_id": event.signal_id if event else "",
            "reason": letter.rejection.reason,
            "message": letter.rejection.message,
            "attempt_count": letter.attempt_count,
            "last_rejected_at": letter.last_rejected_at.ToJsonString(),
            "state": _state(letter),
            "title": event.signal.title if event else "",
        }
        printer.add(row, {**fields(letter), "event": fields(event) if event else None})


async def _letters(target: str | None, picked: pb.DeadLetterFilter) -> AsyncIterator[pb.DeadLetter]:
    """Page by page."""
    request = pb.ListDeadLettersRequest(filter=picked, page_size=PAGE_SIZE_MAX)
    async with connected(target) as channel:
        stub = DeliveryServiceStub(channel)
        while True:
            page = await stub.ListDeadLetters(request, timeout=CALL_TIMEOUT_S)
            for letter in page.dead_letters:
                yield letter
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return


async def _redrive(target: str | None, picked: pb.DeadLetterFilter) -> pb.RedriveDeadLettersResponse:
    async with connected(target) as channel:
        request = pb.RedriveDeadLettersRequest(filter=picked)
        return await DeliveryServiceStub(channel).RedriveDeadLetters(request, timeout=CALL_TIMEOUT_S)


async def _drop(target: str | None, picked: pb.DeadLetterFilter, reason: str) -> pb.DropDeadLettersResponse:
    async with connected(target) as channel:
        request = pb.DropDeadLettersRequest(filter=picked, reason=reason)
        return await DeliveryServiceStub(channel).DropDeadLetters(request, timeout=CALL_TIMEOUT_S)


def _state(letter: pb.DeadLetter) -> str:
    if letter.HasField("dropped_at"):
        return f"dropped: {letter.drop_reason}"
    return "redriving" if letter.HasField("redrive_requested_at") else "waiting"


def _maybe_event(payload: bytes) -> SignalEvent | None:
    """None for one that cannot be read, or is no event: it may have been rejected for that."""
    try:
        return SignalEvent.FromString(payload) if payload else None
    except DecodeError:
        return None
