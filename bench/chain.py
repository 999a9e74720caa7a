"""What a call goes through before and after its handler: keys, scopes, drain, metrics, a log line. In processor time of
the server, against a bare grpc.aio server that does the same without any of it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc

import serving
from bench import echo
from bench.emit import request
from bench.keys import Keys
from bench.processes import server
from bench.rounds import Figure, Scale, Workload, measure
from contract.limits import BATCH_ITEMS_MAX
from omen.v1 import signal_service_pb2 as pb

CALLS = 8_000
IN_FLIGHT = 64
MESSAGES = 400
TIMEOUT_S = 60.0

Metadata = tuple[tuple[str, str], ...]
Load = Callable[[grpc.aio.Channel, Metadata], Awaitable[int]]  # how many it sent


def figures(scale: Scale) -> list[Figure]:
    keys = Keys.within(scale.folder)
    metadata = keys.metadata
    with (
        served(scale.folder / "bare-port") as bare,
        served(scale.folder / "guarded-port", keys.accepted_file) as guarded,
    ):
        one_by_one, streamed = partial(calls, scale.of(CALLS)), partial(messages, scale.of(MESSAGES))
        unary = measure(taking(guarded, one_by_one, metadata), scale.rounds, taking(bare, one_by_one, metadata))
        stream = measure(taking(guarded, streamed, metadata), scale.rounds, taking(bare, streamed, metadata))
    settings = "processor time of the server; keys, scopes, metrics and JSON log lines to a file; uvloop on both sides"
    compared = "grpc.aio alone"
    return [
        Figure("guard, unary call of 700 bytes", "us CPU", settings, unary, compared_with=compared, at_most=1.15),
        Figure("guard, stream message of 256", "us CPU", settings, stream, compared_with=compared, at_most=1.02),
    ]


@contextmanager
def served(port_file: Path, keys_file: Path | None = None) -> Iterator[str]:
    arguments = ["--keys-file", str(keys_file)] if keys_file else []
    with server(port_file, echo.__name__, *arguments) as target:
        yield target


def taking(target: str, load: Load, metadata: Metadata) -> Workload:
    """Microseconds of the server's processor time for each that `load` sends."""

    async def run() -> float:
        async with serving.channel(target) as channel:
            cpu: Any = channel.unary_unary(echo.CPU)
            before = float(await cpu(b"", metadata=metadata, timeout=TIMEOUT_S))
            count = await load(channel, metadata)
            after = float(await cpu(b"", metadata=metadata, timeout=TIMEOUT_S))
            return (after - before) / count * 1e6

    return lambda: serving.run(run())


async def calls(count: int, channel: grpc.aio.Channel, metadata: Metadata) -> int:
    """As bytes: what is measured is the server."""
    encoded = request(0).SerializeToString()
    call: Any = channel.unary_unary(f"/{echo.SERVICE.full_name}/Emit")
    left = iter(range(count))

    async def caller() -> None:
        for _ in left:
            await call(encoded, metadata=metadata, timeout=TIMEOUT_S)

    async with asyncio.TaskGroup() as callers:
        for _ in range(IN_FLIGHT):
            callers.create_task(caller())
    return count


async def messages(count: int, channel: grpc.aio.Channel, metadata: Metadata) -> int:
    """One after the other on one stream."""
    events = [request(number).event for number in range(BATCH_ITEMS_MAX)]
    encoded = pb.EmitStreamRequest(events=events).SerializeToString()
    call: Any = channel.stream_stream(f"/{echo.SERVICE.full_name}/EmitStream")(metadata=metadata, timeout=TIMEOUT_S)
    for _ in range(count):
        await call.write(encoded)
        await call.read()
    await call.done_writing()
    return count
