"""`riskcast reconcile` and `riskcast signals`: questions to a RiskCast that is running."""

from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

import serving
from riskcast.v1 import reconcile_service_pb2 as reconcile_pb
from riskcast.v1 import signal_service_pb2 as signal_pb
from riskcast.v1.reconcile_service_pb2_grpc import ReconcileServiceStub
from riskcast.v1.signal_service_pb2_grpc import SignalServiceStub
from riskcast_server.settings import RiskcastSettings
from serving.console import Exit, Output, Printer, fields, finish, run_command, say
from serving.settings import load

QUESTION_TIMEOUT_S = 10.0

RECONCILE_COLUMNS = (
    *("ledger_id", "partition", "status", "records", "missing"),
    *("replayed", "failed", "extra", "reason"),
)
SIGNAL_COLUMNS = ("signal_id", "ack_id", "ingested_at", "ledger_id", "partition", "sequence", "first_arrival")
COUNT_COLUMNS = ("ledger_id", "partition", "signal_count")

EXITS = {
    reconcile_pb.RECONCILE_STATUS_COMPLETED: Exit.OK,
    reconcile_pb.RECONCILE_STATUS_SKIPPED: Exit.OK,
    reconcile_pb.RECONCILE_STATUS_PARTIAL: Exit.PARTIAL,
}

Target = Annotated[str | None, typer.Option(help="host:port of the RiskCast to ask; RISKCAST_LISTEN by default.")]
Shape = Annotated[Output, typer.Option("--output", "-o", help="How to print the answer.")]
Ledgers = Annotated[list[str] | None, typer.Option("--ledger", help="Only this ledger (repeatable).")]
Partitions = Annotated[list[str] | None, typer.Option("--partition", help="Only this partition (repeatable).")]

signals = typer.Typer(no_args_is_help=True, help="What is stored.")


def reconcile(
    target: Target = None,
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
    with Printer(output, RECONCILE_COLUMNS) as printer:
        code = run_command(_reconcile(target, request, printer))
    finish(code)


@signals.command("get")
def get_signal(
    signal_id: Annotated[str, typer.Argument(help="OMEN- and 12 to 64 hex digits.")],
    target: Target = None,
    output: Shape = Output.JSON,
) -> None:
    """One stored signal."""
    request = signal_pb.GetSignalRequest(signal_id=signal_id)
    response = run_command(_get(target, request))
    with Printer(output, SIGNAL_COLUMNS) as printer:
        printer.add(_signal_row(response.signal), fields(response.signal))


@signals.command("count")
def count_signals(
    target: Target = None,
    ledger: Annotated[str, typer.Option(help="Only of this ledger.")] = "",
    partition: Annotated[str, typer.Option(help="Only of this partition.")] = "",
    output: Shape = Output.TABLE,
) -> None:
    """How many signals are stored, by ledger and partition, counted now."""
    request = signal_pb.CountSignalsRequest(ledger_id=ledger, partition=partition)
    response = run_command(_count(target, request))
    with Printer(output, COUNT_COLUMNS) as printer:
        for each in response.partitions:
            printer.add({**fields(each), "signal_count": each.signal_count})


def target_of(option: str | None) -> str:
    """Raises SettingsRefused."""
    return option or load(RiskcastSettings).listen


async def _get(target: str | None, request: signal_pb.GetSignalRequest) -> signal_pb.GetSignalResponse:
    async with serving.connected(target_of(target)) as channel:
        return await SignalServiceStub(channel).GetSignal(request, timeout=QUESTION_TIMEOUT_S)


async def _count(target: str | None, request: signal_pb.CountSignalsRequest) -> signal_pb.CountSignalsResponse:
    async with serving.connected(target_of(target)) as channel:
        return await SignalServiceStub(channel).CountSignals(request, timeout=QUESTION_TIMEOUT_S)


async def _reconcile(target: str | None, request: reconcile_pb.ReconcileRequest, printer: Printer) -> Exit:
    """Shows each partition as it is done. A run without run_finished was cut."""
    broken: list[reconcile_pb.ReconcileState] = []
    async with serving.connected(target_of(target)) as channel:
        with _progress() as bar:
            task = bar.add_task("reconcile", total=None)
            async for message in ReconcileServiceStub(channel).Reconcile(request):
                _advance(bar, task, message)
                if message.HasField("partition_finished"):
                    finished = message.partition_finished
                    printer.add(_row(finished))
                    if finished.state.status == reconcile_pb.RECONCILE_STATUS_FAILED:
                        broken.append(finished.state)
                if message.HasField("run_finished"):
                    return _failed(broken) if broken else _ended(message.run_finished)
    say("the run was cut")
    return Exit.UNAVAILABLE


def _ended(run: reconcile_pb.RunFinished) -> Exit:
    if not run.partition_count:
        say("nothing was compared: no partition is in scope of the ledgers in the server's RISKCAST_OMEN_TARGETS")
    return EXITS[run.status]


def _failed(broken: list[reconcile_pb.ReconcileState]) -> Exit:
    """Unavailable when every failure is a whole ledger that could not be reached."""
    say("a ledger could not be compared")
    return Exit.UNEXPECTED if any(state.partition for state in broken) else Exit.UNAVAILABLE


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


def _signal_row(signal: signal_pb.StoredSignal) -> dict[str, object]:
    return {
        "signal_id": signal.event.signal_id,
        "ack_id": signal.ack_id,
        "ingested_at": signal.ingested_at.ToJsonString(),
        "ledger_id": signal.position.ledger_id,
        "partition": signal.position.partition,
        "sequence": signal.position.sequence,
        "first_arrival": signal_pb.ArrivalPath.Name(signal.first_arrival.path).removeprefix("ARRIVAL_PATH_"),
    }
