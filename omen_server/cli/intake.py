"""`omen process` and `omen emit`: NDJSON in, one result per line out."""

import asyncio
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, aclosing, nullcontext
from pathlib import Path
from typing import Annotated, Any, TextIO

import grpc
import typer
from google.protobuf.json_format import Parse, ParseError
from google.protobuf.message import Message

from omen.v1 import pipeline_service_pb2 as pipeline_pb
from omen.v1 import signal_service_pb2 as signal_pb
from omen.v1.observation_pb2 import Observation
from omen.v1.pipeline_service_pb2_grpc import PipelineServiceStub
from omen.v1.signal_event_pb2 import SignalEvent
from omen.v1.signal_service_pb2_grpc import SignalServiceStub
from omen_server.cli.connection import CALL_TIMEOUT_S, Target, connected
from serving.console import Exit, Output, Printer, described, fields, finish, run_command, say

IN_FLIGHT_MAX = 64  # enough for one fsync and one commit to serve many
# What the next line would be answered too.
FOR_EVERY_LINE = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
)
COLUMNS = ("line", "result", "signal_id", "probability", "confidence", "ack_id", "about")

Answer = Message | grpc.aio.AioRpcError | ParseError
Call = Callable[[str], Coroutine[Any, Any, Message]]

File = Annotated[str, typer.Argument(help="An NDJSON file, or - for standard input.")]
Format = Annotated[Output, typer.Option("--output", "-o", help="How to write the results.")]
LedgerOnly = Annotated[bool, typer.Option("--ledger-only", help="Wait for the ledger alone, not for RiskCast.")]


def process(file: File, output: Format = Output.TABLE, ledger_only: LedgerOnly = False, target: Target = None) -> None:
    """Run the observations of FILE through the rules and emit the signals that come of them."""
    wait_for = signal_pb.WAIT_FOR_LEDGER if ledger_only else signal_pb.WAIT_FOR_DELIVERED

    def calls(channel: grpc.aio.Channel) -> Call:
        stub = PipelineServiceStub(channel)

        async def call(line: str) -> Message:
            request = pipeline_pb.ProcessRequest(observation=Parse(line, Observation()), wait_for=wait_for)
            return await stub.Process(request, timeout=CALL_TIMEOUT_S)

        return call

    run_lines(file, output, target, calls)


def emit(file: File, output: Format = Output.TABLE, ledger_only: LedgerOnly = False, target: Target = None) -> None:
    """Emit the signal events of FILE."""
    wait_for = signal_pb.WAIT_FOR_LEDGER if ledger_only else signal_pb.WAIT_FOR_DELIVERED

    def calls(channel: grpc.aio.Channel) -> Call:
        stub = SignalServiceStub(channel)

        async def call(line: str) -> Message:
            request = signal_pb.EmitRequest(event=Parse(line, SignalEvent()), wait_for=wait_for)
            return await stub.Emit(request, timeout=CALL_TIMEOUT_S)

        return call

    run_lines(file, output, target, calls)


def run_lines(file: str, output: Output, target: str | None, calls: Callable[[grpc.aio.Channel], Call]) -> None:
    """Send every line of a file and end the command; a file that cannot be read ends it with a line."""
    try:
        finish(run_command(_run(file, output, target, calls)))
    except (OSError, UnicodeDecodeError) as error:
        say(f"{file}: {error.strerror if isinstance(error, OSError) else error}")
        raise typer.Exit(Exit.USAGE) from error


async def _run(file: str, output: Output, target: str | None, calls: Callable[[grpc.aio.Channel], Call]) -> Exit:
    """PARTIAL when a line was not taken; the others are. Raises OSError and UnicodeDecodeError of the file."""
    worst = Exit.OK
    with opened(file) as source, Printer(output, COLUMNS) as printer:
        lines = ((number, line) for number, line in enumerate(source, start=1) if line.strip())
        async with connected(target) as channel, aclosing(answers(lines, calls(channel))) as answered:
            async for number, answer in answered:
                if isinstance(answer, Message):
                    printer.add(row(number, answer), data(number, answer))
                    continue
                if isinstance(answer, grpc.aio.AioRpcError) and answer.code() in FOR_EVERY_LINE:
                    raise answer
                flaw = described(answer) if isinstance(answer, grpc.aio.AioRpcError) else str(answer).splitlines()[0]
                say(f"line {number}: {flaw}")
                worst = Exit.PARTIAL
    return worst


def opened(file: str) -> AbstractContextManager[TextIO]:
    return nullcontext(sys.stdin) if file == "-" else Path(file).open(encoding="utf-8")


async def answers(lines: Iterator[tuple[int, str]], call: Call) -> AsyncGenerator[tuple[int, Answer], None]:
    """The answer to every line, in order, with a bounded number of calls in flight; none is when it is closed."""
    window: deque[tuple[int, asyncio.Task[Answer]]] = deque()
    try:
        while (numbered := await asyncio.to_thread(next, lines, None)) is not None:
            number, line = numbered
            window.append((number, asyncio.create_task(_answer(call, line))))
            if len(window) == IN_FLIGHT_MAX:
                number, task = window.popleft()
                yield number, await task
        for number, task in window:
            yield number, await task
    finally:
        for _, task in window:
            task.cancel()
        await asyncio.gather(*(task for _, task in window), return_exceptions=True)


async def _answer(call: Call, line: str) -> Answer:
    try:
        return await call(line)
    except (grpc.aio.AioRpcError, ParseError) as error:
        return error


def data(number: int, answer: Message) -> dict[str, object]:
    """What JSON shows of an answer."""
    return {"line": number, **fields(answer)}


def row(number: int, answer: Message) -> dict[str, object]:
    """What the table shows of an answer."""
    if isinstance(answer, pipeline_pb.ProcessResponse) and answer.HasField("rejection"):
        rejection = answer.rejection
        return {"line": number, "result": f"rejected by {rejection.rule_name}", "about": rejection.source_event_id}
    assert isinstance(answer, pipeline_pb.ProcessResponse | signal_pb.EmitResponse)
    emission = answer.emission
    status = signal_pb.EmissionStatus.Name(emission.status).removeprefix("EMISSION_STATUS_")
    shown: dict[str, object] = {
        "line": number,
        "result": status,
        "signal_id": emission.signal_id,
        "ack_id": emission.ack_id,
        "about": emission.ledger_only_reason,
    }
    if isinstance(answer, pipeline_pb.ProcessResponse):
        signal = answer.event.signal
        shown |= {"probability": signal.probability, "confidence": signal.confidence_score, "about": signal.title}
    return shown
