"""What every command that asks a running RiskCast shares."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import grpc
import typer

import serving
from riskcast_server.settings import RiskcastSettings
from serving.console import Output
from serving.settings import load

QUESTION_TIMEOUT_S = 10.0

Target = Annotated[str | None, typer.Option(help="host:port of the RiskCast to ask; RISKCAST_LISTEN by default.")]
Shape = Annotated[Output, typer.Option("--output", "-o", help="How to print the answer.")]


@asynccontextmanager
async def connected(option: str | None) -> AsyncIterator[grpc.aio.Channel]:
    """To the server that the option names, or the settings. Raises SettingsRefused, SecurityRefused."""
    settings = load(RiskcastSettings)
    async with serving.connected(option or settings.listen, settings.client_security()) as channel:
        yield channel
