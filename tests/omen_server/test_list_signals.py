"""ListSignals: what the filters keep, in order, in pages, and how far the index had come."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from contract.errors import Reason, timestamp
from contract.identity import fill_identity
from contract.limits import PAGE_BYTES_MAX
from contract.pages import page_token
from omen.v1 import signal_service_pb2 as pb
from omen.v1.signal_event_pb2 import SignalEvent
from omen.v1.signal_pb2 import SIGNAL_CATEGORY_GEOPOLITICAL, SIGNAL_CATEGORY_WEATHER, SignalCategory
from omen_server.reading import stored_signals
from tests.ledger.faults import flip_byte
from tests.omen_server.running import Omen, closed_port, event, omen, refusal

NOW = datetime.now(UTC).replace(microsecond=0)
LATER = NOW + timedelta(seconds=1)


async def listed(server: Omen, **request: Any) -> pb.ListSignalsResponse:
    response: pb.ListSignalsResponse = await server.signals.ListSignals(pb.ListSignalsRequest(**request), timeout=10)
    return response


async def pages(server: Omen, **request: Any) -> AsyncIterator[pb.ListSignalsResponse]:
    token = ""
    while True:
        page = await listed(server, page_token=token, **request)
        yield page
        if not (token := page.next_page_token):
            return


async def every_id(server: Omen, **request: Any) -> list[str]:
    return [one.signal_id async for page in pages(server, **request) for one in page.events]


async def emitted(
    server: Omen, number: int, moment: datetime = NOW, category: "SignalCategory.ValueType | None" = None, **fields: Any
) -> pb.Emission:
    made = event(number, emitted_at=timestamp(moment))
    if category is not None:
        made.signal.category = category
    for name, value in fields.items():
        setattr(made, name, value)
    return await server.emit(made, wait_for=pb.WAIT_FOR_LEDGER)


async def until_indexed(server: Omen, last: pb.Emission) -> None:
    """GetSignal waits for the index where a list tells how far it has come."""
    await server.signals.GetSignal(pb.GetSignalRequest(signal_id=last.signal_id), timeout=10)


async def test_signals_are_listed_by_emitted_at_and_then_by_id_as_they_stand_in_the_ledger(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()) as server:
        later = [await emitted(server, number, LATER) for number in (1, 2, 3)]
        early = [await emitted(server, number, NOW) for number in (4, 5, 6)]
        await until_indexed(server, early[-1])
        page = await listed(server)
        records = {record.position.sequence: record.event for record in await server.records()}
    expected = sorted(early, key=lambda one: one.signal_id) + sorted(later, key=lambda one: one.signal_id)
    assert list(page.events) == [SignalEvent.FromString(records[one.position.sequence]) for one in expected]
    assert page.next_page_token == ""
    assert page.indexed_through == early[-1].position
    assert list(page.unreadable) == []


async def test_an_empty_ledger_has_an_empty_list(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()) as server:
        assert await listed(server) == pb.ListSignalsResponse()


async def test_a_repeated_signal_is_listed_once_as_its_first_append(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()) as server:
        first = await server.emit(event(1, title="first"), wait_for=pb.WAIT_FOR_LEDGER)
        await server.emit(event(1, title="second", emitted_at=timestamp(LATER)), wait_for=pb.WAIT_FOR_LEDGER)
        await until_indexed(server, await emitted(server, 2, LATER))
        page = await listed(server)
    assert [one.signal.title for one in page.events if one.signal_id == first.signal_id] == ["first"]
    assert len(page.events) == 2


async def test_every_filter_that_is_set_must_hold(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()) as server:
        one = await emitted(server, 1, NOW, SIGNAL_CATEGORY_WEATHER)
        two = await emitted(server, 2, NOW, SIGNAL_CATEGORY_GEOPOLITICAL)
        three = await emitted(server, 3, LATER, SIGNAL_CATEGORY_WEATHER, source_event_id="market:1")
        await until_indexed(server, three)
        ids = {"1": one.signal_id, "2": two.signal_id, "3": three.signal_id}
        traces = [one.deterministic_trace_id, three.deterministic_trace_id, "0" * 16]
        expectations: list[tuple[dict[str, Any], str]] = [
            ({"emitted_from": timestamp(LATER)}, "3"),
            ({"emitted_before": timestamp(LATER)}, "12"),
            ({"emitted_from": timestamp(NOW), "emitted_before": timestamp(LATER)}, "12"),
            ({"emitted_from": timestamp(LATER + timedelta(microseconds=1))}, ""),
            ({"deterministic_trace_ids": traces}, "13"),
            ({"deterministic_trace_ids": ["0" * 16]}, ""),
            ({"category": SIGNAL_CATEGORY_WEATHER}, "13"),
            ({"category": 4711}, ""),
            ({"source_event_id": "market:1"}, "13"),
            (
                {"source_event_id": "market:1", "category": SIGNAL_CATEGORY_WEATHER, "emitted_from": timestamp(LATER)},
                "3",
            ),
            ({"deterministic_trace_ids": traces, "emitted_before": timestamp(LATER)}, "1"),
        ]
        for request, expected in expectations:
            assert set(await every_id(server, **request)) == {ids[name] for name in expected}, request


async def test_pages_of_any_size_give_each_signal_once_in_order(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()) as server:
        last = [await emitted(server, number, NOW + timedelta(seconds=number % 3)) for number in range(20)][-1]
        await until_indexed(server, last)
        whole = await every_id(server)
        assert len(whole) == 20
        for size in (1, 7, 19, 20, 21):
            found = [page async for page in pages(server, page_size=size)]
            assert [one.signal_id for page in found for one in page.events] == whole
            assert [len(page.events) for page in found[:-1]] == [size] * (len(found) - 1)
            assert found[-1].events


async def test_a_page_ends_at_1_mib_and_the_next_goes_on(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()) as server:
        for number in range(30):
            made = event(number)
            made.signal.explanation = f"{number} " + "x" * 19_000
            made.signal.description = "é" * 5000
            made.canonical_observation = bytes([number]) * 60_000
            made.ClearField("input_event_hash")
            fill_identity(made)
            last = await server.emit(made, wait_for=pb.WAIT_FOR_LEDGER)
        await until_indexed(server, last)
        found = [page async for page in pages(server)]
    sizes = [sum(one.ByteSize() for one in page.events) for page in found]
    assert len(sizes) == 3
    assert all(PAGE_BYTES_MAX - 100_000 < size <= PAGE_BYTES_MAX for size in sizes[:-1])
    assert len({one.signal_id for page in found for one in page.events}) == 30


async def test_a_page_token_is_good_for_its_own_filters_alone(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()) as server:
        await server.to_ledger(1)
        await until_indexed(server, (await server.to_ledger(2))[0])
        token = (await listed(server, page_size=1)).next_page_token
        assert token
        assert len((await listed(server, page_size=5, page_token=token)).events) == 1
        for request in ({"category": 1}, {"source_event_id": "market:1"}, {"emitted_from": timestamp(NOW)}):
            error = await refusal(listed(server, page_token=token, **request))
            assert error.reason == Reason.INVALID_PAGE_TOKEN
        bound_to = stored_signals.named(stored_signals.index_query(pb.ListSignalsRequest()))
        for forged in ("", "x", "99|", "-1|S", f"{10**19}|S"):
            error = await refusal(listed(server, page_token=page_token(bound_to, forged)))
            assert error.reason == Reason.INVALID_PAGE_TOKEN


TOO_EARLY, TOO_LATE = Timestamp(seconds=946_684_799), Timestamp(seconds=4_102_444_800)
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "from equals before": ({"emitted_from": timestamp(NOW), "emitted_before": timestamp(NOW)}, "emitted_before"),
    "from after before": ({"emitted_from": timestamp(LATER), "emitted_before": timestamp(NOW)}, "emitted_before"),
    "too early": ({"emitted_from": TOO_EARLY}, "emitted_from"),
    "too late": ({"emitted_before": TOO_LATE}, "emitted_before"),
    "impossible nanos": ({"emitted_from": Timestamp(seconds=1_700_000_000, nanos=-1)}, "emitted_from"),
    "257 trace ids": ({"deterministic_trace_ids": ["0" * 16] * 257}, "deterministic_trace_ids"),
    "no trace id": ({"deterministic_trace_ids": ["0" * 16, "A" * 16]}, "deterministic_trace_ids[1]"),
    "an empty trace id": ({"deterministic_trace_ids": [""]}, "deterministic_trace_ids[0]"),
    "a long question": ({"source_event_id": "x" * 129}, "source_event_id"),
    "a question that is not ASCII": ({"source_event_id": "é"}, "source_event_id"),
    "a large page": ({"page_size": 1001}, "page_size"),
    "a negative page": ({"page_size": -1}, "page_size"),
}


async def test_what_no_list_can_be_is_refused_by_its_field(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()) as server:
        for name, (request, field) in BAD.items():
            error = await refusal(listed(server, **request))
            assert (error.reason, [one.field for one in error.violations]) == (Reason.INVALID_SIGNAL, [field]), name
        most = {"deterministic_trace_ids": ["0" * 16] * 256, "source_event_id": "x" * 128, "page_size": 1000}
        assert await every_id(server, **most) == []


async def test_what_cannot_be_read_is_named_and_the_list_goes_on(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()) as server:
        emissions = await server.to_ledger(*range(10))
        await until_indexed(server, emissions[-1])
        whole = await every_id(server)
    segment = tmp_path / emissions[0].position.partition / "segment-00000001.log"
    hit = {emissions[3].signal_id: emissions[3].position, emissions[7].signal_id: emissions[7].position}
    data = segment.read_bytes()
    for signal_id in hit:
        flip_byte(segment, data.index(signal_id.encode()))
    async with omen(tmp_path, closed_port()) as server:
        found = [page async for page in pages(server, page_size=3)]
    assert [one.signal_id for page in found for one in page.events] == [one for one in whole if one not in hit]
    assert [position for page in found for position in page.unreadable] == [hit[one] for one in whole if one in hit]
    assert [len(page.events) + len(page.unreadable) for page in found] == [3, 3, 3, 1]


async def test_a_list_says_how_far_the_index_has_come_when_it_is_behind(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()) as server:
        [indexed] = await server.to_ledger(1)
        await until_indexed(server, indexed)
        with closing(sqlite3.connect(tmp_path / "index.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await server.to_ledger(2)
            page = await listed(server)
    assert [one.signal_id for one in page.events] == [indexed.signal_id]
    assert page.indexed_through == indexed.position


async def test_an_index_that_cannot_be_opened_is_said_so_and_emits_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_signals, "INDEX_WAIT_S", 0.2)
    (tmp_path / "index.db").mkdir()
    async with omen(tmp_path, closed_port()) as server:
        [emission] = await server.to_ledger(1)
        error = await refusal(listed(server))
        (tmp_path / "index.db").rmdir()
        monkeypatch.undo()
        async with asyncio.timeout(10):
            await until_indexed(server, emission)
        assert await every_id(server) == [emission.signal_id]
    assert error.reason == Reason.INDEX_BEHIND
    assert error.retry_delay_s
