"""How commands answer: data alone on stdout, the rest on stderr, an exit code that says how it went."""

import enum
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
import typer
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table

from contract.errors import ErrorDetails

EXIT_UNEXPECTED = 1
EXIT_USAGE = 2
EXIT_NOT_FOUND = 3
EXIT_DENIED = 4
EXIT_UNAVAILABLE = 5
EXIT_PARTIAL = 6

PIPED_WIDTH = 1000  # rows stay lines for whatever reads them; a table is no wider than its content

EXIT_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: EXIT_USAGE,
    grpc.StatusCode.NOT_FOUND: EXIT_NOT_FOUND,
    grpc.StatusCode.UNAUTHENTICATED: EXIT_DENIED,
    grpc.StatusCode.PERMISSION_DENIED: EXIT_DENIED,
    grpc.StatusCode.UNAVAILABLE: EXIT_UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: EXIT_UNAVAILABLE,
}


class Output(enum.StrEnum):
    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"


def show(rows: Sequence[Mapping[str, Any]], output: Output) -> None:
    """All rows have the same keys."""
    match output:
        case Output.JSON:
            typer.echo(json.dumps(rows, indent=2))
        case Output.JSONL:
            for row in rows:
                typer.echo(json.dumps(row))
        case Output.TABLE:
            show_table(rows)


def show_table(rows: Iterable[Mapping[str, Any]]) -> None:
    table = Table(box=None, header_style="bold")
    for number, row in enumerate(rows):
        if number == 0:
            for name in row:
                table.add_column(name, overflow="fold")
        table.add_row(*(value if isinstance(value, str) else json.dumps(value) for value in row.values()))
    console = Console()
    (console if console.is_terminal else Console(width=PIPED_WIDTH)).print(table)


def fields(message: Message) -> dict[str, Any]:
    """As protobuf's JSON has it, with the field names of the .proto file, unset ones included."""
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def failed(message: str, exit_code: int) -> typer.Exit:
    """To be raised: one line on stderr."""
    typer.echo(message, err=True)
    return typer.Exit(exit_code)


@contextmanager
def answering(target: str) -> Iterator[None]:
    """Turns the status of a failed call into one line and an exit code."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        told = ErrorDetails.from_trailing_metadata(error.trailing_metadata())
        words = f"{told.reason}: {told.message}" if told else f"{error.code().name}: {target} does not answer"
        raise failed(words, EXIT_CODES.get(error.code(), EXIT_UNEXPECTED)) from error
