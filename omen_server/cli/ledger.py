"""`omen ledger`: reads a ledger's directory, with or without a server beside it."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from ledger import LedgerError, LedgerReader, PartitionInfo, Record
from ledger.positions import sequence_of
from omen.v1.signal_event_pb2 import SignalEvent
from omen_server.settings import OmenSettings
from serving.console import Exit, Output, Printer, fields, finish, say
from serving.settings import SettingsRefused, load

app = typer.Typer(help="Read the ledger, with or without a server beside it.", no_args_is_help=True)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LS_COLUMNS = ("partition", "state", "records", "segments", "bytes", "highwater_sequence", "damaged_records")
CAT_COLUMNS = ("sequence", "written_at", "signal_id", "probability", "confidence", "title")

Directory = Annotated[Path | None, typer.Option("--dir", help="The ledger's directory; OMEN_LEDGER_DIR by default.")]
Format = Annotated[Output, typer.Option("--output", "-o", help="How to write the data.")]


def a_sequence(value: int) -> int:
    if value and value < sequence_of(1, 0):
        raise typer.BadParameter("a sequence is (segment ordinal << 32) | record index")
    return value


@app.command()
def ls(directory: Directory = None, output: Format = Output.TABLE) -> None:
    """List the partitions. Exit code 7 when any holds damage."""
    with reading(directory) as reader, Printer(output, LS_COLUMNS) as printer:
        partitions = reader.partitions()
        for info in partitions:
            printer.add(partition_row(info))
    finish(Exit.INTEGRITY if any(info.damaged for info in partitions) else Exit.OK)


@app.command()
def cat(
    partition: Annotated[str, typer.Argument(help="The partition, for example 2026-01-29.")],
    from_sequence: Annotated[
        int, typer.Option("--from", callback=a_sequence, help="Only records from this sequence on.")
    ] = 0,
    directory: Directory = None,
    output: Format = Output.TABLE,
) -> None:
    """Show the records of a partition. Exit code 7 when some cannot be read."""
    with reading(directory) as reader, Printer(output, CAT_COLUMNS) as printer:
        for record in reader.records(partition, from_sequence=from_sequence):
            event = SignalEvent.FromString(record.payload)
            printer.add(record_row(record, event), record_data(record, event))
        info = reader.partition(partition)
    for segment in info.segments:
        for first, last in segment.damaged:
            say(f"segment {segment.ordinal}: records {first} to {last} cannot be read")
    finish(Exit.INTEGRITY if info.damaged else Exit.OK)


@contextmanager
def reading(directory: Path | None) -> Iterator[LedgerReader]:
    """A reader of the directory; what is not there or not readable ends the command with a line and an exit code."""
    try:
        directory = directory or load(OmenSettings).ledger_dir
        if not directory.is_dir():
            say(f"no directory {directory}")
            raise typer.Exit(Exit.NOT_FOUND)
        yield LedgerReader(directory)
    except SettingsRefused as error:
        say(str(error))
        raise typer.Exit(Exit.USAGE) from error
    except KeyError as error:
        say(f"no partition {error}")
        raise typer.Exit(Exit.NOT_FOUND) from error
    except LedgerError as error:
        say(str(error))
        raise typer.Exit(Exit.INTEGRITY) from error


def partition_row(info: PartitionInfo) -> dict[str, object]:
    return {
        "partition": info.name,
        "state": "pruned" if info.is_pruned else "sealed" if info.is_sealed else "open",
        "records": info.record_count,
        "segments": len(info.segments),
        "bytes": sum(segment.byte_length for segment in info.segments),
        "highwater_sequence": info.highwater_sequence,
        "damaged_records": sum(last - first + 1 for segment in info.segments for first, last in segment.damaged),
    }


def record_row(record: Record, event: SignalEvent) -> dict[str, object]:
    return {
        "sequence": record.position.sequence,
        "written_at": written_at(record),
        "signal_id": event.signal_id,
        "probability": event.signal.probability,
        "confidence": event.signal.confidence_score,
        "title": event.signal.title,
    }


def record_data(record: Record, event: SignalEvent) -> dict[str, object]:
    return {
        "partition": record.position.partition,
        "segment_id": record.position.segment_id.hex(),
        "sequence": record.position.sequence,
        "written_at": written_at(record),
        "event": fields(event),
    }


def written_at(record: Record) -> str:
    return (EPOCH + timedelta(microseconds=record.written_at)).isoformat()
