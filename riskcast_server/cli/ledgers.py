"""`riskcast ledgers accept`: what an operator decides about a ledger."""

from typing import Annotated

import typer

from riskcast.v1 import reconcile_service_pb2 as pb
from riskcast.v1.reconcile_service_pb2_grpc import ReconcileServiceStub
from riskcast_server.cli.connection import QUESTION_TIMEOUT_S, Shape, Target, connected
from serving.console import Output, Printer, run_command, say

ACCEPTED_COLUMNS = ("partition", "records")


def accept(
    ledger: Annotated[str, typer.Argument(help="The ledger's id, as `riskcast status` shows it.")],
    reason: Annotated[str, typer.Option(help="Why, for whoever comes next.")],
    target: Target = None,
    output: Shape = Output.TABLE,
) -> None:
    """Accept that the ledger lacks what is settled here (LEDGER_REGRESSED, LEDGER_FORKED). Nothing is deleted."""
    request = pb.AcceptDivergenceRequest(ledger_id=ledger, reason=reason)
    response = run_command(_accept(target, request))
    if not response.accepted:
        say("nothing is settled here that the ledger lacks")
    with Printer(output, ACCEPTED_COLUMNS) as printer:
        for each in response.accepted:
            printer.add({"partition": each.partition, "records": each.record_count})


async def _accept(target: str | None, request: pb.AcceptDivergenceRequest) -> pb.AcceptDivergenceResponse:
    async with connected(target) as channel:
        return await ReconcileServiceStub(channel).AcceptDivergence(request, timeout=QUESTION_TIMEOUT_S)
