"""`riskcast signals get | count`: what is stored."""

from typing import Annotated

import typer

import serving
from riskcast.v1 import signal_service_pb2 as pb
from riskcast.v1.signal_service_pb2_grpc import SignalServiceStub
from riskcast_server.cli.connection import QUESTION_TIMEOUT_S, Shape, Target, target_of
from serving.console import Output, Printer, fields, run_command

SIGNAL_COLUMNS = ("signal_id", "ack_id", "ingested_at", "ledger_id", "partition", "sequence", "first_arrival")
COUNT_COLUMNS = ("ledger_id", "partition", "signal_count")

app = typer.Typer(no_args_is_help=True, help="What is stored.")


@app.command("get")
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


@app.command("count")
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
    async with serving.connected(target_of(target)) as channel:
        return await SignalServiceStub(channel).GetSignal(request, timeout=QUESTION_TIMEOUT_S)


async def _count(target: str | None, request: pb.CountSignalsRequest) -> pb.CountSignalsResponse:
    async with serving.connected(target_of(target)) as channel:
        return await SignalServiceStub(channel).CountSignals(request, timeout=QUESTION_TIMEOUT_S)


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
