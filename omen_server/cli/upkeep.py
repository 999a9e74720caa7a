"""`omen ledger verify | seal | backup`: what keeps a ledger trustworthy."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import grpc
import typer

import ledger
from ledger import Disk, Ledger, LedgerLocked, LedgerReader
from ledger.checking.verify import Damage, Progress, Verified
from ledger.copying.backup import BackedUp, Copying
from ledger.files.layout import partition_names
from ledger.times import moment_of
from omen.v1 import ledger_service_pb2 as pb
from omen.v1.ledger_service_pb2_grpc import LedgerServiceStub
from omen_server.cli.connection import CALL_TIMEOUT_S, Target, connected
from omen_server.cli.ledger import REFUSALS, Directory, Format, reading, refusals_told, told
from serving.console import EXITS, Exit, Output, Printer, described, finish, run_command, say
from serving.progress import progress_bar

VERIFY_COLUMNS = ("partition", "intact_records", "damaged_records", "bytes_read")
BACKUP_COLUMNS = ("partitions", "segments_copied", "segments_kept", "records", "damaged_records")
SEAL_COLUMNS = ("partition", "records", "sealed_at")

Partitions = Annotated[list[str] | None, typer.Argument(help="Partitions, for example 2026-01-29.")]


def verify(partitions: Partitions = None, directory: Directory = None, output: Format = Output.TABLE) -> None:
    """Re-read every byte of the partitions, of all by default. Exit code 7 when anything is damaged.

    Works beside a server and without one. Each damaged record is named on stderr.
    """
    codes = [Exit.OK]
    teller = Teller()
    with reading(directory) as reader, Printer(output, VERIFY_COLUMNS) as printer:
        for name in partitions or partition_names(Disk(), reader.directory):
            try:
                printer.add(verified_row(verified_partition(reader, name, teller)))
            except REFUSALS as error:
                codes.append(told(error))
        if not partitions:
            for damage in reader.verify_chain():
                teller.tell(damage)
    finish(Exit.INTEGRITY if teller.has_told else max(codes))


class Teller:
    """Says each damage of a SEAL once: a partition and the chain may both tell of it."""

    def __init__(self) -> None:
        self.has_told = False
        self._of_seals: set[Damage] = set()

    def tell(self, damage: Damage) -> None:
        if damage in self._of_seals:
            return
        if not damage.ordinal:
            self._of_seals.add(damage)
        self.has_told = True
        say(damage_line(damage))


def verified_partition(reader: LedgerReader, name: str, teller: Teller) -> Verified:
    with progress_bar(name) as show:
        for found in reader.verify(name):
            if isinstance(found, Progress):
                show(found.bytes_read, found.bytes_total)
            elif isinstance(found, Damage):
                teller.tell(found)
            else:
                return found
    raise AssertionError("verify() ends with what it has found")


def damage_line(damage: Damage) -> str:
    place = f"segment {damage.ordinal}" if damage.ordinal else "SEAL"
    record = f", sequence {damage.sequence}" if damage.sequence else ""
    return f"{damage.partition}, {place}{record}: {damage.description}"


def verified_row(verified: Verified) -> dict[str, object]:
    return {
        "partition": verified.partition,
        "intact_records": verified.intact_record_count,
        "damaged_records": verified.damaged_record_count,
        "bytes_read": verified.bytes_read,
    }


def backup(
    target: Annotated[Path, typer.Argument(help="Directory of the copy; made when missing.")],
    directory: Directory = None,
    output: Format = Output.TABLE,
) -> None:
    """Copy the ledger as far as it is durable; run it again to bring the copy up to date.

    Works beside a server and without one. Exit code 7 when the copy holds damage, each named on stderr.
    """
    with reading(directory) as reader, Printer(output, BACKUP_COLUMNS) as printer:
        backed_up = copied_to(target, reader)
        printer.add(backup_row(backed_up))
    finish(Exit.INTEGRITY if backed_up.is_damaged else Exit.OK)


def copied_to(target: Path, reader: LedgerReader) -> BackedUp:
    with progress_bar(str(target)) as show:
        for step in ledger.backup(reader, target):
            if isinstance(step, Copying):
                show(step.bytes_copied, step.bytes_total)
            elif isinstance(step, Damage):
                say(damage_line(step))
            else:
                return step
    raise AssertionError("backup() ends with what it has copied")


def backup_row(backed_up: BackedUp) -> dict[str, object]:
    return {
        "partitions": backed_up.partition_count,
        "segments_copied": backed_up.segments_copied,
        "segments_kept": backed_up.segments_kept,
        "records": backed_up.record_count,
        "damaged_records": backed_up.damaged_record_count,
    }


def seal(
    partitions: Partitions = None,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Seal the ledger in this directory, which no server may have open.")
    ] = None,
    target: Target = None,
    output: Format = Output.TABLE,
) -> None:
    """Seal partitions that are due, all that are due by default. A server does that by itself within a minute.

    Goes on past those that are refused. Exit code 6 when some were sealed and some refused, 7 when any is damaged.
    """
    with Printer(output, SEAL_COLUMNS) as printer:
        tally = Tally(printer)
        if directory:
            seal_here(directory, partitions, tally)
        else:
            run_command(seal_by_server(target, partitions, tally))
    finish(tally.code)


class Tally:
    """Prints each partition as it is sealed, and gathers what the command is to end with."""

    def __init__(self, printer: Printer) -> None:
        self._printer = printer
        self._refusals: list[Exit] = []
        self._has_sealed = False

    def add(self, partition: str, record_count: int, sealed_at: datetime) -> None:
        self._has_sealed = True
        self._printer.add({"partition": partition, "records": record_count, "sealed_at": sealed_at.isoformat()})

    def refuse(self, code: Exit) -> None:
        self._refusals.append(code)

    @property
    def code(self) -> Exit:
        worst = max(self._refusals, default=Exit.OK)
        is_partial = self._has_sealed and Exit.OK < worst < Exit.INTEGRITY
        return Exit.PARTIAL if is_partial else worst


def seal_here(directory: Path, partitions: list[str] | None, tally: Tally) -> None:
    with writing(directory) as held:
        for name in partitions or held.due_partitions(datetime.now(UTC)):
            try:
                seal = held.seal(name)
            except REFUSALS as error:
                tally.refuse(told(error))
            else:
                tally.add(name, seal.total_records, moment_of(seal.sealed_at))


@contextmanager
def writing(directory: Path) -> Iterator[Ledger]:
    """The ledger opened as its writer; what is refused ends the command with a line and an exit code."""
    with reading(directory):  # refuses what is no ledger before opening would make one of it
        pass
    with refusals_told(), opened(directory) as held:
        yield held


def opened(directory: Path) -> Ledger:
    try:
        return Ledger.open(directory, on_commit=lambda results, written_at: None)
    except LedgerLocked as error:
        raise LedgerLocked(f"{error}; without --dir the server is asked") from error


async def seal_by_server(target: str | None, partitions: list[str] | None, tally: Tally) -> None:
    async with connected(target) as channel:
        stub = LedgerServiceStub(channel)
        for name in partitions or [name async for name in due_partitions(channel)]:
            try:
                answer = await stub.SealPartition(pb.SealPartitionRequest(partition=name), timeout=CALL_TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                tally.refuse(refused(name, error))
            else:
                tally.add(name, answer.summary.record_count, answer.sealed_at.ToDatetime(UTC))


def refused(partition: str, error: grpc.aio.AioRpcError) -> Exit:
    say(f"{partition}: {described(error)}")
    return EXITS.get(error.code(), Exit.UNEXPECTED)


async def due_partitions(channel: grpc.aio.Channel) -> AsyncIterator[str]:
    """By the clock of this machine: the server refuses what is not due by its own."""
    async for each in partitions_of(channel):
        if not each.is_sealed and is_due(each):
            yield each.partition


async def partitions_of(channel: grpc.aio.Channel) -> AsyncIterator[pb.PartitionSummary]:
    """All that the server lists, page by page."""
    stub, request = LedgerServiceStub(channel), pb.ListPartitionsRequest()
    while True:
        page = await stub.ListPartitions(request, timeout=CALL_TIMEOUT_S)
        for each in page.partitions:
            yield each
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return


def is_due(summary: pb.PartitionSummary) -> bool:
    return summary.due_at.ToDatetime(UTC) <= datetime.now(UTC)
