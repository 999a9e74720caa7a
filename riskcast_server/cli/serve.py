"""`riskcast serve`."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

import serving
from riskcast_server import app as server
from riskcast_server.cli.db import refusals
from riskcast_server.settings import RiskcastSettings
from serving.console import failures_told, run_command
from serving.exposure import refuse_exposure, warn_of_exposure
from serving.settings import load


def serve(
    port_file: Annotated[Path | None, typer.Option(help="Write the bound port here once ready.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Listen beyond this machine without keys.")] = False,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""
    serving.configure_logging()
    with failures_told(), refusals():
        run_command(_serve(port_file, insecure))


async def _serve(port_file: Path | None, insecure: bool) -> None:
    settings = load(RiskcastSettings)
    if not insecure and settings.api_keys_file is None:
        refuse_exposure(settings.listen)
    warn_of_exposure(settings.listen, settings.security())
    await serving.serve_until_signalled(partial(server.serve, settings), port_file)
