"""The `omen` command: which there are, and where. Each is loaded when it is chosen."""

from typing import Annotated

import typer

from serving.commands import Group, Table, chosen_from, found
from serving.files import keep_private

COMMANDS: Table = {
    "serve": "omen_server.cli.serve:serve",
    "check": "omen_server.cli.check:check",
    "process": "omen_server.cli.intake:process",
    "emit": "omen_server.cli.intake:emit",
    "demo": "omen_server.demo.command:demo",
    "ledger": Group(
        "Read the ledger, with or without a server beside it.",
        {
            "ls": "omen_server.cli.ledger:ls",
            "cat": "omen_server.cli.ledger:cat",
            "show": "omen_server.cli.ledger:show",
            "damage": "omen_server.cli.ledger:damage",
            "verify": "omen_server.cli.upkeep:verify",
            "seal": "omen_server.cli.upkeep:seal",
            "backup": "omen_server.cli.upkeep:backup",
            "prune": "omen_server.cli.retention:prune",
        },
    ),
    "delivery": Group(
        "Show and steer how the ledger reaches RiskCast.",
        {
            "status": "omen_server.cli.delivery:status",
            "pause": "omen_server.cli.delivery:pause",
            "resume": "omen_server.cli.delivery:resume",
            "dead-letters": "omen_server.cli.dead_letters:dead_letters",
            "redrive": "omen_server.cli.dead_letters:redrive",
            "drop": "omen_server.cli.dead_letters:drop",
        },
    ),
    "signal": Group(
        "Show signals as the ledger holds them.",
        {
            "get": "omen_server.cli.signals:get_signal",
            "list": "omen_server.cli.signals:list_signals",
            "watch": "omen_server.cli.signals:watch_signals",
            "verify-id": "omen_server.cli.identity:verify_id",
        },
    ),
    "keys": Group(
        "Who may call: the file of OMEN_API_KEYS_FILE.",
        {
            "create": "omen_server.cli.keys:create",
            "list": "omen_server.cli.keys:list_keys",
            "revoke": "omen_server.cli.keys:revoke",
        },
    ),
}

app = typer.Typer(
    cls=chosen_from(COMMANDS),
    help="OMEN: observations in, probability signals out, none ever lost.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)


def print_versions(wanted: bool) -> None:
    if wanted:
        typer.echo(found("omen_server.cli.versions:versions")())
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=print_versions, is_eager=True, help="Show all versions and exit.")
    ] = False,
) -> None:
    """OMEN: observations in, probability signals out, none ever lost."""


def main() -> None:
    keep_private()
    app()
