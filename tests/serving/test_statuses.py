"""Whatever ends a handler, its client gets the promised status, and nothing that it may not know."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import status_pb2
from structlog.testing import capture_logs

import serving
from contract.errors import ContractError, Reason, Violation, invalid_signal
from omen.v1 import signal_service_pb2, signal_service_pb2_grpc
from tests.serving.probe import DOMAIN, KINDS, STREAMS, Context, Failure, Probe, answers, failure, open_call, served

STATUS_BYTES_MAX = 4096


def raising(error: BaseException) -> Callable[[Context], Awaitable[None]]:
    async def script(_context: Context) -> None:
        raise error

    return script


async def failure_of(probe: object, kind: str, text: str | bytes = "hello", *, method: str = "") -> Failure:
    async with served(probe) as running, serving.channel(running.target) as channel:
        return await failure(open_call(channel, kind, text, method=method))


def troubles(logs: Sequence[Mapping[str, object]]) -> list[Mapping[str, object]]:
    """All but the line that each call has."""
    return [line for line in logs if line["event"] != "call"]


def assert_is_a_bug_without_its_text(found: Failure, logs: Sequence[Mapping[str, object]], secret: str) -> None:
    assert (found.code, found.reason) == (grpc.StatusCode.INTERNAL, Reason.INTERNAL)
    assert found.details
    assert found.details.domain == DOMAIN
    assert secret not in found.everything
    [log] = troubles(logs)
    assert (log["event"], log["log_level"]) == ("handler_failed", "error")
    assert log["error_id"] == found.details.metadata["error_id"]
    assert log["exc_info"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_contract_error_arrives_with_code_reason_domain_metadata_and_trailers(kind: str) -> None:
    error = ContractError(
        Reason.QUEUE_FULL,
        "später, bitte",
        metadata={"queue": "ingest"},
        retry_delay_s=1.5,
        trailers=[("original-ack-id", "ack-1")],
    )
    found = await failure_of(Probe(raising(error)), kind)
    assert (found.code, found.text) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "später, bitte")
    assert found.details
    assert (found.details.reason, found.details.domain) == (Reason.QUEUE_FULL, DOMAIN)
    assert (found.details.metadata, found.details.retry_delay_s) == ({"queue": "ingest"}, 1.5)
    assert found.trailers["original-ack-id"] == "ack-1"


@pytest.mark.parametrize("kind", KINDS)
async def test_the_largest_status_arrives_whole_in_4_kib(kind: str) -> None:
    violations = [Violation(f"signal.evidence[{index}].url", "x" * 1000) for index in range(50)]
    found = await failure_of(Probe(raising(invalid_signal(violations))), kind)
    encoded = found.trailers["grpc-status-details-bin"]
    assert isinstance(encoded, bytes)
    assert len(encoded) <= STATUS_BYTES_MAX
    assert status_pb2.Status.FromString(encoded).message == found.text
    assert found.details
    assert found.details.violations


@pytest.mark.parametrize("kind", KINDS)
async def test_an_unforeseen_exception_shows_an_error_id_and_keeps_its_text_in_the_log(kind: str) -> None:
    with capture_logs() as logs:
        found = await failure_of(Probe(raising(RuntimeError("password=hunter2"))), kind)
    assert_is_a_bug_without_its_text(found, logs, "hunter2")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_method_the_servicer_leaves_to_its_generated_base_is_not_implemented(kind: str) -> None:
    class Unwritten:
        """The generated base of any service: its method does not look at what it is given."""

        UnaryUnary = UnaryStream = StreamUnary = StreamStream = signal_service_pb2_grpc.SignalServiceServicer.Emit

    with capture_logs() as logs:
        found = await failure_of(Unwritten(), kind)
    assert (found.code, found.reason) == (grpc.StatusCode.UNIMPLEMENTED, Reason.NOT_IMPLEMENTED)
    assert troubles(logs) == []


async def test_every_method_of_an_empty_generated_servicer_is_not_implemented() -> None:
    empty: Any = signal_service_pb2_grpc.SignalServiceServicer
    add = functools.partial(signal_service_pb2_grpc.add_SignalServiceServicer_to_server, empty())
    service = signal_service_pb2.DESCRIPTOR.services_by_name["SignalService"]
    async with (
        serving.serve("127.0.0.1:0", [serving.Mount(service, add)], domain=DOMAIN) as running,
        serving.channel(running.target) as channel,
    ):
        for method in service.methods:
            kind = KINDS[2 * method.client_streaming + method.server_streaming]
            found = await failure(open_call(channel, kind, b"", method=f"/{service.full_name}/{method.name}"))
            assert (found.code, found.reason) == (grpc.StatusCode.UNIMPLEMENTED, Reason.NOT_IMPLEMENTED)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_not_implemented_error_from_anywhere_else_is_a_bug(kind: str) -> None:
    with capture_logs() as logs:
        found = await failure_of(Probe(raising(NotImplementedError("secret"))), kind)
    assert_is_a_bug_without_its_text(found, logs, "secret")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["/probe.v1.ProbeService/Missing", "/nobody.v1.Here/Missing"])
async def test_a_method_nobody_mounted_is_not_implemented(kind: str, method: str) -> None:
    found = await failure_of(Probe(), kind, method=method)
    assert (found.code, found.reason) == (grpc.StatusCode.UNIMPLEMENTED, Reason.NOT_IMPLEMENTED)


@pytest.mark.parametrize("kind", KINDS)
async def test_bytes_that_are_no_message_never_reach_the_handler(kind: str) -> None:
    probe = Probe()
    found = await failure_of(probe, kind, b"\xff\xff")
    assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, Reason.INVALID_SIGNAL)
    assert found.text == "the request is not a valid protobuf message"
    assert probe.entered == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_an_answer_that_is_no_message_is_a_bug(kind: str) -> None:
    class Careless(Probe):
        async def UnaryUnary(self, request: StringValue, context: Context) -> StringValue:
            return "secret"  # type: ignore[return-value]

        async def UnaryStream(self, request, context):  # type: ignore[no-untyped-def]
            yield "secret"

        async def StreamUnary(self, requests, context):  # type: ignore[no-untyped-def]
            return "secret"

        async def StreamStream(self, requests, context):  # type: ignore[no-untyped-def]
            yield "secret"

    with capture_logs() as logs:
        found = await failure_of(Careless(), kind)
    assert_is_a_bug_without_its_text(found, logs, "secret")


@pytest.mark.parametrize("kind", KINDS)
async def test_an_error_that_cannot_be_encoded_is_a_bug(kind: str) -> None:
    metadata: dict[str, str] = {"count": 3}  # type: ignore[dict-item]
    with capture_logs() as logs:
        found = await failure_of(Probe(raising(ContractError(Reason.QUEUE_FULL, "full", metadata=metadata))), kind)
    assert_is_a_bug_without_its_text(found, logs, "full")


@pytest.mark.parametrize("kind", KINDS)
async def test_the_error_of_the_one_failed_task_of_a_task_group_is_the_answer(kind: str) -> None:
    async def script(context: Context) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(raising(ContractError(Reason.NOT_DUE, "not due"))(context))  # type: ignore[arg-type]
            tasks.create_task(asyncio.Event().wait())

    found = await failure_of(Probe(script), kind)
    assert (found.code, found.reason) == (grpc.StatusCode.FAILED_PRECONDITION, Reason.NOT_DUE)


@pytest.mark.parametrize("kind", KINDS)
async def test_awaiting_what_was_cancelled_elsewhere_is_a_bug_and_not_silence(kind: str) -> None:
    async def script(_context: Context) -> None:
        waiter = asyncio.get_running_loop().create_future()
        waiter.cancel()
        await waiter

    with capture_logs() as logs:
        found = await failure_of(Probe(script), kind)
    assert_is_a_bug_without_its_text(found, logs, "CancelledError")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_handler_may_abort_by_itself(kind: str) -> None:
    async def script(context: Context) -> None:
        await context.abort(grpc.StatusCode.NOT_FOUND, "of my own")

    with capture_logs() as logs:
        found = await failure_of(Probe(script), kind)
    assert (found.code, found.text) == (grpc.StatusCode.NOT_FOUND, "of my own")
    assert troubles(logs) == []


async def test_what_was_answered_before_the_error_arrives_before_it() -> None:
    class Late(Probe):
        async def StreamStream(self, requests, context):  # type: ignore[no-untyped-def]
            async for request in requests:
                yield request
            raise ContractError(Reason.INDEX_BEHIND, "later")

    async with served(Late()) as running, serving.channel(running.target) as channel:
        call = open_call(channel, "StreamStream", "first")
        assert (await call.read()).value == "first"
        with pytest.raises(grpc.aio.AioRpcError, match="later"):
            await call.read()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_that_cancels_ends_the_handler_and_logs_nothing(kind: str) -> None:
    async def script(_context: Context) -> None:
        await asyncio.Event().wait()

    probe = Probe(script)
    with capture_logs() as logs:
        async with served(probe) as running, serving.channel(running.target) as channel:
            call = open_call(channel, kind)
            reading = asyncio.ensure_future(answers(call))
            await probe.reached(entered=1)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            await probe.reached(left=1)
            probe.script = None
            assert await answers(open_call(channel, kind)) == ["hello"]
    assert troubles(logs) == []


@pytest.mark.parametrize("kind", STREAMS)
async def test_a_client_that_vanishes_ends_the_handler(kind: str) -> None:
    async def script(_context: Context) -> None:
        await asyncio.Event().wait()

    probe = Probe(script)
    async with served(probe) as running:
        channel = serving.channel(running.target)
        reading = asyncio.ensure_future(answers(open_call(channel, kind)))
        await probe.reached(entered=1)
        await channel.close()
        with pytest.raises((asyncio.CancelledError, grpc.aio.AioRpcError)):
            await reading
        await probe.reached(left=1)
