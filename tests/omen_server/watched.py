"""A ledger that is followed by cursor, and what was told of it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from random import Random

import pytest

from contract.errors import ContractError
from ledger import LedgerSettings
from omen.v1 import signal_service_pb2 as pb
from omen_server.appends import Append, Request
from omen_server.journal import Journal, open_journal
from omen_server.outcome import Outcome
from omen_server.reading.watching import Watching
from tests.faults.history import History, Stream, h5
from tests.ledger.faults import DEADLINE_S, Clock

SETTINGS = LedgerSettings(free_bytes_min=0, segment_records_max=3)
DAY = timedelta(days=1)

Place = tuple[str, int]
Told = list[tuple[Place, str]]  # each with the cursor of its message


class House:
    """One ledger directory, opened as often as need be, at the time of a clock."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self.directory = directory
        self.clock = clock
        self._numbers = count()
        self.journal: Journal
        self.watching: Watching

    @asynccontextmanager
    async def opened(self) -> AsyncIterator["House"]:
        async with open_journal(self.directory, SETTINGS) as self.journal:
            self.watching = Watching(self.journal)
            yield self

    async def append(self, *moments: datetime) -> list[Place]:
        request = Request(len(moments), waits_for_riskcast=False)
        payloads = [b"record %d" % next(self._numbers) for _ in moments]
        together = enumerate(zip(payloads, moments, strict=True))
        self.journal.append([Append(payload, at, "", "", request, index) for index, (payload, at) in together])
        answers = await request.answered(None)
        positions = [answer.position for answer in answers if isinstance(answer, Outcome)]
        assert len(positions) == len(moments), answers
        return [(position.partition, position.sequence) for position in positions]

    async def prune(self, partition: str) -> None:
        steps = await self.journal.read(lambda ledger: ledger.prune(partition))
        await asyncio.to_thread(list, steps)

    async def held(self) -> list[Place]:
        """All that can be read, by partition."""
        reader = await self.journal.read(lambda ledger: ledger.reader())
        return [
            (info.name, record.position.sequence)
            for info in reader.partitions()
            for record in reader.records(info.name)
        ]

    async def start(self) -> str:
        """The cursor of now."""
        async with aclosing(self.watch("")) as messages:
            return (await anext(messages)).cursor

    def watch(self, cursor: str) -> AsyncGenerator[pb.WatchSignalsResponse, None]:
        messages = self.watching.watch(cursor)
        assert isinstance(messages, AsyncGenerator)
        return messages

    async def told(self, cursor: str, number: int) -> Told:
        """The first so many records from a cursor, each with the cursor behind it."""
        told: Told = []
        async with asyncio.timeout(DEADLINE_S), aclosing(self.watch(cursor)) as messages:
            while len(told) < number:
                message = await anext(messages)
                if message.HasField("record"):
                    told.append((place_of(message), message.cursor))
        return told

    async def read_on(self, cursor: str, told: Told) -> None:
        async with aclosing(self.watch(cursor)) as messages:
            async for message in messages:
                if message.HasField("record"):
                    told.append((place_of(message), message.cursor))

    def some_moments(self, chance: Random) -> list[datetime]:
        return [self.clock.moment - chance.choice([0, 0, 0, 1, 2]) * DAY for _ in range(chance.randrange(1, 6))]

    async def silent(self, *cursors: str) -> bool:
        """Whether nothing more is told from any of them on: a marker that is appended now comes first."""
        [marker] = await self.append(self.clock.moment)
        return [place for cursor in cursors for place, _ in await self.told(cursor, 1)] == [marker] * len(cursors)


def place_of(message: pb.WatchSignalsResponse) -> Place:
    assert message.HasField("record")
    return message.record.position.partition, message.record.position.sequence


def places(told: Told) -> list[Place]:
    return [place for place, _ in told]


def flaws(told: list[Place], held: list[Place]) -> list[str]:
    """By partition: over all of them the order is that in which they became durable."""
    names = {name for name, _ in (*told, *held)}
    of_each = {name: [place for place in told if place[0] == name] for name in names}
    streams = [Stream(name, sum(place[0] == name for place in held), of_each[name]) for name in names]
    return [*h5(History([], [], [], streams=streams))]


async def refusal_of(house: House, cursor: str) -> ContractError:
    with pytest.raises(ContractError) as caught:
        await house.told(cursor, 1)
    return caught.value
