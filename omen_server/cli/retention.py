"""`omen ledger prune`: gives up old partitions that RiskCast has settled."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

import grpc
import typer

from omen.v1 import ledger_service_pb2 as pb
from omen.v1.ledger_service_pb2_grpc import LedgerServiceStub
from omen_server.cli.connection import Target, connected
from omen_server.cli.ledger import Format
from omen_server.cli.upkeep import partitions_of
from serving.console import Exit, Output, Printer, described, finish, run_command, say

COLUMNS = ("partition", "state", "records", "bytes", "reconcile_run_id")
PRUNE_TIMEOUT_S = 300.0  # it re-reads every byte; the server replaces a connection about as soon
REFUSALS = {  # of one partition: others may be pruned
    grpc.StatusCode.FAILED_PRECONDITION: Exit.PARTIAL,
    grpc.StatusCode.DATA_LOSS: Exit.PARTIAL,
    grpc.StatusCode.NOT_FOUND: Exit.NOT_FOUND,
}
DATE_CHARS = len("2026-01-29")

_DAYS = re.compile(r"([0-9]{1,5})d")


def an_age(text: str) -> timedelta:
    match = _DAYS.fullmatch(text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no number of days such as 90d")
    return timedelta(days=int(match[1]))


def prune(
    older_than: Annotated[
        timedelta, typer.Option(parser=an_age, metavar="DAYS", help="Only days that ended at least so long ago: 90d.")
    ],
    partitions: Annotated[list[str] | None, typer.Argument(help="Only these of them, for example 2026-01-29.")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Remove the records; without it nothing is changed.")] = False,
    unsettled_reason: Annotated[
        str, typer.Option(help="Give up the PARTITIONS though RiskCast may not have settled them, for this reason.")
    ] = "",
    target: Target = None,
    output: Format = Output.TABLE,
) -> None:
    """Say which old partitions may be pruned, or remove their records for good; their seals stay.

    Only what is sealed, whole, and settled by RiskCast's last Reconcile. Exit code 6 when any that is old enough is
    refused, each with its reason on stderr; 3 when there is none of those that are named.
    """
    if unsettled_reason and not partitions:
        raise typer.BadParameter("--unsettled-reason needs the partitions that it is about")
    request = pb.PrunePartitionRequest(apply=apply, unsettled_reason=unsettled_reason)
    ended_by = datetime.now(UTC) - older_than
    with Printer(output, COLUMNS) as printer:
        ends = run_command(_prune(target, request, ended_by, partitions, printer))
    finish(Exit.PARTIAL if len(ends) > 1 else min(ends, default=Exit.OK))


async def _prune(
    target: str | None,
    request: pb.PrunePartitionRequest,
    ended_by: datetime,
    only: list[str] | None,
    printer: Printer,
) -> set[Exit]:
    """The different ways in which it ended for the partitions; nothing for those that are not that old."""
    ends: set[Exit] = set()
    async with connected(target) as channel:
        stub = LedgerServiceStub(channel)
        listed = [each.partition async for each in partitions_of(channel)]
        for request.partition in only or listed:
            if not has_ended(request.partition, ended_by):
                if only:
                    say(f"{request.partition} is not that old")
                continue
            try:
                answer = await stub.PrunePartition(request, timeout=PRUNE_TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                if error.code() not in REFUSALS:
                    raise
                say(f"{request.partition}: {described(error)}")
                ends.add(REFUSALS[error.code()])
            else:
                tell(answer, request.apply, printer)
                ends.add(Exit.OK)
    return ends


def has_ended(partition: str, by: datetime) -> bool:
    """Whether the day of a partition was over. What has no day is left to the server: it does not know it either."""
    try:
        day = date.fromisoformat(partition[:DATE_CHARS])
    except ValueError:
        return True
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1) <= by


def tell(answer: pb.PrunePartitionResponse, is_applied: bool, printer: Printer) -> None:
    """Of one that was pruned before nothing may be left."""
    summary = answer.summary
    if answer.byte_count:
        row = {"partition": summary.partition, "state": "pruned" if is_applied else "can be pruned"}
        sizes = {"records": summary.record_count, "bytes": answer.byte_count}
        printer.add({**row, **sizes, "reconcile_run_id": answer.reconcile_run_id})
