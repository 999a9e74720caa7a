"""Both servers in this process, on an event loop in a thread of its own, for clients that wait."""

import asyncio
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from contract.errors import ErrorDetails
from omen.v1 import delivery_service_pb2, ledger_service_pb2, pipeline_service_pb2, stats_service_pb2
from omen.v1 import signal_service_pb2 as omen_signals
from riskcast.v1 import ingest_service_pb2, reconcile_service_pb2
from riskcast.v1 import signal_service_pb2 as riskcast_signals
from serving.channels import CHANNEL_OPTIONS
from tests.omen_server.running import closed_port
from tests.omen_server.running import omen as an_omen
from tests.riskcast_server.running import database as database_in
from tests.riskcast_server.running import riskcast as a_riskcast

START_S = 20.0
CALL_S = 30.0
RESPONSES_MAX = 1000  # of one call: whatever has more never ends
ENDLESS = "/omen.v1.SignalService/WatchSignals"  # whom it lets in it answers at once, and then for ever

MODULES = (
    omen_signals,
    pipeline_service_pb2,
    ledger_service_pb2,
    delivery_service_pb2,
    stats_service_pb2,
    ingest_service_pb2,
    riskcast_signals,
    reconcile_service_pb2,
)


METHODS: dict[str, MethodDescriptor] = {
    f"/{service.full_name}/{method.name}": method
    for module in MODULES
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


@dataclass(frozen=True)
class Answer:
    """All that a client sees of a call."""

    code: grpc.StatusCode
    details: ErrorDetails | None
    text: str
    responses: Sequence[Any]

    @property
    def reason(self) -> str:
        return self.details.reason if self.details else ""


@dataclass(frozen=True)
class Both:
    """An OMEN that delivers to a RiskCast, which reconciles with it."""

    omen: grpc.Channel
    riskcast: grpc.Channel
    ledger: Path
    database: Path

    def call(self, path: str, *requests: bytes) -> Answer:
        """A call of any kind, with these bytes as they are."""
        channel = self.omen if package_of(path) == "omen.v1" else self.riskcast
        return answer_of(channel, path, METHODS[path], requests)

    def ask(self, path: str, request: Message) -> Any:
        """The answer of a unary call that must not fail."""
        answer = self.call(path, request.SerializeToString())
        assert answer.code is grpc.StatusCode.OK, answer
        return answer.responses[0]

    def rows(self) -> list[tuple[str, bytes]]:
        """signal_id and event of every signal that RiskCast's file holds."""
        with closing(sqlite3.connect(self.database)) as connection:
            return connection.execute("SELECT signal_id, event FROM signals").fetchall()


def package_of(path: str) -> str:
    """Of a method: also the domain of its errors."""
    return path.strip("/").partition("/")[0].rpartition(".")[0]


def answer_of(channel: grpc.Channel, path: str, method: MethodDescriptor, requests: Sequence[bytes]) -> Answer:
    """By a client that waits: of grpc.aio's, a write that crosses a refusal hides the refusal's status."""
    kind = ("stream_" if method.client_streaming else "unary_") + ("stream" if method.server_streaming else "unary")
    make: Any = getattr(channel, kind)
    callable_ = make(path, None, GetMessageClass(method.output_type).FromString)
    request = iter(requests) if method.client_streaming else requests[0]
    responses: list[Any] = []
    try:
        if method.server_streaming:
            call = callable_(request, timeout=CALL_S)
            for response in call:
                responses.append(response)
                if path == ENDLESS:
                    call.cancel()
                    break
                assert len(responses) < RESPONSES_MAX, f"{path} does not end"
        else:
            responses.append(callable_(request, timeout=CALL_S))
    except grpc.RpcError as error:
        failed: Any = error
        trailers = [(key, value) for key, value in failed.trailing_metadata() or ()]
        details = ErrorDetails.from_trailing_metadata(trailers)
        return Answer(failed.code(), details, failed.details() or "", responses)
    return Answer(grpc.StatusCode.OK, None, "", responses)


@contextmanager
def both(directory: Path) -> Iterator[Both]:
    started: Future[tuple[int, int]] = Future()
    loop, stop = asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        listen = f"127.0.0.1:{closed_port()}"
        async with (
            a_riskcast(directory, omen_targets=(listen,), reconcile_interval=0) as riskcast,
            an_omen(directory / "ledger", int(riskcast.target.rpartition(":")[2]), listen=listen) as omen,
        ):
            started.set_result((omen.port, int(riskcast.target.rpartition(":")[2])))
            await stop.wait()

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(serve())
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    thread = threading.Thread(target=run)
    thread.start()
    omen_port, riskcast_port = started.result(START_S)
    try:
        with dialled(omen_port) as omen, dialled(riskcast_port) as riskcast:
            yield Both(omen, riskcast, directory / "ledger", database_in(directory))
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(START_S)
        assert not thread.is_alive()


@contextmanager
def dialled(port: int) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=CHANNEL_OPTIONS) as channel:
        yield channel
