"""`omen delivery`: how the ledger reaches RiskCast, and stopping that for a while."""

from typing import Annotated

import typer

from omen.v1 import delivery_service_pb2 as pb
from omen.v1.delivery_service_pb2_grpc import DeliveryServiceStub
from omen_server.cli.connection import CALL_TIMEOUT_S, Target, connected
from serving.console import Output, Printer, fields, run_command, say, show

STATUS_COLUMNS = (
    "phase",
    "reason",
    "breaker",
    "backlog_record_count",
    "backlog_bytes",
    "oldest_unsettled_age",
    "last_success_at",
    "last_error_at",
    "last_error",
)

Format = Annotated[Output, typer.Option("--output", "-o", help="How to write the data.")]


def status(output: Format = Output.TABLE, target: Target = None) -> None:
    """Show what delivery is doing and what RiskCast has not settled yet."""
    state = run_command(_status(target))
    with Printer(output, STATUS_COLUMNS) as printer:
        shown = fields(state)
        printer.add({"backlog_record_count": "unknown", **shown}, shown)


def pause(
    reason: Annotated[str, typer.Option(help="Why; shown wherever the state is shown.")],
    output: Format = Output.TABLE,
    target: Target = None,
) -> None:
    """Stop sending to RiskCast until `resume`, over restarts too."""
    response = run_command(_pause(reason, target))
    say("delivery is paused")
    show(response, output)


def resume(output: Format = Output.TABLE, target: Target = None) -> None:
    """End a pause."""
    response = run_command(_resume(target))
    say("delivery goes on" if response.was_paused else "delivery was not paused")
    show(response, output)


async def _status(target: str | None) -> pb.GetDeliveryStateResponse:
    async with connected(target) as channel:
        return await DeliveryServiceStub(channel).GetDeliveryState(pb.GetDeliveryStateRequest(), timeout=CALL_TIMEOUT_S)


async def _pause(reason: str, target: str | None) -> pb.PauseDeliveryResponse:
    async with connected(target) as channel:
        return await DeliveryServiceStub(channel).PauseDelivery(
            pb.PauseDeliveryRequest(reason=reason), timeout=CALL_TIMEOUT_S
        )


async def _resume(target: str | None) -> pb.ResumeDeliveryResponse:
    async with connected(target) as channel:
        return await DeliveryServiceStub(channel).ResumeDelivery(pb.ResumeDeliveryRequest(), timeout=CALL_TIMEOUT_S)
