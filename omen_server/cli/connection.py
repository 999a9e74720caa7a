"""Which OMEN a command talks to."""

from typing import Annotated

import typer

from omen_server.settings import OmenSettings
from serving.settings import load

CALL_TIMEOUT_S = 70.0  # above the longest delivery_timeout

Target = Annotated[str | None, typer.Option(help="host:port of the server; OMEN_LISTEN by default.")]


def target_of(option: str | None) -> str:
    """Raises SettingsRefused."""
    return option or load(OmenSettings).listen
