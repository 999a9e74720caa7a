"""`omen serve`."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

import omen_server.app
import serving
from ledger import FormatUnsupported, LedgerDamaged, LedgerError
from omen_server.delivery_file import DeliveryFileUnreadable
from omen_server.settings import OmenSettings
from serving.console import Exit, failures_told, run_command, say
from serving.exposure import refuse_exposure, warn_of_exposure
from serving.settings import load


def serve(
    port_file: Annotated[Path | None, typer.Option(help="Write the bound port here once ready.")] = None,
    insecure: Annotated[bool, typer.Option(help="Listen beyond this machine although there are no keys.")] = False,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Settings come from OMEN_* of the environment."""
    serving.configure_logging()
    with failures_told(), refusals():
        run_command(_serve(port_file, insecure))


@contextmanager
def refusals() -> Iterator[None]:
    """What the ledger refuses becomes one line and an exit code."""
    try:
        yield
    except (LedgerDamaged, FormatUnsupported, DeliveryFileUnreadable) as error:
        say(str(error))
        raise typer.Exit(Exit.INTEGRITY) from error
    except LedgerError as error:
        say(str(error))
        raise typer.Exit(Exit.UNAVAILABLE) from error


async def _serve(port_file: Path | None, insecure: bool) -> None:
    settings = load(OmenSettings)
    if not insecure and settings.api_keys_file is None:
        refuse_exposure(settings.listen)
    warn_of_exposure(settings.listen, settings.security())
    await serving.serve_until_signalled(partial(omen_server.app.serve, settings), port_file)
