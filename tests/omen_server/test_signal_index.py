"""The index beside the event loop: prompt for whoever waits, and never in the way of an append."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest

from ledger import Advanced, IndexFields, IndexUnavailable, LedgerIndex, LedgerSettings, Position
from omen.v1 import signal_service_pb2 as pb
from omen_server.appends import Append, Request
from omen_server.journal import Journal, open_journal
from omen_server.outcome import Outcome
from omen_server.reading import signal_index
from omen_server.reading.signal_index import SignalIndex, open_signal_index
from tests.omen_server.running import DEADLINE_S, Omen, closed_port, omen
from tests.riskcast_server.events import event as complete_event

SETTINGS = LedgerSettings(free_bytes_min=0)


@asynccontextmanager
async def indexed(directory: Path) -> AsyncIterator[tuple[Journal, SignalIndex]]:
    async with open_journal(directory, SETTINGS) as journal, open_signal_index(directory, journal) as index:
        yield journal, index


def payload(number: int) -> bytes:
    return complete_event(number).SerializeToString()


async def append(journal: Journal, *numbers: int) -> list[Position]:
    return [await append_one(journal, payload(number)) for number in numbers]


async def append_one(journal: Journal, payload: bytes) -> Position:
    request = Request(1, waits_for_riskcast=False)
    journal.append([Append(payload, datetime.now(UTC), "", "", request)])
    [answer] = await request.answered(None)
    assert isinstance(answer, Outcome)
    return answer.position


def find(index: SignalIndex, number: int) -> Position | None:
    return index.ledger_index.find(complete_event(number).signal_id)


def maybe_find(index: SignalIndex, number: int) -> Position | None:
    """None too as long as the file is not open."""
    try:
        return find(index, number)
    except IndexUnavailable:
        return None


def files_of_the_index(directory: Path) -> set[str]:
    return {path.name for path in directory.glob("index.db*")}


async def found(server: Omen, emission: pb.Emission) -> None:
    """Asked as a client does: again as long as the index is behind."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                request = pb.GetSignalRequest(signal_id=emission.signal_id)
                answer = await server.signals.GetSignal(request, timeout=DEADLINE_S)
            except grpc.aio.AioRpcError as error:
                if "INDEX_BEHIND" not in str(error.trailing_metadata()):
                    raise
            else:
                assert answer.position == emission.position
                return


async def test_whoever_waits_for_it_is_not_kept_waiting_for_its_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal_index, "REST_S", 3600.0)
    async with indexed(tmp_path) as (journal, index):
        for number in range(3):
            [position] = await append(journal, number)
            assert await index.caught_up(5)
            assert find(index, number) == position


async def test_it_follows_by_itself(tmp_path: Path) -> None:
    async with indexed(tmp_path) as (journal, index):
        [position] = await append(journal, 1)
        async with asyncio.timeout(DEADLINE_S):
            while await asyncio.to_thread(maybe_find, index, 1) != position:
                pass


async def test_it_does_not_rest_while_it_is_a_whole_pass_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal_index, "REST_S", 3600.0)
    monkeypatch.setattr(signal_index, "PASS_RECORDS_MAX", 1)
    passed, may_go_on = threading.Event(), threading.Event()
    advance = LedgerIndex.advance

    def held(self: LedgerIndex, records_max: int) -> Advanced:
        advanced = advance(self, records_max)
        if advanced.record_count:
            passed.set()
            may_go_on.wait(DEADLINE_S)
        return advanced

    monkeypatch.setattr(LedgerIndex, "advance", held)
    async with indexed(tmp_path) as (journal, index):
        await append(journal, 0)
        caught_up = asyncio.create_task(index.caught_up(DEADLINE_S))  # whoever waits ends a rest
        assert await asyncio.to_thread(passed.wait, DEADLINE_S)
        [position] = await append(journal, 1)  # news, after which it would rest, had that not been a whole pass
        may_go_on.set()
        assert await caught_up
        async with asyncio.timeout(DEADLINE_S):
            while await asyncio.to_thread(maybe_find, index, 1) != position:
                pass


@pytest.mark.parametrize(("rests_s", "many"), [((0.05, 0.0), 10_000), ((0.0, 0.05), 1)], ids=["few", "many"])
async def test_while_records_come_in_it_rests_between_two_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rests_s: tuple[float, float], many: int
) -> None:
    monkeypatch.setattr(signal_index, "REST_S", rests_s[0])
    monkeypatch.setattr(signal_index, "REST_AFTER_MANY_S", rests_s[1])
    monkeypatch.setattr(signal_index, "MANY", many)
    began: list[float] = []
    advance = LedgerIndex.advance

    def timed(self: LedgerIndex, records_max: int) -> Advanced:
        began.append(time.monotonic())
        return advance(self, records_max)

    monkeypatch.setattr(LedgerIndex, "advance", timed)
    async with indexed(tmp_path) as (journal, _):
        number, since = 0, time.monotonic()
        while number <= 10 or len(began) <= 10:
            await append(journal, number := number + 1)
        took_s = time.monotonic() - since
    assert len(began) <= took_s / max(rests_s) + 5


