"""P7: records through RiskCast's door, against the database alone, given the same rows.

Ours: a RiskCast of its own process and one IngestStream over loopback; every record is parsed, checked against the
contract, and settled with its coverage. Theirs: this process alone, one executemany a batch, in one transaction, into
the same tables with the same indexes; what is there already is left as it is.
"""

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import serving
from bench.databases import Database, Technology, fill, technologies
from bench.events import Events
from bench.feed import Feed
from bench.processes import server
from bench.rounds import Figure, Measured, Scale, alternated, measure
from riskcast.v1 import ingest_service_pb2 as pb
from riskcast.v1.ingest_service_pb2_grpc import IngestServiceStub

BATCH_RECORDS = 256
RECORDS = 20 * BATCH_RECORDS  # a round
STORED_BEFORE = 100_000  # rows in both: what an empty table costs is nobody's daily life
FIRST_STORED_BEFORE = 1_000_000_000  # their numbers come nowhere near those that are measured
IN_FLIGHT = 4  # messages, as OMEN has
STREAM_TIMEOUT_S = 120.0

STORED, DUPLICATE = pb.RECORD_OUTCOME_STORED, pb.RECORD_OUTCOME_DUPLICATE


def figures(scale: Scale) -> list[Figure]:
    with technologies(scale.folder) as all_of_them:
        return [figure for technology in all_of_them for figure in _of_technology(scale, technology)]


def _of_technology(scale: Scale, technology: Technology) -> Iterator[Figure]:
    ours, theirs, events = technology("ingest"), technology("inserts"), Events(datetime.now(UTC))
    count = scale.of(STORED_BEFORE)
    stored_before = range(FIRST_STORED_BEFORE, FIRST_STORED_BEFORE + count)
    serving.run(fill([ours, theirs], Feed(events).rows(stored_before)))
    inserting = Inserting(theirs, Feed(events), itertools.count())
    leaving = Inserting(theirs, Feed(events), repeating())
    settings = (
        f"{RECORDS:,} records of about 800 bytes into {count:,} rows, {BATCH_RECORDS} a message, "
        f"{IN_FLIGHT} messages in flight, "
        f"2 processes, {ours.synced}; against 1 process, {BATCH_RECORDS} rows a transaction, the same sync"
    )
    with riskcast(scale.folder, ours) as target:
        feed = Feed(events)
        rates = measure(Streaming(target, feed, itertools.count(), STORED), scale.rounds, inserting)
        repeated, inserted, left = alternated(
            scale.rounds, Streaming(target, feed, repeating(), DUPLICATE), inserting, leaving
        )
    yield Figure(
        f"IngestStream, {ours.name}, distinct",
        "records/s",
        settings,
        rates,
        compared_with="executemany of the same rows",
        at_least=ours.ingest_share_min,
    )
    yield Figure(
        f"IngestStream, {ours.name}, all duplicates",
        "records/s",
        f"{settings}; each is settled at a position of its own, as the rows are",
        Measured(repeated, inserted),
        compared_with="executemany of as many new rows",
        at_least=ours.ingest_share_min,
    )
    yield Figure(
        f"IngestStream, {ours.name}, all duplicates",
        "records/s",
        f"{settings}; ours settles each at a position of its own, theirs finds the row, writes and syncs nothing",
        Measured(repeated, left),
        compared_with="executemany that leaves all as is",
    )


def repeating() -> Iterator[int]:
    """The same for every round: the first of those that were stored before."""
    return itertools.cycle(range(RECORDS))


@contextmanager
def riskcast(folder: Path, database: Database, **settings: str) -> Iterator[str]:
    """The target of a RiskCast that stores there."""
    port_file = folder / f"riskcast-{database.name}-{next(_starts)}"
    settings = {"RISKCAST_LISTEN": "127.0.0.1:0", "RISKCAST_DATABASE_URL": database.url, **settings}
    with server(port_file, "riskcast_server", **settings) as target:
        yield target


_starts = itertools.count(1)


class Streaming:
    """Records a second, from the first that is sent until the last is acknowledged."""

    def __init__(
        self, target: str, feed: Feed, numbers: Iterator[int], outcome: pb.RecordOutcome.ValueType, count: int = RECORDS
    ) -> None:
        """Every record must end with `outcome`: RuntimeError otherwise."""
        self._target = target
        self._feed = feed
        self._numbers = numbers
        self._outcome = outcome
        self._count = count

    def __call__(self) -> float:
        records = self._feed.records(itertools.islice(self._numbers, self._count))
        batches = [records[start : start + BATCH_RECORDS] for start in range(0, len(records), BATCH_RECORDS)]
        requests = [pb.IngestStreamRequest(batch=pb.IngestBatch(records=batch)) for batch in batches]
        return self._count / serving.run(self._streamed_s(requests))

    async def _streamed_s(self, requests: Sequence[pb.IngestStreamRequest]) -> float:
        async with serving.channel(self._target) as channel:
            call = IngestServiceStub(channel).IngestStream(timeout=STREAM_TIMEOUT_S)
            hello = pb.IngestHello(ledger_id=self._feed.ledger_id)
            await call.write(pb.IngestStreamRequest(hello=hello))
            await call.read()
            began = time.perf_counter()
            room = asyncio.Semaphore(IN_FLIGHT)
            async with asyncio.TaskGroup() as both_ways:
                both_ways.create_task(self._send(call, requests, room))
                both_ways.create_task(self._receive(call, len(requests), room))
            return time.perf_counter() - began

    async def _send(self, call: Any, requests: Sequence[pb.IngestStreamRequest], room: asyncio.Semaphore) -> None:
        for request in requests:
            await room.acquire()
            await call.write(request)

    async def _receive(self, call: Any, count: int, room: asyncio.Semaphore) -> None:
        for _ in range(count):
            response = await call.read()
            for result in response.batch.results:
                if result.outcome != self._outcome:
                    raise RuntimeError(f"a record ended as {result}")
            room.release()


class Inserting:
    """Rows a second."""

    def __init__(self, database: Database, feed: Feed, numbers: Iterator[int]) -> None:
        self._database = database
        self._feed = feed
        self._numbers = numbers

    def __call__(self) -> float:
        rows = list(self._feed.rows(itertools.islice(self._numbers, RECORDS)))
        return RECORDS / serving.run(self._inserted_s(rows))

    async def _inserted_s(self, rows: Sequence[Any]) -> float:
        async with self._database.connected() as connection:
            began = time.perf_counter()
            for start in range(0, len(rows), BATCH_RECORDS):
                await connection.insert(rows[start : start + BATCH_RECORDS])
            return time.perf_counter() - began
