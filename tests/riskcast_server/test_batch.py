"""What is told of the signals that come in: one line per message of a ledger, and the names on the line of a call."""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from contract.errors import ContractError, Reason
from contract.limits import BATCH_ITEMS_MAX, SIGNAL_ID_DIGITS_MAX
from omen.v1.signal_event_pb2 import SignalEvent
from riskcast.v1.signal_service_pb2 import CountSignalsRequest, GetSignalRequest
from riskcast_server.settlement import Entry, Outcome
from riskcast_server.store import open_store
from serving.telemetry.logs import LINE_CHARS_MAX, json_lines
from tests.riskcast_server.databases import Database
from tests.riskcast_server.events import LEDGER, event, record, with_long_id
from tests.riskcast_server.running import TIMEOUT_S, riskcast, served
from tests.riskcast_server.test_commit import Gated

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"

Lines = Sequence[Mapping[str, Any]]


@contextmanager
def told() -> Iterator[Lines]:
    """The lines of the block, as they are rendered."""
    with capture_logs(processors=[merge_contextvars]) as logs:
        yield logs


def named(lines: Lines, name: str) -> list[dict[str, Any]]:
    return [{**line} for line in lines if line["event"] == name]


def traced(number: int, traceparent: str = PARENT, *, title: str = "Will the strait be closed?") -> SignalEvent:
    made = event(number, title=title)
    made.traceparent = traceparent
    return made


def test_a_message_is_told_in_one_line_that_names_every_signal_and_what_became_of_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with riskcast(tmp_path) as client:
            await client.deliver([record(1, traced(1))])
            with told() as lines:
                await client.deliver(
                    [record(2, traced(2)), record(3, traced(1)), record(4, traced(4)), record(5, b"?")]
                )
            [line] = named(lines, "records_ingested")
        ids = [event(number) for number in (2, 1, 4)]
        assert line == {
            "event": "records_ingested",
            "log_level": "warning",  # one was rejected
            "ledger_id": LEDGER,
            "path": "delivery",
            "stored": 2,
            "duplicate": 1,
            "conflict": 0,
            "rejected": 1,
            "signal_ids": [each.signal_id for each in ids],
            "deterministic_trace_ids": [each.deterministic_trace_id for each in ids],
            "trace_ids": [TRACE],
            "not_stored": {event(1).signal_id: "duplicate"},
        }

    asyncio.run(scenario())


def test_a_message_whose_stream_is_cut_before_the_answer_is_told_all_the_same(sqlite_database: Database) -> None:
    async def scenario() -> None:
        async with open_store(sqlite_database.url) as store:
            gated = Gated(store)
            with told() as lines:
                async with served(gated) as client:
                    async with client.stream() as stream:
                        for index in (1, 2, 3):
                            await stream.send([record(index)])
                        await gated.committed.wait()
                    while "CANCELLED" not in {line["code"] for line in named(lines, "call")}:
                        await client.signals.CountSignals(CountSignalsRequest(), timeout=TIMEOUT_S)
                    gated.open.set()
                    while await client.count() < 3:
                        pass
        ingested = [name for line in named(lines, "records_ingested") for name in line["signal_ids"]]
        assert ingested == [event(index).signal_id for index in (1, 2, 3)]

    asyncio.run(scenario())


class Broken(Gated):
    """A store that cannot commit."""

    async def settle(self, entries: Sequence[Entry], ingested_at: int) -> list[Outcome]:
        raise ContractError(Reason.STORE_UNAVAILABLE, "the disk is gone", retry_delay_s=1)


def test_a_message_that_cannot_be_committed_is_told_with_the_reason(sqlite_database: Database) -> None:
    async def scenario() -> None:
        async with open_store(sqlite_database.url) as store, served(Broken(store)) as client:
            with told() as lines, pytest.raises(grpc.aio.AioRpcError):
                await client.deliver([record(1, traced(1))])
        [line] = named(lines, "records_not_ingested")
        assert (line["log_level"], line["reason"]) == ("warning", "STORE_UNAVAILABLE")
        assert (line["signal_ids"], line["trace_ids"]) == ([event(1).signal_id], [TRACE])

    asyncio.run(scenario())


def test_the_largest_message_is_one_line_that_is_not_cut(tmp_path: Path) -> None:
    numbers = range(1, BATCH_ITEMS_MAX + 1)
    events = [with_long_id(traced(each, f"00-{each:032x}-{each:016x}-01"), SIGNAL_ID_DIGITS_MAX) for each in numbers]

    async def scenario() -> None:
        async with riskcast(tmp_path) as client:
            await client.deliver([record(index, made) for index, made in enumerate(events, start=1)])
            with told() as lines:
                again = [record(BATCH_ITEMS_MAX + index, made) for index, made in enumerate(events, start=1)]
                await client.deliver(again)
        [line] = named(lines, "records_ingested")
        assert line["trace_ids"] == [f"{each:032x}" for each in numbers]
        assert len(line["not_stored"]) == len(line["signal_ids"]) == line["duplicate"] == BATCH_ITEMS_MAX
        names = {name: line[name] for name in ("signal_ids", "deterministic_trace_ids", "trace_ids", "not_stored")}
        rendered = json_lines()("riskcast_server.batch", "info", line)
        assert names.items() <= json.loads(rendered).items()
        assert len(rendered) > 0.7 * LINE_CHARS_MAX  # which is no larger than it must be

    asyncio.run(scenario())


def test_the_lines_of_ingest_and_get_signal_name_the_signal(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with riskcast(tmp_path) as client:
            with told() as lines:
                await client.ingest(traced(1))
                await client.signals.GetSignal(GetSignalRequest(signal_id=event(1).signal_id), timeout=TIMEOUT_S)
                with pytest.raises(grpc.aio.AioRpcError):
                    await client.signals.GetSignal(GetSignalRequest(signal_id=event(2).signal_id), timeout=TIMEOUT_S)
        ingested, got, missed = named(lines, "call")
        for line in (ingested, got):
            assert line["signal_id"] == event(1).signal_id
            assert line["deterministic_trace_id"] == event(1).deterministic_trace_id
        assert ingested["trace_id"] == TRACE
        assert (missed["signal_id"], missed["code"]) == (event(2).signal_id, "NOT_FOUND")

    asyncio.run(scenario())
