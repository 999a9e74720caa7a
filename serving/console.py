"""How the commands of both servers answer: data alone on stdout, everything else on stderr, an exit code that tells."""

import enum
import json
import sys
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Annotated, Any, Self, TypeVar

import grpc
import structlog
import typer
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table

from contract.categories import CATEGORIES
from contract.errors import ErrorDetails
from serving.addresses import ListenError
from serving.lifecycle import run
from serving.security import SecurityRefused
from serving.settings import SettingsRefused
from serving.terminal import visible

T = TypeVar("T")

log = structlog.get_logger(__name__)

VIOLATIONS_SHOWN_MAX = 5
PIPED_COLUMNS = 240  # wide enough that no cell is broken where nobody reads it on a screen


class Exit(enum.IntEnum):
    """What a command ends with."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    NOT_FOUND = 3
    DENIED = 4
    UNAVAILABLE = 5
    PARTIAL = 6
    INTEGRITY = 7


EXITS = {
    grpc.StatusCode.INVALID_ARGUMENT: Exit.USAGE,
    grpc.StatusCode.FAILED_PRECONDITION: Exit.USAGE,
    grpc.StatusCode.NOT_FOUND: Exit.NOT_FOUND,
    grpc.StatusCode.UNAUTHENTICATED: Exit.DENIED,
    grpc.StatusCode.PERMISSION_DENIED: Exit.DENIED,
    grpc.StatusCode.UNAVAILABLE: Exit.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: Exit.UNAVAILABLE,
    grpc.StatusCode.ABORTED: Exit.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS: Exit.INTEGRITY,
}


class Output(enum.StrEnum):
    """How a command writes its data."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"


class Printer:
    """Rows to stdout, as a table, one JSON array, or a JSON object per line as soon as it is there."""

    def __init__(self, output: Output, columns: Sequence[str]) -> None:
        self._output = output
        self._columns = columns
        self._rows: list[Mapping[str, object]] = []
        self._data: list[object] = []

    def add(self, row: Mapping[str, object], data: object = None) -> None:
        """`row` is what the table shows; `data`, the row itself by default, is what JSON shows."""
        shown = row if data is None else data
        if self._output is Output.JSONL:
            sys.stdout.write(json.dumps(shown) + "\n")
        elif self._output is Output.JSON:
            self._data.append(shown)
        else:
            self._rows.append(row)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._output is Output.JSON:
            sys.stdout.write(json.dumps(self._data, indent=2) + "\n")
        elif self._output is Output.TABLE and self._rows:
            table = Table(box=None, header_style="bold", pad_edge=False)
            for column in self._columns:
                table.add_column(column, overflow="fold")
            for row in self._rows:
                table.add_row(*(visible(str(row.get(column, ""))) for column in self._columns))
            # Brackets and colons in a title are no markup.
            width = None if sys.stdout.isatty() else PIPED_COLUMNS
            Console(width=width, markup=False, emoji=False, highlight=False).print(table)


def say(text: str) -> None:
    """One line, or a few of our own, for the person at the terminal; `text` may hold what others wrote."""
    sys.stderr.write(visible(text, kept="\n") + "\n")


def show(answer: Message, output: Output) -> None:
    """What a server answered, as data for programs: people are told in a sentence instead of a table."""
    if output is not Output.TABLE:
        with Printer(output, ()) as printer:
            printer.add({}, fields(answer))


def finish(code: Exit) -> None:
    """End the command; a code of 0 lets it end by itself."""
    if code is not Exit.OK:
        raise typer.Exit(code)


def run_command(main: Coroutine[Any, Any, T]) -> T:
    """Run a command to its end; what a server or the settings refuse becomes one line and an exit code."""
    try:
        return run(main)
    except grpc.aio.AioRpcError as error:
        say(described(error))
        raise typer.Exit(EXITS.get(error.code(), Exit.UNEXPECTED)) from error
    except (ListenError, SecurityRefused, SettingsRefused) as error:
        say(str(error))
        raise typer.Exit(Exit.USAGE) from error


@contextmanager
def failures_told() -> Iterator[None]:
    """Around a server: what ends it unforeseen is logged with its reason, and the exit code is 1."""
    try:
        yield
    except typer.Exit:
        raise
    except Exception as error:
        log.critical("server_failed", reason=f"{type(error).__name__}: {error}", exc_info=error)
        raise typer.Exit(Exit.UNEXPECTED) from error


def an_instant(text: str) -> datetime:
    """For an option that is a time: ISO 8601, and only with a zone."""
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is not None:
            return at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{text!r} is no time such as 2026-01-29T12:00:00Z") from None
    raise typer.BadParameter(f"{text!r} has no time zone; write it as 2026-01-29T12:00:00Z")


EmittedFrom = Annotated[
    datetime | None,
    typer.Option("--from", parser=an_instant, metavar="TIME", help="Only emitted then or later; with a time zone."),
]
EmittedBefore = Annotated[
    datetime | None,
    typer.Option("--before", parser=an_instant, metavar="TIME", help="Only emitted earlier; with a time zone."),
]


def a_category(text: str) -> int:
    try:
        return CATEGORIES[text.lower()]
    except KeyError:
        raise typer.BadParameter(f"{text!r} is none of {', '.join(CATEGORIES)}") from None


OfCategory = Annotated[
    Any, typer.Option("--category", parser=a_category, metavar="NAME", help="Only this category, for example weather.")
]


def described(error: grpc.aio.AioRpcError) -> str:
    """An error of a call in one line that moves no terminal, its first violations included."""
    rich = ErrorDetails.from_trailing_metadata(error.trailing_metadata())
    if rich is None:
        return visible(f"{error.code().name}: {error.details()}")
    violations = "; ".join(f"{each.field} {each.description}" for each in rich.violations[:VIOLATIONS_SHOWN_MAX])
    return visible(f"{rich.reason}: {violations or error.details()}")


def fields(message: Message) -> dict[str, object]:
    """As protobuf's JSON has it, with the field names of the .proto file; what is unset and has a zero is shown."""
    shown: dict[str, object] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return shown
