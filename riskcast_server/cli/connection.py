"""What every command that asks a running RiskCast shares."""

from typing import Annotated

import typer

from riskcast_server.settings import RiskcastSettings
from serving.console import Output
from serving.settings import load

QUESTION_TIMEOUT_S = 10.0

Target = Annotated[str | None, typer.Option(help="host:port of the RiskCast to ask; RISKCAST_LISTEN by default.")]
Shape = Annotated[Output, typer.Option("--output", "-o", help="How to print the answer.")]


def target_of(option: str | None) -> str:
    """Raises SettingsRefused."""
    return option or load(RiskcastSettings).listen
