"""WatchSignals over a real connection: what is told, to whom, and how it ends."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

import serving
from contract.errors import ContractError, ErrorDetails, Reason
from omen.v1 import signal_service_pb2 as pb
from omen.v1.signal_service_pb2_grpc import SignalServiceStub
from omen_server.reading.watching import TAKEN_WITHIN_S, taken_in_time, too_slow
from serving.security import PLAIN
from tests.omen_server.running import DEADLINE_S, Omen, closed_port, event, omen, riskcast
from tests.simulation import clockwork

LARGE_COUNT = 60  # of 200 KB: more than a connection takes for a client that does not read


def watch(server: Omen, cursor: str = "") -> Any:
    return server.signals.WatchSignals(pb.WatchSignalsRequest(cursor=cursor))


async def told(call: Any, count: int) -> list[pb.WatchSignalsResponse]:
    """The first so many records."""
    found: list[pb.WatchSignalsResponse] = []
    async with asyncio.timeout(DEADLINE_S):
        while len(found) < count:
            message = await call.read()
            assert message is not grpc.aio.EOF
            if message.HasField("record"):
                found.append(message)
    return found


async def ending(call: Any) -> tuple[list[pb.WatchSignalsResponse], ErrorDetails]:
    """The records that came before the end, and the reason of the end."""
    found: list[pb.WatchSignalsResponse] = []
    try:
        while True:
            found += await told(call, 1)
    except grpc.aio.AioRpcError as error:
        details = ErrorDetails.from_trailing_metadata(error.trailing_metadata())
    assert details
    return found, details


async def emit_large(server: Omen, count: int) -> None:
    for number in range(count):
        made = event(1000 + number)
        made.signal.explanation = "\U0001f6a2" * 20_000
        made.canonical_observation = b"c" * 60_000
        made.ClearField("input_event_hash")
        made.signal.description = "\U0001f6a2" * 5_000
        await server.emit(made, wait_for=pb.WAIT_FOR_LEDGER)


async def test_every_watcher_is_told_each_record_as_it_was_appended(tmp_path: Path) -> None:
    async with riskcast(tmp_path / "db") as store, omen(tmp_path / "ledger", store.port) as server:
        await server.emit(event(0))
        calls = [watch(server) for _ in range(20)]
        for call in calls:
            assert not (await call.read()).HasField("record")  # at once: it watches
        emissions = [await server.emit(event(number)) for number in range(1, 8)]
        seen = [await told(call, 7) for call in calls]
        held = (await server.records())[1:]
        late = await told(watch(server, seen[0][2].cursor), 4)
    assert [[message.record for message in each] for each in seen] == [held] * 20
    assert [message.record.position for message in seen[0]] == [emission.position for emission in emissions]
    assert [message.record for message in late] == held[3:]


async def test_a_watch_ends_with_the_server_and_says_why(tmp_path: Path) -> None:
    async with AsyncExitStack() as after_the_server:
        async with omen(tmp_path, closed_port()) as server:
            channel = serving.channel(f"127.0.0.1:{server.port}", PLAIN)
            stub = SignalServiceStub(await after_the_server.enter_async_context(channel))
            call: Any = stub.WatchSignals(pb.WatchSignalsRequest())
            cursor = (await call.read()).cursor
            [emission] = await server.to_ledger(1)
        found, details = await ending(call)
    assert (details.code, details.reason) == (grpc.StatusCode.UNAVAILABLE.value[0], Reason.SHUTTING_DOWN)
    async with omen(tmp_path, closed_port()) as server:
        [again] = await told(watch(server, cursor), 1)
    assert again.record.position == emission.position
    assert found in ([], [again])


async def test_a_cursor_that_is_none_is_refused(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()) as server:
        for cursor in ("x", "x" * 70_000):
            _, details = await ending(watch(server, cursor))
            assert details.reason == Reason.INVALID_PAGE_TOKEN


async def test_whoever_stops_reading_is_cut_off_by_name_and_goes_on_by_cursor_and_nobody_else_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omen_server.reading.watching.TAKEN_WITHIN_S", 2.0)
    async with omen(tmp_path, closed_port()) as server:
        idle, reading = watch(server), watch(server)
        cursor = (await idle.read()).cursor
        await reading.read()
        follows = asyncio.create_task(told(reading, LARGE_COUNT))
        with capture_logs() as lines:
            await emit_large(server, LARGE_COUNT)
            await follows
            async with asyncio.timeout(DEADLINE_S):
                while not have_been_cut(lines):
                    await server.state()
        found, details = await ending(idle)
        assert (details.code, details.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], Reason.QUEUE_FULL)
        assert details.retry_delay_s
        assert 0 < len(found) < LARGE_COUNT
        rest = await told(watch(server, found[-1].cursor), LARGE_COUNT - len(found))
        everything = await told(watch(server, cursor), LARGE_COUNT)
    positions = [message.record.position.sequence for message in [*found, *rest]]
    assert positions == [message.record.position.sequence for message in everything]


def have_been_cut(lines: list[EventDict]) -> bool:
    return any(line["event"] == "call" and line.get("reason") == Reason.QUEUE_FULL for line in lines)


async def numbers(count: int) -> AsyncGenerator[int, None]:
    for number in range(count):
        yield number


def test_patience_is_per_message_and_ends_with_the_refusal() -> None:
    """On a clock that stands still while anybody works: however slow the machine is, nobody's patience ends by that."""
    clockwork.run(take_each_in_time_and_then_one_too_late, Random(0))


async def take_each_in_time_and_then_one_too_late() -> None:
    taken = []
    async with aclosing(taken_in_time(numbers(5), TAKEN_WITHIN_S, too_slow)) as messages:
        async for number in messages:
            await asyncio.sleep(0.9 * TAKEN_WITHIN_S)
            taken.append(number)
    assert taken == list(range(5))
    with pytest.raises(ContractError) as caught:
        await take_one_and_no_more()
    assert caught.value.reason == Reason.QUEUE_FULL
    task = asyncio.current_task()
    assert task
    assert task.cancelling() == 0


async def take_one_and_no_more() -> None:
    async with aclosing(taken_in_time(numbers(5), TAKEN_WITHIN_S, too_slow)) as messages:
        async for _ in messages:
            await asyncio.sleep(1.1 * TAKEN_WITHIN_S)
