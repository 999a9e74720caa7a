"""P1: Emit end to end (ledger fsync and RiskCast commit before the answer), against a bare unary echo of the message.

Both are called by this process in the same way; servers are processes of their own.
"""

import asyncio
import itertools
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import grpc

import serving
from bench import echo
from bench.processes import server
from bench.rounds import Figure, Scale, Workload, measure
from omen.v1 import signal_pb2
from omen.v1 import signal_service_pb2 as pb
from omen.v1.signal_event_pb2 import SignalEvent
from omen.v1.signal_service_pb2_grpc import SignalServiceStub

IN_FLIGHT = 64
CALLS = 4_000
CALL_TIMEOUT_S = 30.0

Call = Callable[[grpc.aio.Channel], Callable[[pb.EmitRequest], Awaitable[pb.EmitResponse]]]

_numbers = itertools.count()


def figures(scale: Scale) -> list[Figure]:
    with emitting(scale.folder) as emit, bare_echo(scale.folder) as echo:
        figure = Figure(
            "Emit, unary, delivered, 64 in flight",
            "calls/s",
            "4,000 events of about 700 bytes, 3 processes, ledger and SQLite synced before each answer; "
            "against 2 processes and no disk",
            measure(emit, scale.rounds, echo),
            compared_with="grpc.aio unary echo of the same",
        )
    return [figure]


@contextmanager
def emitting(folder: Path) -> Iterator[Workload]:
    """OMEN and RiskCast on fresh files."""
    with ExitStack() as stack:
        database = f"sqlite:///{folder / 'riskcast.db'}"
        riskcast = stack.enter_context(
            server(
                folder / "riskcast-port",
                "riskcast_server",
                RISKCAST_LISTEN="127.0.0.1:0",
                RISKCAST_DATABASE_URL=database,
            )
        )
        omen = stack.enter_context(
            server(
                folder / "omen-port",
                "omen_server",
                OMEN_LISTEN="127.0.0.1:0",
                OMEN_LEDGER_DIR=str(folder / "ledger"),
                OMEN_RISKCAST_TARGET=riskcast,
            )
        )
        yield lambda: serving.run(calls_per_s(omen, emit_of, check_delivered))


@contextmanager
def bare_echo(folder: Path) -> Iterator[Workload]:
    """A grpc.aio server that answers every EmitRequest with an EmitResponse and does nothing else."""
    with server(folder / "echo-port", echo.__name__) as target:
        yield lambda: serving.run(calls_per_s(target, emit_of, lambda response: None))


def emit_of(channel: grpc.aio.Channel) -> Callable[[pb.EmitRequest], Awaitable[pb.EmitResponse]]:
    stub = SignalServiceStub(channel)
    return lambda request: stub.Emit(request, timeout=CALL_TIMEOUT_S)


def check_delivered(response: pb.EmitResponse) -> None:
    if response.emission.status != pb.EMISSION_STATUS_DELIVERED:
        raise RuntimeError(f"not delivered: {response}")


async def calls_per_s(target: str, call_of: Call, check: Callable[[pb.EmitResponse], None]) -> float:
    requests = iter([request(next(_numbers)) for _ in range(CALLS)])
    async with serving.channel(target) as channel:
        call = call_of(channel)

        async def caller() -> None:
            for each in requests:
                check(await call(each))

        began = time.perf_counter()
        async with asyncio.TaskGroup() as callers:
            for _ in range(IN_FLIGHT):
                callers.create_task(caller())
        return CALLS / (time.perf_counter() - began)


def request(number: int) -> pb.EmitRequest:
    """A distinct event of about 700 bytes."""
    event = SignalEvent(
        source="bench",
        source_event_id=f"bench:{os.getpid()}:{number}",
        ruleset_version="1.0.0",
        input_event_hash=f"sha256:{number:064x}",
        signal=signal_pb2.Signal(
            title=f"Will traffic through lane {number} stop?",
            description="A closure of the lane would be announced by its authority. " * 6,
            signal_type=signal_pb2.SIGNAL_TYPE_SHIPPING_ROUTE_RISK,
            status=signal_pb2.SIGNAL_STATUS_ACTIVE,
            category=signal_pb2.SIGNAL_CATEGORY_INFRASTRUCTURE,
            probability=0.25,
            probability_source="bench:stated",
            price_basis=signal_pb2.PRICE_BASIS_STATED,
            confidence_score=0.8,
            confidence_level=signal_pb2.CONFIDENCE_LEVEL_HIGH,
            confidence_method="bench",
            source_class=signal_pb2.SOURCE_CLASS_MODEL,
        ),
    )
    now = datetime.now(UTC)
    event.observed_at.FromDatetime(now)
    event.signal.generated_at.FromDatetime(now)
    return pb.EmitRequest(event=event, wait_for=pb.WAIT_FOR_DELIVERED)
