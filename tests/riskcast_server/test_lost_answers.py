"""RiskCast's answers that never arrive, and requests that arrive after their own repeat: stored once, and the answer
never changes. Through real sockets, by a proxy between the client and the server."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest

import serving
from contract.errors import ErrorDetails
from riskcast.v1.ingest_service_pb2 import (
    RECORD_OUTCOME_STORED,
    IngestBatch,
    IngestRequest,
    IngestResponse,
    IngestStreamRequest,
)
from riskcast_server.settlement import Entry, Kept, Outcome
from riskcast_server.store import Store, open_store
from tests.faults.proxy import Link, Proxy, proxy
from tests.riskcast_server.events import event, records
from tests.riskcast_server.running import Client, refused, served, url

SIGNALS = 1000
SOAK_SIGNALS = 10_000
SEED = 4
AT_ONCE_MAX = 16  # so that one message of a stream is one frame, which the proxy can recognise
DEADLINE_S = 20.0

Told = tuple[str, int]  # ack_id, ingested_at in microseconds


class Watched:
    """A store that tells when records are settled, and what it said of each signal."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._changed = asyncio.Condition()
        self._settled = 0
        self.said: dict[str, set[Told]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def settle(self, entries: Sequence[Entry], ingested_at: int) -> list[Outcome]:
        outcomes = await self._store.settle(entries, ingested_at)
        for outcome in outcomes:
            assert isinstance(outcome, Kept)
            signal = outcome.row.signal
            self.said.setdefault(signal.signal_id, set()).add((signal.ack_id, outcome.row.ingested_at))
        async with self._changed:
            self._settled += len(entries)
            self._changed.notify_all()
        return outcomes

    @asynccontextmanager
    async def settling(self, count: int) -> AsyncIterator[None]:
        """Left when so many more records are settled than on entering."""
        goal = self._settled + count
        yield
        async with asyncio.timeout(DEADLINE_S), self._changed:
            await self._changed.wait_for(lambda: self._settled >= goal)


@dataclass(frozen=True)
class Scene:
    """A RiskCast, a client that reaches it, and a proxy to it."""

    store: Watched
    client: Client
    proxy: Proxy

    @asynccontextmanager
    async def through_the_proxy(self) -> AsyncIterator[tuple[Client, Link]]:
        """Another client, and its connection."""
        async with serving.channel(f"127.0.0.1:{self.proxy.port}") as channel:
            await channel.channel_ready()
            yield Client(channel), self.proxy.newest

    def said_of(self, number: int) -> Told:
        [told] = self.store.said[event(number).signal_id]
        return told


@asynccontextmanager
async def scene(database_url: str) -> AsyncIterator[Scene]:
    async with open_store(database_url) as store:
        watched = Watched(store)
        async with served(watched) as client, proxy(client.target) as between:
            yield Scene(watched, client, between)


def portions(count: int, seed: int) -> Iterator[list[int]]:
    """The numbers from 1 to `count`, one to AT_ONCE_MAX at a time."""
    chance, start = Random(seed), 1
    while start <= count:
        end = min(start + chance.randint(1, AT_ONCE_MAX), count + 1)
        yield list(range(start, end))
        start = end


async def ingest(client: Client, number: int) -> IngestResponse | ErrorDetails | grpc.StatusCode:
    """An answer, ALREADY_EXISTS with its details, or how the call broke."""
    try:
        return await client.ingest(event(number))
    except grpc.aio.AioRpcError as error:
        return refused(error) if error.code() is grpc.StatusCode.ALREADY_EXISTS else error.code()


async def ingest_each(client: Client, numbers: Sequence[int]) -> list[IngestResponse | ErrorDetails | grpc.StatusCode]:
    return await asyncio.gather(*(ingest(client, number) for number in numbers))


async def check_repeats(scene: Scene, numbers: Sequence[int]) -> None:
    """Each is told ALREADY_EXISTS, with what was said of it first."""
    for number, answer in zip(numbers, await ingest_each(scene.client, numbers), strict=True):
        assert isinstance(answer, ErrorDetails)
        assert answer.duplicate
        assert (answer.duplicate.ack_id, answer.duplicate.ingested_at.ToMicroseconds()) == scene.said_of(number)


async def check_stored(scene: Scene, numbers: Sequence[int]) -> None:
    """Each is told that it is stored at its own place, with the ack_id of before."""
    results = await scene.client.deliver(records(numbers))
    assert [each.outcome for each in results] == [RECORD_OUTCOME_STORED] * len(numbers)
    assert [each.ack_id for each in results] == [scene.said_of(number)[0] for number in numbers]


async def check_rows(scene: Scene, count: int) -> None:
    """One row each, as it was said from the beginning."""
    assert await scene.client.count() == count == len(scene.store.said)
    for signal_id, [told] in scene.store.said.items():
        row = await scene.store.maybe_signal(signal_id)
        assert row
        assert (row.signal.ack_id, row.ingested_at) == told


async def lose_answers_of_ingest(scene: Scene, numbers: Sequence[int]) -> None:
    async with scene.through_the_proxy() as (client, link):
        link.lose_answers()
        async with scene.store.settling(len(numbers)):
            calls = asyncio.create_task(ingest_each(client, numbers))
        link.cut()
        assert set(await calls) == {grpc.StatusCode.UNAVAILABLE}
    await check_repeats(scene, numbers)


async def lose_answers_of_a_stream(scene: Scene, numbers: Sequence[int]) -> None:
    async with scene.through_the_proxy() as (client, link), client.stream() as stream:
        link.lose_answers()
        async with scene.store.settling(len(numbers)):
            await stream.send(records(numbers))
        link.cut()
        with pytest.raises(grpc.aio.AioRpcError):
            await stream.results()
    await check_stored(scene, numbers)


async def overtake_ingest(scene: Scene, numbers: Sequence[int]) -> None:
    async with scene.through_the_proxy() as (client, link):
        link.keep_requests()
        calls = asyncio.create_task(ingest_each(client, numbers))
        await link.until_kept([IngestRequest(event=event(number)).SerializeToString() for number in numbers])
        link.hang_up()
        assert set(await calls) == {grpc.StatusCode.UNAVAILABLE}
    for number, answer in zip(numbers, await ingest_each(scene.client, numbers), strict=True):
        assert isinstance(answer, IngestResponse)
        assert (answer.ack_id, answer.ingested_at.ToMicroseconds()) == scene.said_of(number)
    async with scene.store.settling(len(numbers)):
        await link.deliver()
    await check_repeats(scene, numbers)


async def overtake_a_stream(scene: Scene, numbers: Sequence[int]) -> None:
    batch = IngestStreamRequest(batch=IngestBatch(records=records(numbers)))
    async with scene.through_the_proxy() as (client, link), client.stream() as stream:
        link.keep_requests()
        await stream.send(records(numbers))
        await link.until_kept([batch.SerializeToString()])
        link.hang_up()
        with pytest.raises(grpc.aio.AioRpcError):
            await stream.results()
    await check_stored(scene, numbers)
    async with scene.store.settling(len(numbers)):
        await link.deliver()
    await check_stored(scene, numbers)


Fault = Callable[[Scene, Sequence[int]], Coroutine[Any, Any, None]]

FAULTS = pytest.mark.parametrize(
    "fault",
    [lose_answers_of_ingest, lose_answers_of_a_stream, overtake_ingest, overtake_a_stream],
    ids=lambda fault: fault.__name__,
)


@FAULTS
def test_whatever_is_lost_or_overtaken_is_stored_once_and_its_answer_never_changes(
    tmp_path: Path, fault: Fault
) -> None:
    asyncio.run(suffered(url(tmp_path), fault, SIGNALS, SEED))


@pytest.mark.soak
@FAULTS
def test_ten_thousand_lost_or_overtaken_are_stored_once_each(tmp_path: Path, fault: Fault, soak_seed: int) -> None:
    asyncio.run(suffered(url(tmp_path), fault, SOAK_SIGNALS, soak_seed))


async def suffered(database_url: str, fault: Fault, signals: int, seed: int) -> None:
    """The fault hits each of so many signals."""
    async with scene(database_url) as acted:
        for numbers in portions(signals, seed):
            await fault(acted, numbers)
        await check_rows(acted, signals)
