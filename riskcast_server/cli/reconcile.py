"""`riskcast reconcile`: compares with the ledgers, and fetches what is missing."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import grpc
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from riskcast.v1 import reconcile_service_pb2 as pb
from riskcast.v1.reconcile_service_pb2_grpc import ReconcileServiceStub
from riskcast_server.cli.connection import Shape, Target, connected
from serving.console import Exit, Output, Printer, finish, run_command, say

RECONCILE_COLUMNS = (
    *("ledger_id", "partition", "status", "records", "missing"),
    *("replayed", "verified", "failed", "extra", "reason"),
)

RESUMES_MAX = 6  # in a row without a message between; with the pauses below some 30 s, as long as a lease lasts
RESUME_PAUSE_S = 0.5  # doubled each time

EXITS = {
    pb.RECONCILE_STATUS_COMPLETED: Exit.OK,
    pb.RECONCILE_STATUS_SKIPPED: Exit.OK,
    pb.RECONCILE_STATUS_PARTIAL: Exit.PARTIAL,
}

# The server restarts, or the run that was cut still holds its lease.
RESUMABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED)

Ledgers = Annotated[list[str] | None, typer.Option("--ledger", help="Only this ledger (repeatable).")]
Partitions = Annotated[list[str] | None, typer.Option("--partition", help="Only this partition (repeatable).")]


def reconcile(
    target: Target = None,
    ledger: Ledgers = None,
    partition: Partitions = None,
    since_days: Annotated[int, typer.Option(min=0, help="Only the last so many UTC days; 0 means all.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Find out, fetch nothing.")] = False,
    include_open: Annotated[bool, typer.Option("--include-open", help="Partitions still in use too.")] = False,
    verify_content: Annotated[
        bool,
        typer.Option("--verify-content", help="Compare what is stored with what the ledger says, record by record."),
    ] = False,
    output: Shape = Output.TABLE,
) -> None:
    """Compare with the ledgers and fetch what is missing. Exits 6 when something stays missing.

    A run that is cut, because a server restarts or a connection breaks, is resumed where it was.
    """
    request = pb.ReconcileRequest(
        ledger_ids=ledger or (),
        partitions=partition or (),
        since_days=since_days,
        dry_run=dry_run,
        include_open=include_open,
        verify_content=verify_content,
    )
    with Printer(output, RECONCILE_COLUMNS) as printer:
        code = run_command(_reconcile(target, request, printer))
    finish(code)


async def _reconcile(target: str | None, request: pb.ReconcileRequest, printer: Printer) -> Exit:
    """Shows each partition as it is done."""
    broken: list[pb.ReconcileState] = []
    maybe_run: pb.RunFinished | None = None
    async with connected(target) as channel:
        with _progress() as bar:
            task = bar.add_task("reconcile", total=None)
            async for message in resumed(ReconcileServiceStub(channel), request):
                _advance(bar, task, message)
                if message.HasField("partition_finished"):
                    finished = message.partition_finished
                    printer.add(_row(finished))
                    if finished.state.status == pb.RECONCILE_STATUS_FAILED:
                        broken.append(finished.state)
                if message.HasField("run_finished"):
                    maybe_run = message.run_finished
    if maybe_run is None:
        say("the run was cut")
        return Exit.UNAVAILABLE
    return _failed(broken) if broken else _ended(maybe_run)


async def resumed(stub: Any, request: pb.ReconcileRequest) -> AsyncIterator[pb.ReconcileResponse]:
    """The messages of one run, over as many calls as it takes. Ends without run_finished when it cannot go on."""
    cuts, is_over = 0, False
    while cuts <= RESUMES_MAX:
        try:
            async for message in stub.Reconcile(request):
                yield message
                is_over = message.HasField("run_finished")
                request.cursor, cuts = message.cursor, 0
        except grpc.aio.AioRpcError as error:
            if not (request.cursor and error.code() in RESUMABLE) or cuts == RESUMES_MAX:
                raise
        if is_over or cuts == RESUMES_MAX:
            return
        await asyncio.sleep(RESUME_PAUSE_S * 2**cuts)
        cuts += 1


def _ended(run: pb.RunFinished) -> Exit:
    if not run.partition_count:
        say("nothing was compared: no partition is in scope of the ledgers in the server's RISKCAST_OMEN_TARGETS")
    return EXITS[run.status]


def _failed(broken: list[pb.ReconcileState]) -> Exit:
    """Unavailable when every failure is a whole ledger that could not be reached."""
    say("a ledger could not be compared")
    return Exit.UNEXPECTED if any(state.partition for state in broken) else Exit.UNAVAILABLE


def _progress() -> Progress:
    """On stderr, and only where someone watches."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _advance(bar: Progress, task: TaskID, message: pb.ReconcileResponse) -> None:
    match message.WhichOneof("event"):
        case "partition_started":
            started = message.partition_started
            bar.update(task, description=started.partition, completed=0, total=started.missing_record_count)
        case "progress":
            bar.update(task, completed=message.progress.fetched_record_count)


def _row(finished: pb.PartitionFinished) -> dict[str, object]:
    state = finished.state
    name = pb.ReconcileStatus.Name(state.status).removeprefix("RECONCILE_STATUS_")
    return {
        "ledger_id": state.ledger_id,
        "partition": state.partition,
        "status": name,
        "records": state.ledger_record_count,
        "missing": finished.missing_record_count,
        "replayed": finished.replayed_record_count,
        "verified": finished.verified_record_count,
        "failed": finished.failed_record_count,
        "extra": finished.extra_record_count,
        "reason": state.reason,
    }
