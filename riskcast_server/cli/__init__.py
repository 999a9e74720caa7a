"""The command `riskcast`: the server, and questions to a running one. Each is loaded when it is chosen."""

from typing import Annotated

import typer

from serving.commands import Group, Table, chosen_from, found
from serving.files import keep_private

COMMANDS: Table = {
    "serve": "riskcast_server.cli.serve:serve",
    "check": "riskcast_server.cli.check:check",
    "reconcile": "riskcast_server.cli.reconcile:reconcile",
    "status": "riskcast_server.cli.status:status",
    "signals": Group(
        "What is stored.",
        {
            "get": "riskcast_server.cli.signals:get_signal",
            "list": "riskcast_server.cli.signals:list_signals",
            "count": "riskcast_server.cli.signals:count_signals",
        },
    ),
    "ledgers": Group("What an operator decides about a ledger.", {"accept": "riskcast_server.cli.ledgers:accept"}),
    "db": Group(
        "The store at RISKCAST_DATABASE_URL.",
        {"migrate": "riskcast_server.cli.db:migrate", "backup": "riskcast_server.cli.db:backup"},
    ),
    "keys": Group(
        "Who may call: the file of RISKCAST_API_KEYS_FILE.",
        {
            "create": "riskcast_server.cli.keys:create",
            "list": "riskcast_server.cli.keys:list_keys",
            "revoke": "riskcast_server.cli.keys:revoke",
        },
    ),
}

app = typer.Typer(
    cls=chosen_from(COMMANDS),
    add_completion=False,
    help="Stores each signal exactly once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(found("riskcast_server.cli.versions:versions")())
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
