"""`riskcast db`: the store itself, without a server."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from riskcast_server.settings import RiskcastSettings
from riskcast_server.store import StoreRefused, StoreUnknown, back_up_store, migrate_store
from serving.console import Exit, run_command, say
from serving.settings import load


@contextmanager
def refusals() -> Iterator[None]:
    """What the store refuses becomes one line and an exit code."""
    try:
        yield
    except StoreRefused as refused:
        say(str(refused))
        raise typer.Exit(Exit.USAGE if isinstance(refused, StoreUnknown) else Exit.UNAVAILABLE) from refused


def migrate() -> None:
    """Bring the schema up to date. SQLite needs no asking: its server does so when it starts."""
    with refusals():
        run_command(_migrate())
    say("the schema is up to date")


def backup(file: Annotated[Path, typer.Argument(help="A new file.")]) -> None:
    """Copy a SQLite store, beside a running server or without one."""
    with refusals():
        run_command(_backup(file))
    say(f"{file} holds what was committed")


async def _migrate() -> None:
    settings = load(RiskcastSettings)
    await migrate_store(settings.database_url, statements_cached=settings.database_statements_cached)


async def _backup(file: Path) -> None:
    back_up_store(load(RiskcastSettings).database_url, file)
