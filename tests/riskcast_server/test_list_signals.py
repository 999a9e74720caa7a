"""ListSignals: what the filters keep, in order, in pages."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import apsw
import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from contract.errors import Reason, timestamp
from contract.identity import fill_identity
from contract.limits import PAGE_BYTES_MAX
from contract.pages import READ_AT_ONCE, page_token
from omen.v1.ledger_record_pb2 import LedgerPosition
from omen.v1.signal_event_pb2 import SignalEvent
from omen.v1.signal_pb2 import SIGNAL_CATEGORY_ENERGY, SIGNAL_CATEGORY_GEOPOLITICAL, SIGNAL_CATEGORY_WEATHER
from riskcast.v1 import signal_service_pb2 as pb
from riskcast_server.store import SignalQuery, open_store
from riskcast_server.store.sqlite.store import selection
from riskcast_server.stored_signals import named
from tests.riskcast_server.events import DAY, LEDGER, NOON, OTHER_LEDGER, event, position, record, records
from tests.riskcast_server.running import Client, database, refused, riskcast, served, url

LATER = NOON + timedelta(seconds=1)


async def listed(client: Client, **request: Any) -> pb.ListSignalsResponse:
    response: pb.ListSignalsResponse = await client.signals.ListSignals(pb.ListSignalsRequest(**request), timeout=10)
    return response


async def pages(client: Client, **request: Any) -> AsyncIterator[pb.ListSignalsResponse]:
    token = ""
    while True:
        page = await listed(client, page_token=token, **request)
        yield page
        if not (token := page.next_page_token):
            return
        assert page.signals


async def every_id(client: Client, **request: Any) -> list[str]:
    return [one.event.signal_id async for page in pages(client, **request) for one in page.signals]


def ids(*numbers: int) -> list[str]:
    return sorted(event(number).signal_id for number in numbers)


@dataclass(frozen=True)
class Sent:
    """What a model needs to know of a signal; without a position it came from no ledger."""

    event: SignalEvent
    position: LedgerPosition | None

    def matches(self, request: pb.ListSignalsRequest) -> bool:
        at = self.position or LedgerPosition()
        emitted = self.event.emitted_at.ToNanoseconds()
        return (
            (not request.HasField("emitted_from") or request.emitted_from.ToNanoseconds() <= emitted)
            and (not request.HasField("emitted_before") or emitted < request.emitted_before.ToNanoseconds())
            and request.category in (0, self.event.signal.category)
            and request.source_event_id in ("", self.event.source_event_id)
            and request.ledger_id in ("", at.ledger_id)
            and request.partition in ("", at.partition)
        )


CATEGORIES = [SIGNAL_CATEGORY_GEOPOLITICAL, SIGNAL_CATEGORY_WEATHER, SIGNAL_CATEGORY_ENERGY]
MOMENTS = [NOON + timedelta(hours=hours) for hours in (-13, -12, 0, 11, 12, 13, 35, 36)]
PARTITIONS = [f"2026-01-{day}{late}" for day in (28, 29, 30, 31) for late in ("", "-late")]
QUESTIONS = [f"market:{number}" for number in range(6)]


def drawn(draw: random.Random, number: int) -> Sent:
    moment = draw.choice(MOMENTS)
    made = event(number)
    made.emitted_at.CopyFrom(timestamp(moment))
    made.signal.category = draw.choice(CATEGORIES)
    made.source_event_id = draw.choice(QUESTIONS)
    for derived in ("signal_id", "deterministic_trace_id"):
        made.ClearField(derived)
    fill_identity(made)
    at = position(number, partition=moment.date().isoformat() + draw.choice(["", "-late"]))
    at.ledger_id = draw.choice([LEDGER, LEDGER, OTHER_LEDGER])
    return Sent(made, draw.choice([at, at, at, None]))


def asked(draw: random.Random) -> dict[str, Any]:
    """Each filter is set in a third of the questions, and may keep nothing."""
    choices: dict[str, list[Any]] = {
        "emitted_from": [timestamp(moment) for moment in MOMENTS],
        "emitted_before": [timestamp(moment + timedelta(microseconds=1)) for moment in MOMENTS],
        "category": [*CATEGORIES, 4711],
        "source_event_id": [*QUESTIONS, "another"],
        "ledger_id": [LEDGER, OTHER_LEDGER, "00000000-0000-4000-8000-000000000000"],
        "partition": PARTITIONS,
    }
    request: dict[str, Any] = {name: draw.choice(values) for name, values in choices.items() if draw.random() < 1 / 3}
    if "emitted_from" in request and "emitted_before" in request:
        first, last = sorted(draw.sample(MOMENTS, 2))
        request |= {"emitted_from": timestamp(first), "emitted_before": timestamp(last)}
    return request


async def send(client: Client, sent: Sent, draw: random.Random) -> None:
    if sent.position is None or draw.random() < 0.2:
        await client.ingest(sent.event, sent.position)
        return
    async with client.stream(ledger_id=sent.position.ledger_id) as stream:
        await stream.send([record(1, sent.event, at=sent.position)])
        await stream.results()


@pytest.mark.parametrize("seed", range(2))
def test_whatever_is_asked_the_list_is_what_the_filters_keep_in_order_in_pages_of_any_size(
    tmp_path: Path, seed: int
) -> None:
    draw = random.Random(seed)

    async def scenario() -> None:
        async with riskcast(tmp_path) as client:
            every = [drawn(draw, number) for number in range(1, 151)]
            for sent in every:
                await send(client, sent, draw)
            every.sort(key=lambda sent: (sent.event.emitted_at.ToNanoseconds(), sent.event.signal_id))
            for _ in range(100):
                request = asked(draw)
                expected = [sent for sent in every if sent.matches(pb.ListSignalsRequest(**request))]
                size = draw.choice([1, 7, 50, READ_AT_ONCE, 149, 1000] if len(expected) < 20 else [7, 50, 1000])
                found = [page async for page in pages(client, **request, page_size=size)]
                signals = [signal for page in found for signal in page.signals]
                assert [signal.event for signal in signals] == [sent.event for sent in expected], request
                assert [signal.position if signal.HasField("position") else None for signal in signals] == [
                    sent.position for sent in expected
                ]
                assert [len(page.signals) for page in found[:-1]] == [size] * (len(found) - 1)

    asyncio.run(scenario())


def test_a_listed_signal_is_what_get_signal_answers(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with riskcast(tmp_path) as client:
            future = b"\xfa\x7f\x05later" + event(1).SerializeToString()  # field 2047, before all known ones
            await client.deliver([record(1, future)])
            got = await client.signals.GetSignal(pb.GetSignalRequest(signal_id=event(1).signal_id), timeout=5)
            page = await listed(client)
            assert list(page.signals) == [got.signal]
            assert page.signals[0].stored_event == future
            assert page.next_page_token == ""

    asyncio.run(scenario())


def test_the_last_page_is_known_to_be_the_last_whatever_the_size(tmp_path: Path) -> None:
    count = 2 * READ_AT_ONCE + 1

    async def scenario() -> None:
        async with riskcast(tmp_path) as client:
            await client.deliver(records(range(1, count + 1)))
            for size in (1, READ_AT_ONCE - 1, READ_AT_ONCE, READ_AT_ONCE + 1, count - 1, count, count + 1):
                found = [page async for page in pages(client, page_size=size)]
                assert [one.event.signal_id for page in found for one in page.signals] == ids(*range(1, count + 1))
                assert len(found) == -(-count // size)
            assert len((await listed(client)).signals) == 100

    asyncio.run(scenario())


def test_signals_stored_meanwhile_make_no_gap_and_no_repeat(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with riskcast(tmp_path) as client:
            first = ids(*range(1, 51))
            await client.deliver(records(range(1, 51)))
            found: list[str] = []
            number = 50
            async for page in pages(client, page_size=7):
                found += [one.event.signal_id for one in page.signals]
                number += 4
                await client.deliver(records(range(number - 3, number + 1)))
            assert found == sorted(set(found))
            assert set(first) <= set(found)
            assert await every_id(client) == ids(*range(1, number + 1))

    asyncio.run(scenario())


def test_a_page_ends_at_1_mib_and_the_next_goes_on(tmp_path: Path) -> None:
    def large(number: int) -> SignalEvent:
        made = event(number)
        made.signal.explanation = "x" * 19_000
        made.signal.description = "é" * 5000
        made.canonical_observation = bytes([number]) * 60_000
        for derived in ("input_event_hash", "signal_id", "deterministic_trace_id"):
            made.ClearField(derived)
        fill_identity(made)
        return made

    async def scenario() -> None:
        async with riskcast(tmp_path) as client:
            for number in range(1, 31, 10):
                await client.deliver([record(index, large(index)) for index in range(number, number + 10)])
            found = [page async for page in pages(client)]
            sizes = [page.ByteSize() for page in found]
            assert all(PAGE_BYTES_MAX - 200_000 < size < PAGE_BYTES_MAX + 1000 for size in sizes[:-1])
            assert [len(page.signals) for page in found] == [5] * 6
            assert len({one.event.signal_id for page in found for one in page.signals}) == 30

    asyncio.run(scenario())


def test_a_page_token_is_good_for_its_own_filters_alone(tmp_path: Path) -> None:
    everything: dict[str, Any] = {
        "emitted_from": timestamp(NOON),
        "emitted_before": timestamp(LATER),
        "category": SIGNAL_CATEGORY_GEOPOLITICAL,
        "source_event_id": "market:1",
        "ledger_id": LEDGER,
        "partition": DAY,
    }

    async def refused_token(client: Client, token: str, **request: Any) -> bool:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await listed(client, page_token=token, **request)
        return refused(caught.value).reason == Reason.INVALID_PAGE_TOKEN

    async def scenario() -> None:
        async with riskcast(tmp_path) as client:
            await client.deliver(records([1, 2]))
            token = (await listed(client, page_size=1)).next_page_token
            assert token
            assert len((await listed(client, page_size=5, page_token=token)).signals) == 1
            for name, value in everything.items():
                assert await refused_token(client, token, **{name: value})
            bound_to = named(SignalQuery())
            for forged in ("", "x", "99|", "-1|S", f"{10**19}|S", "1|\0", "1|\ud800"):
                assert await refused_token(client, page_token(bound_to, forged))
            # A token that claims an earlier place than the filters begin at does not get around them.
            forged = page_token(named(SignalQuery(emitted_from=LATER_US)), "0|A")
            assert not (await listed(client, emitted_from=timestamp(LATER), page_token=forged)).signals

    asyncio.run(scenario())


LATER_US = timestamp(LATER).ToMicroseconds()
TOO_EARLY, TOO_LATE = Timestamp(seconds=946_684_799), Timestamp(seconds=4_102_444_800)
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "from equals before": ({"emitted_from": timestamp(NOON), "emitted_before": timestamp(NOON)}, "emitted_before"),
    "from after before": ({"emitted_from": timestamp(LATER), "emitted_before": timestamp(NOON)}, "emitted_before"),
    "too early": ({"emitted_from": TOO_EARLY}, "emitted_from"),
    "too late": ({"emitted_before": TOO_LATE}, "emitted_before"),
    "impossible nanos": ({"emitted_from": Timestamp(seconds=1_700_000_000, nanos=-1)}, "emitted_from"),
    "a long question": ({"source_event_id": "x" * 129}, "source_event_id"),
    "a question that is not ASCII": ({"source_event_id": "é"}, "source_event_id"),
    "a ledger that is no UUID": ({"ledger_id": LEDGER.upper()}, "ledger_id"),
    "a partition that is no day": ({"partition": "2026-02-30"}, "partition"),
    "a partition of another form": ({"partition": "today"}, "partition"),
    "a large page": ({"page_size": 1001}, "page_size"),
    "a negative page": ({"page_size": -1}, "page_size"),
}
LAST_GOOD: dict[str, Any] = {
    "emitted_from": Timestamp(seconds=946_684_800),
    "emitted_before": Timestamp(seconds=4_102_444_799, nanos=999_999_999),
    "category": -(2**31),
    "source_event_id": "x" * 128,
    "ledger_id": LEDGER,
    "partition": "2028-02-29-late",
    "page_size": 1000,
}


def test_what_no_list_can_be_is_refused_by_its_field_and_the_last_that_can_is_answered(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with riskcast(tmp_path) as client:
            for name, (request, field) in BAD.items():
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await listed(client, **request)
                error = refused(caught.value)
                assert (error.reason, [one.field for one in error.violations]) == (Reason.INVALID_SIGNAL, [field]), name
            assert await listed(client, **LAST_GOOD) == pb.ListSignalsResponse()

    asyncio.run(scenario())


QUERIES = {
    "nothing": SignalQuery(),
    "time": SignalQuery(emitted_from=LATER_US, emitted_before=LATER_US + 1),
    "category": SignalQuery(category=4711),
    "question": SignalQuery(source_event_id="another"),
    "question and time": SignalQuery(source_event_id="market:1", emitted_before=LATER_US),
    "ledger": SignalQuery(ledger_id=OTHER_LEDGER),
    "partition": SignalQuery(partition=f"{DAY}-late"),
    "all": SignalQuery(LATER_US - 1, LATER_US, 4711, "market:1", OTHER_LEDGER, f"{DAY}-late"),
}


def test_a_list_is_read_in_order_and_without_the_rows_that_its_filters_leave_out(
    tmp_path: Path,
) -> None:
    async def fill() -> None:
        async with open_store(url(tmp_path)) as store, served(store) as client:
            large = [event(number, title="x" * 500) for number in range(1, 1025)]
            for made in large:
                made.signal.explanation = "x" * 4000
            for start in range(0, 1024, 128):
                part = range(start, start + 128)
                await client.deliver([record(index + 1, large[index]) for index in part])

    def pages_read(query: SignalQuery, after: tuple[int, str] | None) -> int:
        """Of the file, by a connection that has read nothing before."""
        sql, values = selection(query, after, 10)
        connection = apsw.Connection(str(database(tmp_path)), flags=apsw.SQLITE_OPEN_READONLY)
        first, *rest = [str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
        assert ("signals_by_question" if query.source_event_id else "signals_by_time") in first
        assert "USE TEMP B-TREE FOR ORDER BY" not in rest  # at most what one question has of one moment is sorted
        assert first.startswith("SEARCH") or not after
        list(connection.execute(sql, values))
        missed = connection.status(apsw.SQLITE_DBSTATUS_CACHE_MISS)[0]
        connection.close()
        return missed

    asyncio.run(fill())
    for name, query in QUERIES.items():
        for after in (None, (LATER_US - 1_000_000, "OMEN-8")):
            assert pages_read(query, after) < 100, (name, after)  # of more than 1024 that hold the rows
