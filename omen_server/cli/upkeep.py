"""`omen ledger verify | seal | backup`: what keeps a ledger trustworthy."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import grpc
import typer

import ledger
import serving
from ledger import BackupFailed, BackupRefused, Ledger, LedgerError, LedgerFull, LedgerLocked, LedgerReader, NotDue
from ledger.checking.verify import Damage, Progress, Verified
from ledger.copying.backup import BackedUp, Copying
from ledger.times import moment_of
from omen.v1 import ledger_service_pb2 as pb
from omen.v1.ledger_service_pb2_grpc import LedgerServiceStub
from omen_server.cli.connection import CALL_TIMEOUT_S, Target, target_of
from omen_server.cli.ledger import Directory, Format, reading
from serving.console import Exit, Output, Printer, finish, progress_bar, run_command, say

VERIFY_COLUMNS = ("partition", "intact_records", "damaged_records", "bytes_read")
BACKUP_COLUMNS = ("partitions", "segments_copied", "segments_kept", "records", "damaged_records")
SEAL_COLUMNS = ("partition", "records", "sealed_at")

Partitions = Annotated[list[str] | None, typer.Argument(help="Partitions, for example 2026-01-29.")]


def verify(partitions: Partitions = None, directory: Directory = None, output: Format = Output.TABLE) -> None:
    """Re-read every byte of the partitions, of all by default. Exit code 7 when anything is damaged.

    Works beside a server and without one. Each damaged record is named on stderr.
    """
    damage_count = 0
    with reading(directory) as reader, Printer(output, VERIFY_COLUMNS) as printer:
        for name in partitions or [info.name for info in reader.partitions()]:
            verified, damage = verified_partition(reader, name)
            damage_count += damage
            printer.add(verified_row(verified))
    finish(Exit.INTEGRITY if damage_count else Exit.OK)


def verified_partition(reader: LedgerReader, name: str) -> tuple[Verified, int]:
    """The result, and how often damage was told on the way."""
    damage_count = 0
    with progress_bar(name) as show:
        for found in reader.verify(name):
            if isinstance(found, Progress):
                show(found.bytes_read, found.bytes_total)
            elif isinstance(found, Damage):
                damage_count += 1
                say(damage_line(found))
            else:
                return found, damage_count
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
    try:
        with progress_bar(str(target)) as show:
            for step in ledger.backup(reader, target):
                if isinstance(step, Copying):
                    show(step.bytes_copied, step.bytes_total)
                elif isinstance(step, Damage):
                    say(damage_line(step))
                else:
                    return step
    except BackupRefused as error:
        say(str(error))
        raise typer.Exit(Exit.USAGE) from error
    except (BackupFailed, LedgerFull, LedgerLocked) as error:
        say(str(error))
        raise typer.Exit(Exit.UNAVAILABLE) from error
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
    """Seal partitions that are due, all that are due by default. A server does that by itself within a minute."""
    rows = sealed_here(directory, partitions) if directory else run_command(sealed_by_server(target, partitions))
    with Printer(output, SEAL_COLUMNS) as printer:
        for row in rows:
            printer.add(row)


def sealed_here(directory: Path, partitions: list[str] | None) -> list[dict[str, object]]:
    with writing(directory) as held:
        seals = [held.seal(name) for name in partitions or held.due_partitions(datetime.now(UTC))]
    return [seal_row(seal.partition, seal.total_records, moment_of(seal.sealed_at)) for seal in seals]


@contextmanager
def writing(directory: Path) -> Iterator[Ledger]:
    """The ledger opened as its writer; what is refused ends the command with a line and an exit code."""
    with reading(directory):  # refuses what is no ledger before opening would make one of it
        pass
    try:
        with Ledger.open(directory, on_commit=lambda results: None) as held:
            yield held
    except KeyError as error:
        say(f"no partition {error}")
        raise typer.Exit(Exit.NOT_FOUND) from error
    except NotDue as error:
        say(str(error))
        raise typer.Exit(Exit.USAGE) from error
    except LedgerLocked as error:
        say(f"{error}; without --dir the server is asked")
        raise typer.Exit(Exit.UNAVAILABLE) from error
    except LedgerError as error:
        say(str(error))
        raise typer.Exit(Exit.INTEGRITY) from error


async def sealed_by_server(target: str | None, partitions: list[str] | None) -> list[dict[str, object]]:
    async with serving.connected(target_of(target)) as channel:
        stub = LedgerServiceStub(channel)
        rows = []
        for name in partitions or [name async for name in due_partitions(channel)]:
            answer = await stub.SealPartition(pb.SealPartitionRequest(partition=name), timeout=CALL_TIMEOUT_S)
            sealed_at = answer.sealed_at.ToDatetime(UTC)
            rows.append(seal_row(name, answer.summary.record_count, sealed_at))
        return rows


async def due_partitions(channel: grpc.aio.Channel) -> AsyncIterator[str]:
    """By the clock of this machine: the server refuses what is not due by its own."""
    stub = LedgerServiceStub(channel)
    page = await stub.ListPartitions(pb.ListPartitionsRequest(), timeout=CALL_TIMEOUT_S)
    while True:
        for each in page.partitions:
            if not each.is_sealed and is_due(each):
                yield each.partition
        if not page.next_page_token:
            return
        request = pb.ListPartitionsRequest(page_token=page.next_page_token)
        page = await stub.ListPartitions(request, timeout=CALL_TIMEOUT_S)


def is_due(summary: pb.PartitionSummary) -> bool:
    return summary.due_at.ToDatetime(UTC) <= datetime.now(UTC)


def seal_row(partition: str, record_count: int, sealed_at: datetime) -> dict[str, object]:
    return {"partition": partition, "records": record_count, "sealed_at": sealed_at.isoformat()}
