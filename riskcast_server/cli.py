"""The command `riskcast`: the server, and questions to a running one."""

from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

import serving
from contract.versions import CONTRACT_VERSION, SCHEMA_VERSION
from riskcast_server import app as server
from riskcast_server.commands import reconcile, signals
from riskcast_server.settings import RiskcastSettings
from riskcast_server.store import StoreRefused, StoreUnknown
from serving.console import Exit, run_command, say
from serving.exposure import refuse_exposure
from serving.settings import load

app = typer.Typer(
    add_completion=False, help="Stores each signal exactly once.", no_args_is_help=True, pretty_exceptions_enable=False
)
app.command()(reconcile)
app.add_typer(signals, name="signals")


def show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"omen-riskcast {version('omen-riskcast')}, contract {CONTRACT_VERSION}, schema {SCHEMA_VERSION}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the versions.")
    ] = False,
) -> None: ...


@app.command()
def serve(
    port_file: Annotated[Path | None, typer.Option(help="Write the bound port here once ready.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Listen beyond this machine without keys.")] = False,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""
    serving.configure_logging()
    try:
        run_command(_serve(port_file, insecure))
    except StoreRefused as refused:
        say(str(refused))
        raise typer.Exit(Exit.USAGE if isinstance(refused, StoreUnknown) else Exit.UNAVAILABLE) from refused


async def _serve(port_file: Path | None, insecure: bool) -> None:
    settings = load(RiskcastSettings)
    if not insecure:
        refuse_exposure(settings.listen)
    await serving.serve_until_signalled(partial(server.serve, settings), port_file)


def main() -> None:
    app()
