"""`riskcast status`: how each ledger and partition stood when it was last compared, beside what is stored now."""

from typing import Annotated

import typer

from contract.limits import PAGE_SIZE_MAX
from riskcast.v1 import reconcile_service_pb2 as pb
from riskcast.v1.reconcile_service_pb2_grpc import ReconcileServiceStub
from riskcast.v1.signal_service_pb2 import CountSignalsRequest
from riskcast.v1.signal_service_pb2_grpc import SignalServiceStub
from riskcast_server.cli.connection import QUESTION_TIMEOUT_S, Shape, Target, connected
from serving.console import Exit, Output, Printer, finish, run_command

STATUS_COLUMNS = (
    *("ledger_id", "partition", "status", "records", "stored"),
    *("missing", "replayed", "failed", "extra", "finished_at", "reason"),
)
NEVER = "NEVER"

Place = tuple[str, str]  # ledger_id, partition


def status(
    target: Target = None,
    history: Annotated[bool, typer.Option("--history", help="Every one that is kept, the newest first.")] = False,
    output: Shape = Output.TABLE,
) -> None:
    """How each partition stood when it was last compared with its ledger, beside how many signals are stored now.

    Exits 6 when a partition was last found PARTIAL or FAILED.
    """
    states, stored = run_command(_asked(target, history))
    with Printer(output, STATUS_COLUMNS) as printer:
        for state in states:
            printer.add(_row(state, stored.pop((state.ledger_id, state.partition), None)))
        for (ledger_id, partition), count in sorted(stored.items()):
            if ledger_id:
                printer.add({"ledger_id": ledger_id, "partition": partition, "status": NEVER, "stored": count})
    worst = {state.status for state in states} & {pb.RECONCILE_STATUS_PARTIAL, pb.RECONCILE_STATUS_FAILED}
    finish(Exit.PARTIAL if worst and not history else Exit.OK)


async def _asked(target: str | None, is_history: bool) -> tuple[list[pb.ReconcileState], dict[Place, int]]:
    async with connected(target) as channel:
        counted = await SignalServiceStub(channel).CountSignals(CountSignalsRequest(), timeout=QUESTION_TIMEOUT_S)
        stored = {(each.ledger_id, each.partition): each.signal_count for each in counted.partitions}
        states: list[pb.ReconcileState] = []
        request = pb.ListReconcileStatesRequest(page_size=PAGE_SIZE_MAX, include_history=is_history)
        while True:
            page = await ReconcileServiceStub(channel).ListReconcileStates(request, timeout=QUESTION_TIMEOUT_S)
            states += page.states
            if not page.next_page_token:
                return states, stored
            request.page_token = page.next_page_token


def _row(state: pb.ReconcileState, maybe_stored: int | None) -> dict[str, object]:
    return {
        "ledger_id": state.ledger_id,
        "partition": state.partition,
        "status": pb.ReconcileStatus.Name(state.status).removeprefix("RECONCILE_STATUS_"),
        "records": state.ledger_record_count,
        "stored": "" if maybe_stored is None else maybe_stored,
        "missing": state.missing_record_count,
        "replayed": state.replayed_record_count,
        "failed": state.failed_record_count,
        "extra": state.extra_record_count,
        "finished_at": state.finished_at.ToJsonString(),
        "reason": state.reason,
    }
