"""Which OMEN a command talks to."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import grpc
import typer

import serving
from omen_server.settings import OmenSettings
from serving.settings import load

CALL_TIMEOUT_S = 70.0  # above the longest delivery_timeout

Target = Annotated[str | None, typer.Option(help="host:port of the server; OMEN_LISTEN by default.")]


@asynccontextmanager
async def connected(option: str | None) -> AsyncIterator[grpc.aio.Channel]:
    """To the server that the option names, or the settings. Raises SettingsRefused, SecurityRefused."""
    settings = load(OmenSettings)
    async with serving.connected(option or settings.listen, settings.client_security()) as channel:
        yield channel
