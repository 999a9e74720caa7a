"""The `omen` command."""

from importlib.metadata import version
from typing import Annotated

import typer

from contract.versions import CONTRACT_VERSION, SCHEMA_VERSION
from ledger.format import FORMAT_VERSION
from omen_server.cli import check, dead_letters, delivery, intake, ledger, retention, serve, signals, upkeep
from omen_server.demo.command import demo
from omen_server.domain import RULESET_VERSION
from omen_server.settings import OmenSettings
from serving.access.commands import keys_app
from serving.files import keep_private

app = typer.Typer(
    help="OMEN: observations in, probability signals out, none ever lost.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
app.command("serve")(serve.serve)
app.command("check")(check.check)
app.command("process")(intake.process)
app.command("emit")(intake.emit)
app.command("demo")(demo)
ledger.app.command("verify")(upkeep.verify)
ledger.app.command("seal")(upkeep.seal)
ledger.app.command("backup")(upkeep.backup)
ledger.app.command("prune")(retention.prune)
app.add_typer(ledger.app, name="ledger")
delivery.app.command("dead-letters")(dead_letters.dead_letters)
delivery.app.command("redrive")(dead_letters.redrive)
delivery.app.command("drop")(dead_letters.drop)
app.add_typer(delivery.app, name="delivery")
app.add_typer(signals.app, name="signal")
app.add_typer(keys_app(OmenSettings), name="keys")


def print_versions(wanted: bool) -> None:
    if wanted:
        typer.echo(
            f"omen-riskcast {version('omen-riskcast')}, contract {CONTRACT_VERSION}, ledger format {FORMAT_VERSION}, "
            f"ruleset {RULESET_VERSION}, schema {SCHEMA_VERSION}"
        )
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
