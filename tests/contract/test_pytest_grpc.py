"""A synchronous client, driven by pytest-grpc, sees what our asynchronous servers say, errors and streams included.

pytest-grpc 0.8 starts a synchronous server of its own; `_grpc_server` is overridden so that it starts one of ours.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from typing import Any

import grpc
import pytest

from contract import errors
from contract.errors import ErrorDetails, Violation
from contract.reasons import Reason
from omen.v1.signal_event_pb2 import SignalEvent
from riskcast.v1 import ingest_service_pb2, ingest_service_pb2_grpc
from riskcast.v1.ingest_service_pb2 import (
    DuplicateSignal,
    IngestBatch,
    IngestHello,
    IngestHelloResult,
    IngestRequest,
    IngestResponse,
    IngestStreamRequest,
    IngestStreamResponse,
)
from riskcast.v1.ingest_service_pb2_grpc import IngestServiceServicer, IngestServiceStub
from serving import Mount, serve
from tests.contract.samples import OBSERVED_AT, stamp

SERVICE = ingest_service_pb2.DESCRIPTOR.services_by_name["IngestService"]
START_S = 10


class Door(IngestServiceServicer):
    """Stores nothing: an event is a duplicate, invalid, or a bug, as its source_event_id says."""

    async def Ingest(self, request: IngestRequest, context: object) -> IngestResponse:
        match request.event.source_event_id:
            case "duplicate":
                raise errors.duplicate_signal("OMEN-0123456789AB", "ack-1", OBSERVED_AT, content_matches=True)
            case "invalid":
                raise errors.invalid_signal([Violation("signal.title", "required")])
            case "bug":
                raise KeyError("a secret of the server")
        return IngestResponse(ack_id=f"ack-{request.event.source_event_id}", ingested_at=stamp(OBSERVED_AT))

    async def IngestStream(
        self, request_iterator: AsyncIterator[IngestStreamRequest], context: object
    ) -> AsyncIterator[IngestStreamResponse]:
        async for request in request_iterator:
            if not request.HasField("hello"):
                raise errors.not_implemented("a batch")
            yield IngestStreamResponse(hello=IngestHelloResult(settled_count=7))


class ServerThread:
    """What pytest-grpc asks of a server: one of ours, on an event loop in a thread of its own."""

    def __init__(self) -> None:
        self.mounts: list[Mount] = []
        self.listen = ""
        self.stopping: Callable[[], object] | None = None
        self.ready: Future[None] = Future()
        self.thread = threading.Thread(target=lambda: asyncio.run(self.run()))

    def add_insecure_port(self, target: str) -> None:
        self.listen = target

    def start(self) -> None:
        self.thread.start()
        self.ready.result(START_S)

    def stop(self, grace: float | None) -> None:
        if self.stopping:
            self.stopping()
        self.thread.join()

    async def run(self) -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        self.stopping = lambda: loop.call_soon_threadsafe(stop.set)
        try:
            async with serve(self.listen, self.mounts, domain="riskcast.v1", grace_s=1):
                self.ready.set_result(None)
                await stop.wait()
        except BaseException as error:
            if not self.ready.done():
                self.ready.set_exception(error)
            raise


@pytest.fixture(scope="module")
def grpc_addr(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"unix:{tmp_path_factory.mktemp('grpc') / 'socket'}"


@pytest.fixture(scope="module")
def _grpc_server() -> ServerThread:
    return ServerThread()


@pytest.fixture(scope="module")
def grpc_add_to_server() -> Callable[[Door, ServerThread], None]:
    add = ingest_service_pb2_grpc.add_IngestServiceServicer_to_server
    return lambda servicer, server: server.mounts.append(Mount(SERVICE, lambda inner: add(servicer, inner)))


@pytest.fixture(scope="module")
def grpc_servicer() -> Door:
    return Door()


@pytest.fixture(scope="module")
def grpc_stub_cls() -> type[IngestServiceStub]:
    return IngestServiceStub


def request(source_event_id: str) -> IngestRequest:
    return IngestRequest(event=SignalEvent(source_event_id=source_event_id))


def refusal(call: Callable[[], object]) -> tuple[Any, ErrorDetails]:
    """The failed call, an RpcError that is a grpc.Call too (which its types do not say), and what its trailers say."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    failed: Any = caught.value
    details = ErrorDetails.from_trailing_metadata(failed.trailing_metadata())
    assert details
    return failed, details


def test_an_answer_arrives(grpc_stub: IngestServiceStub) -> None:
    assert grpc_stub.Ingest(request("new")).ack_id == "ack-new"


def test_a_duplicate_arrives_with_its_detail_and_its_trailer(grpc_stub: IngestServiceStub) -> None:
    failed, details = refusal(lambda: grpc_stub.Ingest(request("duplicate")))
    assert failed.code() is grpc.StatusCode.ALREADY_EXISTS
    assert (details.reason, details.domain) == (Reason.DUPLICATE_SIGNAL, "riskcast.v1")
    assert details.duplicate == DuplicateSignal(ack_id="ack-1", ingested_at=stamp(OBSERVED_AT), content_matches=True)
    assert ("original-ack-id", "ack-1") in failed.trailing_metadata()


def test_violations_arrive(grpc_stub: IngestServiceStub) -> None:
    failed, details = refusal(lambda: grpc_stub.Ingest(request("invalid")))
    assert failed.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert details.violations == (Violation("signal.title", "required"),)


def test_a_bug_arrives_as_an_id_and_nothing_else(
    grpc_stub: IngestServiceStub, capfd: pytest.CaptureFixture[str]
) -> None:
    failed, details = refusal(lambda: grpc_stub.Ingest(request("bug")))
    assert failed.code() is grpc.StatusCode.INTERNAL
    assert details.metadata.keys() == {"error_id"}
    assert "secret" not in f"{failed.details()}{failed.trailing_metadata()}"
    logged = capfd.readouterr()
    assert details.metadata["error_id"] in logged.out + logged.err


def test_a_stream_answers_in_order_until_its_error(grpc_stub: IngestServiceStub) -> None:
    hello = IngestStreamRequest(hello=IngestHello(ledger_id="x"))
    answers: Iterator[IngestStreamResponse] = grpc_stub.IngestStream(
        iter([hello, hello, IngestStreamRequest(batch=IngestBatch())])
    )
    assert [next(answers).hello.settled_count for _ in range(2)] == [7, 7]
    failed, details = refusal(lambda: next(answers))
    assert failed.code() is grpc.StatusCode.UNIMPLEMENTED
    assert details.reason == Reason.NOT_IMPLEMENTED
