"""`riskcast reconcile` and `riskcast signals`: questions to a RiskCast that is running."""

import asyncio
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

import serving
from riskcast.v1 import reconcile_service_pb2 as reconcile_pb
from riskcast.v1 import signal_service_pb2 as signal_pb
from riskcast.v1.reconcile_service_pb2_grpc import ReconcileServiceStub
from riskcast.v1.signal_service_pb2_grpc import SignalServiceStub
from riskcast_server.output import (
    EXIT_PARTIAL,
    EXIT_UNAVAILABLE,
    EXIT_UNEXPECTED,
    Output,
    answering,
    failed,
    fields,
    show,
)
from riskcast_server.settings import RiskcastSettings

QUESTION_TIMEOUT_S = 10.0

Target = Annotated[str, typer.Option(help="host:port of the RiskCast to ask.")]
Shape = Annotated[Output, typer.Option("--output", "-o", help="How to print the answer.")]
Ledgers = Annotated[list[str] | None, typer.Option("--ledger", help="Only this ledger (repeatable).")]
Partitions = Annotated[list[str] | None, typer.Option("--partition", help="Only this partition (repeatable).")]

DEFAULT_TARGET: str = RiskcastSettings.model_fields["listen"].default

signals = typer.Typer(no_args_is_help=True, help="What is stored.")


def reconcile(
    target: Target = DEFAULT_TARGET,
    ledger: Ledgers = None,
    partition: Partitions = None,
    since_days: Annotated[int, typer.Option(min=0, help="Only the last so many UTC days; 0 means all.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Find out, fetch nothing.")] = False,
    include_open: Annotated[bool, typer.Option("--include-open", help="Partitions still in use too.")] = False,
    output: Shape = Output.TABLE,
) -> None:
    """Compare with the ledgers and fetch what is missing. Exits 6 when something stays missing."""
    request = reconcile_pb.ReconcileRequest(
        ledger_ids=ledger or (),
        partitions=partition or (),
        since_days=since_days,
        dry_run=dry_run,
        include_open=include_open,
    )
    finished, status = asyncio.run(_reconcile(target, request))
    show([_row(each) for each in finished], output)
    if status == reconcile_pb.RECONCILE_STATUS_PARTIAL:
        raise typer.Exit(EXIT_PARTIAL)
    if status == reconcile_pb.RECONCILE_STATUS_FAILED:
        raise failed("a ledger could not be compared", _failed_exit_code(finished))


@signals.command("get")
def get_signal(
    signal_id: Annotated[str, typer.Argument(help="OMEN- and 12 to 64 hex digits.")],
    target: Target = DEFAULT_TARGET,
    output: Shape = Output.JSON,
) -> None:
    """One stored signal."""
    response = asyncio.run(_ask(target, "GetSignal", signal_pb.GetSignalRequest(signal_id=signal_id)))
    show([fields(response.signal)], output)


@signals.command("count")
def count_signals(
    target: Target = DEFAULT_TARGET,
    ledger: Annotated[str, typer.Option(help="Only of this ledger.")] = "",
    partition: Annotated[str, typer.Option(help="Only of this partition.")] = "",
    output: Shape = Output.TABLE,
) -> None:
    """How many signals are stored, by ledger and partition, counted now."""
    request = signal_pb.CountSignalsRequest(ledger_id=ledger, partition=partition)
    response = asyncio.run(_ask(target, "CountSignals", request))
    show([{**fields(each), "signal_count": each.signal_count} for each in response.partitions], output)


async def _ask(target: str, method: str, request: Any) -> Any:
    async with serving.channel(target) as channel:
        with answering(target):
            return await getattr(SignalServiceStub(channel), method)(request, timeout=QUESTION_TIMEOUT_S)


async def _reconcile(
    target: str, request: reconcile_pb.ReconcileRequest
) -> tuple[list[reconcile_pb.PartitionFinished], reconcile_pb.ReconcileStatus.ValueType]:
    """What finished, and the run's status. Without run_finished the run was cut: exit 5."""
    finished: list[reconcile_pb.PartitionFinished] = []
    async with serving.channel(target) as channel:
        with answering(target), _progress() as bar:
            task = bar.add_task("reconcile", total=None)
            call = ReconcileServiceStub(channel).Reconcile(request)
            async for message in call:
                _advance(bar, task, message)
                if message.HasField("partition_finished"):
                    finished.append(message.partition_finished)
                if message.HasField("run_finished"):
                    return finished, message.run_finished.status
    raise failed("the run was cut", EXIT_UNAVAILABLE)


def _progress() -> Progress:
    """On stderr, and only where someone watches."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _advance(bar: Progress, task: TaskID, message: reconcile_pb.ReconcileResponse) -> None:
    match message.WhichOneof("event"):
        case "partition_started":
            started = message.partition_started
            bar.update(task, description=started.partition, completed=0, total=started.missing_record_count)
        case "progress":
            bar.update(task, completed=message.progress.fetched_record_count)


def _row(finished: reconcile_pb.PartitionFinished) -> dict[str, object]:
    state = finished.state
    name = reconcile_pb.ReconcileStatus.Name(state.status).removeprefix("RECONCILE_STATUS_")
    return {
        "ledger_id": state.ledger_id,
        "partition": state.partition,
        "status": name,
        "records": state.ledger_record_count,
        "missing": finished.missing_record_count,
        "replayed": finished.replayed_record_count,
        "failed": finished.failed_record_count,
        "extra": finished.extra_record_count,
        "reason": state.reason,
    }


def _failed_exit_code(finished: list[reconcile_pb.PartitionFinished]) -> int:
    """Unavailable when every failure is a whole ledger that could not be reached."""
    broken = [each for each in finished if each.state.status == reconcile_pb.RECONCILE_STATUS_FAILED]
    return EXIT_UNAVAILABLE if all(not each.state.partition for each in broken) else EXIT_UNEXPECTED
