"""`omen ledger`: reads a ledger's directory, with or without a server beside it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.message import DecodeError

from ledger import (
    BackupFailed,
    BackupRefused,
    LedgerClosed,
    LedgerError,
    LedgerFull,
    LedgerLocked,
    LedgerReader,
    LedgerUnavailable,
    NotDue,
    PartitionInfo,
    Record,
    SegmentState,
)
from ledger.positions import sequence_of
from ledger.times import moment_of
from omen.v1.signal_event_pb2 import SignalEvent
from omen_server.settings import OmenSettings
from serving.console import Exit, Output, Printer, fields, finish, say
from serving.settings import SettingsRefused, load

LS_COLUMNS = ("partition", "state", "records", "segments", "bytes", "highwater_sequence", "damaged_records")
DAMAGE_COLUMNS = ("partition", "segment", "first_sequence", "last_sequence", "what")
CAT_COLUMNS = ("sequence", "written_at", "signal_id", "probability", "confidence", "title")

# What ends a command with one line, or one of its partitions; any other error is a bug. Of LedgerError only what is not
# INTEGRITY is named.
REFUSALS = (LedgerError, OSError, KeyError, SettingsRefused, DecodeError)
USAGE_ERRORS = (SettingsRefused, BackupRefused, NotDue)
PASSING_ERRORS = (OSError, BackupFailed, LedgerClosed, LedgerFull, LedgerLocked, LedgerUnavailable)

Directory = Annotated[Path | None, typer.Option("--dir", help="The ledger's directory; OMEN_LEDGER_DIR by default.")]
Format = Annotated[Output, typer.Option("--output", "-o", help="How to write the data.")]


def a_sequence(value: int) -> int:
    if value and value < sequence_of(1, 0):
        raise typer.BadParameter("a sequence is (segment ordinal << 32) | record index")
    return value


def ls(directory: Directory = None, output: Format = Output.TABLE) -> None:
    """List the partitions. Exit code 7 when any holds damage."""
    with reading(directory) as reader, Printer(output, LS_COLUMNS) as printer:
        partitions = reader.partitions()
        for info in partitions:
            printer.add(partition_row(info))
    finish(Exit.INTEGRITY if any(info.damaged for info in partitions) else Exit.OK)


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
    if info.is_seal_damaged:
        say("the SEAL cannot be read")
    for segment in info.segments:
        for first, last in segment.damaged:
            say(f"segment {segment.ordinal}: records {first} to {last} cannot be read")
    finish(Exit.INTEGRITY if info.damaged else Exit.OK)


def show(
    signal_id: Annotated[str, typer.Argument(help="The signal, for example OMEN-886183D04566.")],
    directory: Directory = None,
    output: Format = Output.JSON,
) -> None:
    """Show the first record of one signal. Exit code 3 when the ledger has none, 7 when it may be an unreadable one."""
    with reading(directory) as reader, Printer(output, CAT_COLUMNS) as printer:
        record = first_record_of(reader, signal_id)
        if record:
            event = SignalEvent.FromString(record.payload)
            printer.add(record_row(record, event), record_data(record, event))
        is_damaged = any(info.damaged for info in reader.partitions())
    if record is None:
        say(f"no signal {signal_id} in what can be read" if is_damaged else f"no signal {signal_id}")
        finish(Exit.INTEGRITY if is_damaged else Exit.NOT_FOUND)


def damage(directory: Directory = None, output: Format = Output.TABLE) -> None:
    """List what is known to be damaged, and the torn tails that recovery kept. Exit code 7 when anything is damaged.

    Finished segments are trusted here; `verify` reads every byte.
    """
    with reading(directory) as reader, Printer(output, DAMAGE_COLUMNS) as printer:
        partitions = reader.partitions()
        for row in (row for info in partitions for row in damage_rows(info)):
            printer.add(row)
        for path in reader.torn_files():
            printer.add({"partition": path.parent.name, "what": f"torn tail kept as {path.name}"})
    finish(Exit.INTEGRITY if any(info.damaged for info in partitions) else Exit.OK)


@contextmanager
def reading(directory: Path | None) -> Iterator[LedgerReader]:
    """A reader of the directory; what is not there or not readable ends the command with a line and an exit code."""
    with refusals_told():
        directory = directory or load(OmenSettings).ledger_dir
        if not directory.is_dir():
            say(f"no directory {directory}")
            raise typer.Exit(Exit.NOT_FOUND)
        yield LedgerReader(directory)


@contextmanager
def refusals_told() -> Iterator[None]:
    """A refusal within ends the command with a line and an exit code."""
    try:
        yield
    except BrokenPipeError:  # whoever reads the data has heard enough
        raise
    except REFUSALS as error:
        raise typer.Exit(told(error)) from error


def told(error: Exception) -> Exit:
    """Says in one line what was refused."""
    if isinstance(error, KeyError):
        say(f"no partition {error}")
        return Exit.NOT_FOUND
    if isinstance(error, OSError):
        say(f"{error.filename or 'the ledger'} cannot be read: {error.strerror or error}")
    elif isinstance(error, DecodeError):
        say(f"a record holds no signal: {error}")
    else:
        say(str(error))
    if isinstance(error, USAGE_ERRORS):
        return Exit.USAGE
    return Exit.UNAVAILABLE if isinstance(error, PASSING_ERRORS) else Exit.INTEGRITY


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


def damage_rows(info: PartitionInfo) -> Iterator[dict[str, object]]:
    if info.is_seal_damaged:
        yield {"partition": info.name, "what": "SEAL cannot be read"}
    for segment in info.segments:
        for first, last in segment.damaged:
            yield {
                "partition": info.name,
                "segment": segment.ordinal,
                "first_sequence": sequence_of(segment.ordinal, first),
                "last_sequence": sequence_of(segment.ordinal, last),
                "what": "records cannot be read",
            }
        if segment.state is SegmentState.DAMAGED and not segment.damaged:
            yield {"partition": info.name, "segment": segment.ordinal, "what": "damaged outside its records"}


def first_record_of(reader: LedgerReader, signal_id: str) -> Record | None:
    """The one written first, by reading everything: it needs neither a server nor an index."""
    needle = signal_id.encode()
    found = (
        record
        for info in reader.partitions()
        for record in reader.records(info.name)
        if needle in record.payload and SignalEvent.FromString(record.payload).signal_id == signal_id
    )
    return min(found, key=lambda record: (record.written_at, record.position.partition), default=None)


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
    return moment_of(record.written_at).isoformat()