async def test_waiting_ends_in_time_where_the_index_cannot_go_on(tmp_path: Path) -> None:
    async with indexed(tmp_path) as (journal, index):
        await append(journal, 1)
        assert await index.caught_up(5)
        with closing(sqlite3.connect(tmp_path / "index.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await append(journal, 2)
            began = time.monotonic()
            assert not await index.caught_up(0.2)
            assert time.monotonic() - began < DEADLINE_S
        assert await index.caught_up(5)
        assert find(index, 2)


async def test_a_locked_index_is_told_once_and_when_it_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal_index, "RETRY_S", 0.01)
    async with indexed(tmp_path) as (journal, index):
        await append(journal, 1)
        assert await index.caught_up(5)
        with closing(sqlite3.connect(tmp_path / "index.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await append(journal, 2)
            assert not await index.caught_up(0.5)
        assert await index.caught_up(5)
    told = capsys.readouterr().out
    assert told.count("index_not_written") == 1
    assert told.count("index_written_again") == 1


async def test_it_stops_at_once_in_the_middle_of_its_work_and_leaves_a_closed_file(tmp_path: Path) -> None:
    async with indexed(tmp_path) as (journal, _):
        await asyncio.gather(*(append_one(journal, payload(number)) for number in range(5000)))
        began = time.monotonic()
    assert time.monotonic() - began < DEADLINE_S
    assert files_of_the_index(tmp_path) == {"index.db"}
    async with indexed(tmp_path) as (_, index):
        assert await index.caught_up(DEADLINE_S)
        assert find(index, 4999)


async def test_it_stops_at_once_while_it_waits_to_try_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal_index, "RETRY_S", 3600.0)
    (tmp_path / "index.db").mkdir(parents=True)
    async with indexed(tmp_path) as (journal, index):
        await append(journal, 1)
        assert not await index.caught_up(0.1)
        began = time.monotonic()
    assert time.monotonic() - began < DEADLINE_S


async def test_a_bug_in_its_thread_ends_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(payload: bytes) -> IndexFields | None:
        raise LookupError("a bug")

    monkeypatch.setattr(signal_index, "index_fields", broken)
    async with omen(tmp_path, closed_port()) as server:
        await server.to_ledger(1)
        await asyncio.wait([server.task], timeout=DEADLINE_S)
        assert server.task.done()
        assert isinstance(server.task.exception(), LookupError)


async def test_an_index_garbled_or_removed_under_a_running_omen_is_made_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "index.db"
    async with omen(tmp_path, closed_port()) as server:
        emissions = await server.to_ledger(*range(50))
        await found(server, emissions[-1])
        file.unlink()
        emissions += await server.to_ledger(50)
        await found(server, emissions[0])
        await found(server, emissions[-1])
        assert file.exists()
        garble(file)
        emissions += await server.to_ledger(*range(51, 60))
        for emission in emissions:
            await found(server, emission)
        file.write_bytes(b"")
        emissions += await server.to_ledger(60)
        for emission in emissions:
            await found(server, emission)
    assert "index_made_anew" in capsys.readouterr().out


def garble(file: Path) -> None:
    """With its log, so that nothing of it is left."""
    for path in (file, file.with_name("index.db-wal")):
        path.write_bytes(b"\xa5" * path.stat().st_size)


@pytest.mark.parametrize("left", [b"", b"garbage" * 1000, None])
async def test_an_index_garbled_or_removed_while_omen_was_down_is_made_anew(tmp_path: Path, left: bytes | None) -> None:
    async with omen(tmp_path, closed_port()) as server:
        [emission] = await server.to_ledger(1)
        await found(server, emission)
    (tmp_path / "index.db").unlink()
    if left is not None:
        (tmp_path / "index.db").write_bytes(left)
    async with omen(tmp_path, closed_port()) as server:
        await found(server, emission)


async def test_no_append_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_go_on = threading.Event()
    advance = LedgerIndex.advance

    def held(self: LedgerIndex, records_max: int) -> Advanced:
        assert may_go_on.wait(DEADLINE_S)
        return advance(self, records_max)

    monkeypatch.setattr(LedgerIndex, "advance", held)
    async with indexed(tmp_path) as (journal, index):
        try:
            async with asyncio.timeout(DEADLINE_S / 2):
                positions = await asyncio.gather(*(append_one(journal, payload(number)) for number in range(1000)))
        finally:
            may_go_on.set()
        assert await index.caught_up(DEADLINE_S)
        assert [find(index, number) for number in range(1000)] == positions
