"""`omen demo`: sets the stage, plays the acts, clears it all away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import grpc
import typer

import serving
from omen_server.demo.expectation import ExpectationFailed
from omen_server.demo.expected import observations
from omen_server.demo.keep import Kept, things_to_try
from omen_server.demo.programme import ACTS
from omen_server.demo.screen import Screen, screen_of
from omen_server.demo.servers import ServerFailed, database, two_servers
from omen_server.demo.stage import Stage
from serving.console import Exit, Output, described, finish, run_command, say
from serving.tasks import first_of

LOG_LINES_SHOWN = 15

Format = Annotated[Output, typer.Option("--output", "-o", help="How to tell it.")]
Keep = Annotated[bool, typer.Option("--keep", help="Leave both servers up and print calls to try, until Ctrl-C.")]


def demo(output: Format = Output.TABLE, keep: Keep = False) -> None:
    """Show on two real servers that signals survive outages and crashes, and are stored exactly once.

    Takes a few seconds, a temporary directory and two loopback ports. Exit code 7 when a promise was not kept, 5 when a
    server failed, 1 when it was stopped before its end.
    """
    finish(run_command(play(screen_of(output), keep)))


async def play(screen: Screen, keep: bool) -> Exit:
    """The whole demo. Nothing of it is left afterwards, however it ends."""
    async with serving.stop_signals() as stop, empty_stage() as stage:
        started_at = seconds_now()
        try:
            await first_of(play_acts(stage, screen), stop.wait())
            kept = await what_is_kept(stage) if keep and not stop.is_set() else None
        except (ExpectationFailed, ServerFailed, grpc.aio.AioRpcError) as failure:
            if not stop.is_set():  # Ctrl-C reaches the servers too: then they go first, and that is no failure
                return failed(stage, screen, failure)
        if stop.is_set():
            say("stopped before the end")
            return Exit.UNEXPECTED
        screen.passed(seconds_now() - started_at, kept)
        if keep:
            await stop.wait()
        return Exit.OK


@asynccontextmanager
async def empty_stage() -> AsyncIterator[Stage]:
    """Two servers, not yet started, in a directory that goes with them."""
    with TemporaryDirectory(prefix="omen-demo-") as name:
        directory = Path(name)
        async with two_servers(directory) as (omen, riskcast):
            yield Stage(omen, riskcast, directory, database(directory), observations())


async def play_acts(stage: Stage, screen: Screen) -> None:
    """Raises ExpectationFailed, ServerFailed and grpc.aio.AioRpcError."""
    await stage.riskcast.start()
    await stage.omen.start()
    screen.opened(stage)
    for number, act in enumerate(ACTS, start=1):
        began_at = seconds_now()
        with screen.playing(number, act):
            shown = await act.play(stage)
        screen.shown(number, act, shown, seconds_now() - began_at)


async def what_is_kept(stage: Stage) -> Kept:
    return Kept(stage.directory, stage.omen.target, stage.riskcast.target, await things_to_try(stage))


def failed(stage: Stage, screen: Screen, failure: Exception) -> Exit:
    """Says what went wrong, and what the servers said last."""
    reason = described(failure) if isinstance(failure, grpc.aio.AioRpcError) else str(failure)
    screen.failed(reason)
    say(f"failed: {reason}")
    for server in (stage.omen, stage.riskcast):
        for line in server.log_tail(LOG_LINES_SHOWN):
            say(f"{server.name}: {line}")
    return Exit.INTEGRITY if isinstance(failure, ExpectationFailed) else Exit.UNAVAILABLE


def seconds_now() -> float:
    return asyncio.get_running_loop().time()
