"""kill -9 of OMEN under load: whoever watches, and goes on by his cursor, is told each record once."""

import asyncio
from dataclasses import replace
from pathlib import Path
from random import Random

import grpc
import pytest

import serving
from omen.v1 import signal_service_pb2 as pb
from omen.v1.ledger_service_pb2 import ListPartitionsRequest
from omen.v1.ledger_service_pb2_grpc import LedgerServiceStub
from omen.v1.signal_service_pb2_grpc import SignalServiceStub
from tests.faults.history import History, Stream, flaws
from tests.faults.load import DEADLINE_S, history_of, under_load
from tests.system.processes import pair

KILLS = 3
SOAK_KILLS = 100
SEED = 11
ACKNOWLEDGED_BETWEEN = 40


class Watcher:
    """One stream over all its calls: from its first message on it would hear of every record."""

    def __init__(self) -> None:
        self.began: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.told: list[tuple[str, int]] = []
        self.cuts = 0
        self._cursor = ""
        self._changed = asyncio.Condition()

    async def run(self, target: str) -> None:
        async with serving.channel(target) as channel:
            stub = SignalServiceStub(channel)
            while True:
                request = pb.WatchSignalsRequest(cursor=self._cursor)
                try:
                    async for message in stub.WatchSignals(request, wait_for_ready=True):
                        await self._hear(message)
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise
                    self.cuts += 1

    async def _hear(self, message: pb.WatchSignalsResponse) -> None:
        self._cursor = message.cursor
        if not self.began.done():
            self.began.set_result(None)
        if message.HasField("record"):
            at = message.record.position
            async with self._changed:
                self.told.append((at.partition, at.sequence))
                self._changed.notify_all()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(DEADLINE_S), self._changed:
            await self._changed.wait_for(lambda: len(self.told) >= count)


async def records_held(target: str) -> int:
    """As the server counts them: a reader of its files is a batch behind."""
    async with serving.channel(target) as channel:
        page = await LedgerServiceStub(channel).ListPartitions(ListPartitionsRequest(), timeout=DEADLINE_S)
        return sum(each.record_count for each in page.partitions)


def with_streams(history: History, watcher: Watcher) -> History:
    """By partition: over several the order is that in which records became durable."""
    held = [(record.partition, record.sequence) for record in history.ledger]
    names = {name for name, _ in (*held, *watcher.told)}
    streams = [
        Stream(name, sum(each[0] == name for each in held), [each for each in watcher.told if each[0] == name])
        for name in names
    ]
    return replace(history, streams=streams)


async def watched_under_load(directory: Path, kills: int, seed: int) -> None:
    chance = Random(seed)
    async with pair(directory) as servers:
        target = f"127.0.0.1:{servers.omen.port}"
        watcher = Watcher()
        watching = asyncio.create_task(watcher.run(target))
        async with asyncio.timeout(DEADLINE_S):
            await watcher.began
        async with under_load(target) as load:
            for _ in range(kills):
                await watcher.until(len(watcher.told) + chance.randrange(1, ACKNOWLEDGED_BETWEEN))
                await servers.omen.kill()
                await servers.omen.start()
            await load.until(load.acknowledged + ACKNOWLEDGED_BETWEEN)
        await watcher.until(await records_held(target))
        watching.cancel()
        await asyncio.wait([watching])
        assert await servers.omen.stop() == 0
        history = with_streams(history_of(load.attempts, servers.ledger, servers.database), watcher)
    assert [flaw for flaw in flaws(history) if flaw.startswith("H5")] == [], f"seed {seed}"
    assert watcher.cuts >= kills
    assert len(watcher.told) == len(history.ledger) > kills


async def test_watched_over_kills_every_record_is_told_once_and_in_order(tmp_path: Path) -> None:
    await watched_under_load(tmp_path, KILLS, SEED)


@pytest.mark.soak
async def test_watched_over_very_many_kills(tmp_path: Path, soak_seed: int) -> None:
    await watched_under_load(tmp_path, SOAK_KILLS, soak_seed)
