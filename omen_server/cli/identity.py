"""`omen signal verify-id`: the ids of a signal, derived again."""

from typing import Annotated

import typer

from contract.identity import identity_of_event, input_event_hash, is_signal_id_of
from omen.v1.signal_event_pb2 import SignalEvent
from omen_server.cli.ledger import Directory, first_record_of, reading
from serving.console import Exit, Output, Printer, finish, say

COLUMNS = ("what", "stored", "derived", "holds")

SignalId = Annotated[str, typer.Argument(help="OMEN- and 12 to 64 hex digits.")]
Format = Annotated[Output, typer.Option("--output", "-o", help="How to write the data.")]


def verify_id(signal_id: SignalId, directory: Directory = None, output: Format = Output.TABLE) -> None:
    """Derive the ids of a signal again from what the ledger's files hold of it. Exit code 7 when one does not hold.

    Needs no server.
    """
    with reading(directory) as reader:
        record = first_record_of(reader, signal_id)
    if record is None:
        say(f"no signal {signal_id} in what can be read")
        raise typer.Exit(Exit.NOT_FOUND)
    rows = identity_rows(SignalEvent.FromString(record.payload))
    with Printer(output, COLUMNS) as printer:
        for row in rows:
            printer.add(row)
    finish(Exit.OK if all(row["holds"] for row in rows) else Exit.INTEGRITY)


def identity_rows(event: SignalEvent) -> list[dict[str, object]]:
    ids = identity_of_event(event)
    rows: list[dict[str, object]] = []
    if event.canonical_observation:
        derived = input_event_hash(event.canonical_observation)
        stored = event.input_event_hash
        rows.append({"what": "input_event_hash", "stored": stored, "derived": derived, "holds": stored == derived})
    trace_id, signal_id = event.deterministic_trace_id, event.signal_id
    holds = is_signal_id_of(ids.digest, signal_id)
    return [
        *rows,
        {"what": "trace id", "stored": trace_id, "derived": ids.trace_id, "holds": trace_id == ids.trace_id},
        {"what": "signal id", "stored": signal_id, "derived": ids.signal_id, "holds": holds},
    ]
