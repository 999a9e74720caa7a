"""`omen signal get | list | watch`: signals as the ledger holds them."""

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated

import grpc
import typer

from contract.categories import category_name
from contract.errors import ErrorDetails, Reason, timestamp
from contract.limits import PAGE_SIZE_MAX
from omen.v1 import signal_service_pb2 as pb
from omen.v1.signal_event_pb2 import SignalEvent
from omen.v1.signal_service_pb2_grpc import SignalServiceStub
from omen_server.cli.connection import CALL_TIMEOUT_S, Target, connected
from serving.console import (
    EmittedBefore,
    EmittedFrom,
    Exit,
    OfCategory,
    Output,
    Printer,
    described,
    fields,
    finish,
    run_command,
    say,
)

if TYPE_CHECKING:  # at run time there is one stub class for both kinds of channels
    from omen.v1.signal_service_pb2_grpc import SignalServiceAsyncStub

COLUMNS = ("emitted_at", "signal_id", "partition", "sequence", "delivery_status", "probability", "confidence", "title")
LIST_COLUMNS = ("emitted_at", "signal_id", "category", "probability", "confidence", "title")

# A stream is cut whenever its connection is replaced; a server that is away for longer is not waited for.
RESUME_DELAY_S = 1.0
RESUMES_IN_VAIN_MAX = 30
RESUMED_AFTER = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)

SignalId = Annotated[str, typer.Argument(help="OMEN- and 12 to 64 hex digits.")]
Format = Annotated[Output, typer.Option("--output", "-o", help="How to write the data.")]


def get_signal(signal_id: SignalId, output: Format = Output.JSON, target: Target = None) -> None:
    """Show one signal, and what is known of its delivery."""
    found = run_command(_get(target, signal_id))
    status = pb.DeliveryStatus.Name(found.delivery_status).removeprefix("DELIVERY_STATUS_")
    at = {"partition": found.position.partition, "sequence": found.position.sequence, "delivery_status": status}
    with Printer(output, COLUMNS) as printer:
        printer.add({**row_of(found.event), **at}, fields(found))


def list_signals(
    emitted_from: EmittedFrom = None,
    emitted_before: EmittedBefore = None,
    category: OfCategory = None,
    question: Annotated[str, typer.Option(help="Only this question: a source_event_id.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 100,
    output: Format = Output.TABLE,
    target: Target = None,
) -> None:
    """List signals in the order of emitted_at, then signal_id. Exit code 7 when some of them cannot be read."""
    request = pb.ListSignalsRequest(
        emitted_from=timestamp(emitted_from) if emitted_from else None,
        emitted_before=timestamp(emitted_before) if emitted_before else None,
        category=category,
        source_event_id=question,
    )
    with Printer(output, LIST_COLUMNS) as printer:
        unreadable_count = run_command(_list(target, request, limit, printer))
    if unreadable_count:
        say(f"{unreadable_count} more cannot be read: omen ledger damage")
        finish(Exit.INTEGRITY)


def watch_signals(
    cursor: Annotated[str, typer.Option(help="Go on right after the line that has this cursor.")] = "",
    limit: Annotated[int, typer.Option(min=0, help="End after so many; 0 means never.")] = 0,
    pass_over_pruned: Annotated[
        bool, typer.Option("--pass-over-pruned", help="Go on behind records that were pruned meanwhile.")
    ] = False,
    target: Target = None,
) -> None:
    """Follow the ledger from now on, or from a cursor: a JSON object per record and line, with its cursor.

    Goes on by itself when the connection is cut. Records that cannot be read, or were pruned, are named on stderr.
    """
    request = pb.WatchSignalsRequest(cursor=cursor, pass_over_pruned=pass_over_pruned)
    run_command(Watch(request, limit).run(target))


class Watch:
    """Where a watch has come to, over every connection."""

    def __init__(self, request: pb.WatchSignalsRequest, limit: int) -> None:
        self._request = request
        self._limit = limit
        self._told_count = 0
        self._in_vain = 0

    async def run(self, target: str | None) -> None:
        async with connected(target) as channel:
            stub = SignalServiceStub(channel)
            while True:
                try:
                    if await self._follow(stub):
                        return
                except grpc.aio.AioRpcError as error:
                    self._in_vain += 1
                    is_passing = error.code() in RESUMED_AFTER and self._in_vain <= RESUMES_IN_VAIN_MAX
                    if not (self._request.cursor and is_passing):
                        self._tell_how_to_go_on(error)
                        raise
                    say(f"going on after: {described(error)}")
                await asyncio.sleep(RESUME_DELAY_S)

    async def _follow(self, stub: "SignalServiceAsyncStub") -> bool:
        """Whether enough has been told."""
        async for message in stub.WatchSignals(self._request):
            self._request.cursor, self._in_vain = message.cursor, 0
            if message.HasField("passed_over"):
                over = message.passed_over
                what = "were pruned" if over.is_pruned else "cannot be read"
                say(f"{over.partition}: sequences {over.first_sequence} to {over.last_sequence} {what}")
            elif message.HasField("record"):
                self._tell(message)
                if self._told_count == self._limit:
                    return True
        return False

    def _tell_how_to_go_on(self, error: grpc.aio.AioRpcError) -> None:
        rich = ErrorDetails.from_trailing_metadata(error.trailing_metadata())
        if rich and rich.reason == Reason.PARTITION_PRUNED:
            say(f"go on behind it, and be told what it held: --pass-over-pruned --cursor {self._request.cursor}")

    def _tell(self, message: pb.WatchSignalsResponse) -> None:
        event, position = SignalEvent.FromString(message.record.event), fields(message.record.position)
        with Printer(Output.JSONL, ()) as printer:
            printer.add({}, {"cursor": message.cursor, "position": position, "event": fields(event)})
        sys.stdout.flush()
        self._told_count += 1


async def _get(target: str | None, signal_id: str) -> pb.GetSignalResponse:
    async with connected(target) as channel:
        request = pb.GetSignalRequest(signal_id=signal_id)
        return await SignalServiceStub(channel).GetSignal(request, timeout=CALL_TIMEOUT_S)


async def _list(target: str | None, request: pb.ListSignalsRequest, limit: int, printer: Printer) -> int:
    """Page by page; how many cannot be read."""
    unreadable_count = 0
    async with connected(target) as channel:
        stub = SignalServiceStub(channel)
        while limit:
            request.page_size = min(limit, PAGE_SIZE_MAX)
            page = await stub.ListSignals(request, timeout=CALL_TIMEOUT_S)
            for event in page.events:
                printer.add(row_of(event), fields(event))
            unreadable_count += len(page.unreadable)
            limit -= len(page.events) + len(page.unreadable)
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return unreadable_count
    say("there are more: --limit shows more")
    return unreadable_count


def row_of(event: SignalEvent) -> dict[str, object]:
    return {
        "emitted_at": event.emitted_at.ToJsonString(),
        "signal_id": event.signal_id,
        "category": category_name(event.signal.category),
        "probability": event.signal.probability,
        "confidence": event.signal.confidence_score,
        "title": event.signal.title,
    }
