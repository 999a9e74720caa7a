"""`riskcast signals get | list | count`: what is stored."""

from typing import Annotated

import typer

from contract.categories import category_name
from contract.errors import timestamp
from contract.limits import PAGE_SIZE_MAX
from riskcast.v1 import signal_service_pb2 as pb
from riskcast.v1.signal_service_pb2_grpc import SignalServiceStub
from riskcast_server.cli.connection import QUESTION_TIMEOUT_S, Shape, Target, connected
from serving.console import EmittedBefore, EmittedFrom, OfCategory, Output, Printer, fields, run_command, say

SIGNAL_COLUMNS = ("signal_id", "ack_id", "ingested_at", "ledger_id", "partition", "sequence", "first_arrival")
LIST_COLUMNS = ("emitted_at", "signal_id", "partition", "category", "probability", "confidence", "title")
COUNT_COLUMNS = ("ledger_id", "partition", "signal_count")


def get_signal(
    signal_id: Annotated[str, typer.Argument(help="OMEN- and 12 to 64 hex digits.")],
    target: Target = None,
    output: Shape = Output.JSON,
) -> None:
    """One stored signal."""
    request = pb.GetSignalRequest(signal_id=signal_id)
    response = run_command(_get(target, request))
    with Printer(output, SIGNAL_COLUMNS) as printer:
        printer.add(_signal_row(response.signal), fields(response.signal))


def list_signals(
    target: Target = None,
    emitted_from: EmittedFrom = None,
    emitted_before: EmittedBefore = None,
    category: OfCategory = None,
    question: Annotated[str, typer.Option(help="Only this question: a source_event_id.")] = "",
    ledger: Annotated[str, typer.Option(help="Only of this ledger.")] = "",
    partition: Annotated[str, typer.Option(help="Only of this partition.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 100,
    output: Shape = Output.TABLE,
) -> None:
    """Stored signals in the order of emitted_at, then signal_id."""
    request = pb.ListSignalsRequest(
        emitted_from=timestamp(emitted_from) if emitted_from else None,
        emitted_before=timestamp(emitted_before) if emitted_before else None,
        category=category,
        source_event_id=question,
        ledger_id=ledger,
        partition=partition,
    )
    with Printer(output, LIST_COLUMNS) as printer:
        run_command(_list(target, request, limit, printer))


def count_signals(
    target: Target = None,
    ledger: Annotated[str, typer.Option(help="Only of this ledger.")] = "",
    partition: Annotated[str, typer.Option(help="Only of this partition.")] = "",
    output: Shape = Output.TABLE,
) -> None:
    """How many signals are stored, by ledger and partition, counted now."""
    request = pb.CountSignalsRequest(ledger_id=ledger, partition=partition)
    response = run_command(_count(target, request))
    with Printer(output, COUNT_COLUMNS) as printer:
        for each in response.partitions:
            printer.add({**fields(each), "signal_count": each.signal_count})


async def _get(target: str | None, request: pb.GetSignalRequest) -> pb.GetSignalResponse:
    async with connected(target) as channel:
        return await SignalServiceStub(channel).GetSignal(request, timeout=QUESTION_TIMEOUT_S)


async def _list(target: str | None, request: pb.ListSignalsRequest, limit: int, printer: Printer) -> None:
    """Page by page."""
    async with connected(target) as channel:
        stub = SignalServiceStub(channel)
        while limit:
            request.page_size = min(limit, PAGE_SIZE_MAX)
            page = await stub.ListSignals(request, timeout=QUESTION_TIMEOUT_S)
            for signal in page.signals:
                printer.add(_list_row(signal), fields(signal))
            limit -= len(page.signals)
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return
    say("more are stored: --limit shows more")


async def _count(target: str | None, request: pb.CountSignalsRequest) -> pb.CountSignalsResponse:
    async with connected(target) as channel:
        return await SignalServiceStub(channel).CountSignals(request, timeout=QUESTION_TIMEOUT_S)


def _list_row(signal: pb.StoredSignal) -> dict[str, object]:
    event = signal.event
    return {
        "emitted_at": event.emitted_at.ToJsonString(),
        "signal_id": event.signal_id,
        "partition": signal.position.partition,
        "category": category_name(event.signal.category),
        "probability": event.signal.probability,
        "confidence": event.signal.confidence_score,
        "title": event.signal.title,
    }


def _signal_row(signal: pb.StoredSignal) -> dict[str, object]:
    return {
        "signal_id": signal.event.signal_id,
        "ack_id": signal.ack_id,
        "ingested_at": signal.ingested_at.ToJsonString(),
        "ledger_id": signal.position.ledger_id,
        "partition": signal.position.partition,
        "sequence": signal.position.sequence,
        "first_arrival": pb.ArrivalPath.Name(signal.first_arrival.path).removeprefix("ARRIVAL_PATH_"),
    }
