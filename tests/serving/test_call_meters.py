"""Calls are counted under the names and labels that go-grpc-middleware made the standard ones."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import pytest
from prometheus_client import CollectorRegistry, generate_latest

import serving
from contract.errors import ContractError, Reason
from serving.telemetry.call_meters import GO_CODES, call_meters
from tests.serving.probe import DOMAIN, KINDS, SERVICE, Context, Probe, answers, failure, mount, open_call
from tests.serving.scraping import DEADLINE_S, Scraped

TYPES = dict(zip(KINDS, ("unary", "server_stream", "client_stream", "bidi_stream"), strict=True))


@dataclass(frozen=True)
class Metered:
    """A client, and the registry of its server."""

    channel: grpc.aio.Channel
    registry: CollectorRegistry

    @property
    def now(self) -> Scraped:
        return Scraped(generate_latest(self.registry).decode())

    async def until(self, holds: Callable[[Scraped], bool]) -> Scraped:
        """A call is counted as ended just after its client has heard of it."""
        async with asyncio.timeout(DEADLINE_S):
            while not holds(scraped := await asyncio.to_thread(lambda: self.now)):
                pass
        return scraped


@asynccontextmanager
async def metered(probe: Probe) -> AsyncIterator[Metered]:
    registry = CollectorRegistry()
    async with (
        serving.serve("127.0.0.1:0", [mount(probe)], domain=DOMAIN, registry=registry, grace_s=1.0) as running,
        serving.channel(running.target) as channel,
    ):
        yield Metered(channel, registry)


def labels_of(kind: str) -> dict[str, str]:
    return {"grpc_type": TYPES[kind], "grpc_service": SERVICE.full_name, "grpc_method": kind}


@pytest.mark.parametrize("kind", KINDS)
async def test_every_method_is_there_from_the_start_at_0_and_each_call_counts_once(kind: str) -> None:
    labels = labels_of(kind)

    def counts(scraped: Scraped) -> list[float | None]:
        return [
            scraped.maybe("grpc_server_started_total", **labels),
            scraped.maybe("grpc_server_handled_total", **labels, grpc_code="OK"),
            scraped.maybe("grpc_server_msg_received_total", **labels),
            scraped.maybe("grpc_server_msg_sent_total", **labels),
            scraped.maybe("grpc_server_handling_seconds_count", **labels),
        ]

    async with metered(Probe()) as server:
        assert counts(server.now) == [0, 0, 0, 0, 0]
        for _ in range(3):
            await answers(open_call(server.channel, kind))
        assert counts(await server.until(lambda now: counts(now)[-1] == 3)) == [3, 3, 3, 3, 3]


async def test_health_is_there_from_the_start_too() -> None:
    async with metered(Probe()) as server:
        methods = {dict(labels)["grpc_method"] for _, labels in server.now.series}
    assert methods == {*KINDS, "Check", "List", "Watch"}


@pytest.mark.parametrize("kind", KINDS)
async def test_the_code_is_the_one_that_the_client_saw_as_go_spells_it(kind: str) -> None:
    async def script(_context: Context) -> None:
        raise ContractError(Reason.QUEUE_FULL, "full")

    async with metered(Probe(script)) as server:
        assert (await failure(open_call(server.channel, kind))).code is grpc.StatusCode.RESOURCE_EXHAUSTED
        handled = {"ResourceExhausted": 1.0}
        await server.until(lambda now: now.by("grpc_code", "grpc_server_handled_total", **labels_of(kind)) == handled)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_that_leaves_is_counted_as_canceled(kind: str) -> None:
    async def for_ever(_context: Context) -> None:
        await asyncio.Event().wait()

    probe = Probe(for_ever)
    async with metered(probe) as server:
        call = open_call(server.channel, kind)
        leaving = asyncio.ensure_future(failure(call))
        await probe.reached(entered=1)
        call.cancel()
        handled = {"Canceled": 1.0}
        await server.until(lambda now: now.by("grpc_code", "grpc_server_handled_total", **labels_of(kind)) == handled)
        await asyncio.gather(leaving, return_exceptions=True)


def test_codes_are_spelled_as_go_does() -> None:
    assert " ".join(sorted(GO_CODES.values())) == (
        "Aborted AlreadyExists Canceled DataLoss DeadlineExceeded FailedPrecondition Internal InvalidArgument NotFound "
        "OK OutOfRange PermissionDenied ResourceExhausted Unauthenticated Unavailable Unimplemented Unknown"
    )


async def test_whatever_clients_call_makes_no_series_but_one() -> None:
    async with metered(Probe()) as server:
        before = server.now.series
        for number in range(20):
            for method in (f"/probe.v1.ProbeService/Method{number}", f"/package{number}.Service/Get", f"/{number}"):
                found = await failure(open_call(server.channel, "UnaryUnary", method=method))
                assert found.code is grpc.StatusCode.UNIMPLEMENTED
        handled = {"Unimplemented": 60.0}
        after = await server.until(lambda now: now.by("grpc_code", "grpc_server_handled_total") == handled)
    assert after.by("grpc_service", "grpc_server_started_total") == {"unknown": 60.0}
    new = [dict(labels) for _, labels in after.series - before]
    assert {(labels["grpc_service"], labels["grpc_method"]) for labels in new} == {("unknown", "unknown")}


def test_a_method_keeps_the_kind_it_was_introduced_with() -> None:
    """A call that is refused before it is read is answered by a handler of another kind."""
    registry = CollectorRegistry()
    meters = call_meters("server", registry)
    meters.introduce([SERVICE])
    before = Scraped(generate_latest(registry).decode()).series
    meters.of(f"/{SERVICE.full_name}/UnaryUnary", "bidi_stream").began()
    after = Scraped(generate_latest(registry).decode())
    assert after.maybe("grpc_server_started_total", **labels_of("UnaryUnary")) == 1
    assert after.series == before
