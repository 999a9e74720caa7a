"""The command `riskcast`: the server, and questions to a running one."""

from importlib.metadata import version
from typing import Annotated

import typer

from contract.versions import CONTRACT_VERSION, SCHEMA_VERSION
from riskcast_server.cli import check, db, ledgers, reconcile, serve, signals, status
from riskcast_server.settings import RiskcastSettings
from serving.access.commands import keys_app
from serving.files import keep_private

app = typer.Typer(
    add_completion=False, help="Stores each signal exactly once.", no_args_is_help=True, pretty_exceptions_enable=False
)
app.command("serve")(serve.serve)
app.command("check")(check.check)
app.command("reconcile")(reconcile.reconcile)
app.command("status")(status.status)
app.add_typer(signals.app, name="signals")
app.add_typer(ledgers.app, name="ledgers")
app.add_typer(db.app, name="db")
app.add_typer(keys_app(RiskcastSettings), name="keys")


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


def main() -> None:
    keep_private()
    app()
