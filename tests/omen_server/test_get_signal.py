"""GetSignal: by id, the first append, and what is known of its delivery."""

import asyncio
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import grpc
import pytest

from contract.errors import Reason
from contract.identity import identity_of_event
from omen.v1 import signal_service_pb2 as pb
from omen.v1.signal_event_pb2 import SignalEvent
from omen_server.reading import stored_signals
from tests.ledger.faults import flip_byte
from tests.omen_server.running import DEADLINE_S, Omen, closed_port, event, omen, refusal, riskcast
from tests.omen_server.scripted_riskcast import hanging, peer_of


async def got(server: Omen, signal_id: str) -> pb.GetSignalResponse:
    response: pb.GetSignalResponse = await server.signals.GetSignal(pb.GetSignalRequest(signal_id=signal_id))
    return response


async def test_the_first_append_of_an_id_is_answered_with_its_bytes_and_position(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()) as server:
        await server.to_ledger(7)
        first = await server.emit(event(1, title="first"), wait_for=pb.WAIT_FOR_LEDGER)
        await server.emit(event(1, title="second"), wait_for=pb.WAIT_FOR_LEDGER)
        answer = await got(server, first.signal_id)
        record = (await server.records())[1]
    assert answer.event.signal.title == "first"
    assert answer.stored_event == record.event
    assert answer.event == SignalEvent.FromString(record.event)
    assert answer.position == first.position


async def test_an_id_is_not_found_under_more_or_fewer_digits_than_it_was_stored_with(tmp_path: Path) -> None:
    wide = event(1)
    wide.signal_id = identity_of_event(wide).signal_id_of(32)
    async with omen(tmp_path, closed_port()) as server:
        await server.emit(wide, wait_for=pb.WAIT_FOR_LEDGER)
        assert (await got(server, wide.signal_id)).event.signal_id == wide.signal_id
        request = pb.GetSignalRequest(signal_id=identity_of_event(wide).signal_id)
        error = await refusal(server.signals.GetSignal(request))
    assert error.reason == Reason.SIGNAL_NOT_FOUND


async def test_an_id_in_the_text_of_another_event_is_not_that_event(tmp_path: Path) -> None:
    absent = identity_of_event(event(2)).signal_id
    async with omen(tmp_path, closed_port()) as server:
        await server.emit(event(1, title=f"see {absent}"), wait_for=pb.WAIT_FOR_LEDGER)
        error = await refusal(server.signals.GetSignal(pb.GetSignalRequest(signal_id=absent)))
    assert error.reason == Reason.SIGNAL_NOT_FOUND


@pytest.mark.parametrize("signal_id", ["", "OMEN-", "OMEN-abcdefabcdef", "OMEN-" + "A" * 11, "OMEN-" + "A" * 65])
async def test_what_is_no_id_is_refused_by_its_field(tmp_path: Path, signal_id: str) -> None:
    async with omen(tmp_path, closed_port()) as server:
        error = await refusal(server.signals.GetSignal(pb.GetSignalRequest(signal_id=signal_id)))
    assert (error.reason, error.violations[0].field) == (Reason.INVALID_SIGNAL, "signal_id")


async def test_the_delivery_status_is_settled_pending_or_not_known(tmp_path: Path) -> None:
    async with omen(tmp_path / "ledger", closed_port()) as server:
        [emission] = await server.to_ledger(1)
        assert (await got(server, emission.signal_id)).delivery_status == pb.DELIVERY_STATUS_UNSPECIFIED
    async with peer_of(hanging) as peer, omen(tmp_path / "ledger", peer.port) as server:
        await peer.until(lambda peer: len(peer.records) == 1)
        assert (await got(server, emission.signal_id)).delivery_status == pb.DELIVERY_STATUS_PENDING
    async with riskcast(tmp_path / "db") as store, omen(tmp_path / "ledger", store.port) as server:
        await server.until_drained()
        assert (await got(server, emission.signal_id)).delivery_status == pb.DELIVERY_STATUS_SETTLED


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Somebody else writes index.db, and does not end."""
    with closing(sqlite3.connect(directory / "index.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


async def test_what_an_index_that_is_behind_may_not_know_is_never_called_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_signals, "INDEX_WAIT_S", 0.3)
    async with omen(tmp_path, closed_port()) as server:
        [indexed] = await server.to_ledger(1)
        await got(server, indexed.signal_id)
        with locked(tmp_path):
            [emission] = await server.to_ledger(2)
            began = time.monotonic()
            error = await refusal(got(server, emission.signal_id))
            assert 0.2 < time.monotonic() - began < DEADLINE_S / 2
            assert (await got(server, indexed.signal_id)).event.signal_id == indexed.signal_id
        async with asyncio.timeout(10):
            while not await stored(server, emission.signal_id):
                pass
    assert error.reason == Reason.INDEX_BEHIND
    assert error.retry_delay_s


async def stored(server: Omen, signal_id: str) -> bool:
    """Whether it is found; an index that is behind says neither."""
    try:
        return bool(await got(server, signal_id))
    except grpc.aio.AioRpcError as error:
        if error.code() != grpc.StatusCode.UNAVAILABLE:
            raise
        return False


async def test_what_was_acknowledged_before_the_call_is_found_however_fast_the_call_comes(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()) as server:
        for number in range(100):
            [emission] = await server.to_ledger(number)
            assert (await got(server, emission.signal_id)).position == emission.position


def segment_of(directory: Path) -> Path:
    [segment] = directory.glob("*/segment-*.log")
    return segment


def without_index(directory: Path) -> None:
    for file in directory.glob("index.db*"):
        file.unlink()


async def damaged(directory: Path, *, is_indexed: bool) -> tuple[pb.Emission, pb.Emission]:
    """A ledger of two signals, the first of which can no longer be read."""
    async with omen(directory, closed_port()) as server:
        first, second = await server.to_ledger(1, 2)
        await got(server, second.signal_id)
    data = segment_of(directory).read_bytes()
    flip_byte(segment_of(directory), data.index(first.signal_id.encode()))
    if not is_indexed:
        without_index(directory)
    return first, second


async def test_a_record_that_is_indexed_and_cannot_be_read_is_lost_data_not_an_unknown_id(tmp_path: Path) -> None:
    first, second = await damaged(tmp_path, is_indexed=True)
    async with omen(tmp_path, closed_port()) as server:
        error = await refusal(got(server, first.signal_id))
        assert (await got(server, second.signal_id)).position == second.position
    assert error.reason == Reason.LEDGER_DAMAGED
    assert error.metadata == {
        "partition": first.position.partition,
        "sequences": str(first.position.sequence),
    }


async def test_not_found_says_how_many_records_it_could_be_among(tmp_path: Path) -> None:
    first, second = await damaged(tmp_path, is_indexed=False)
    for _ in ("an index made anew", "the same after a restart"):
        async with omen(tmp_path, closed_port()) as server:
            error = await refusal(got(server, first.signal_id))
            assert (await got(server, second.signal_id)).position == second.position
        assert error.reason == Reason.SIGNAL_NOT_FOUND
        assert error.metadata == {"damaged_record_count": "1"}


async def test_an_index_that_names_another_record_is_not_believed_but_made_anew(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()) as server:
        first, second = await server.to_ledger(1, 2)
        await got(server, second.signal_id)
        with closing(sqlite3.connect(tmp_path / "index.db")) as other:
            other.execute("UPDATE signals SET sequence = ? WHERE signal_id = ?", (1 << 32 | 2, first.signal_id))
            other.commit()
        error = await refusal(got(server, first.signal_id))
        assert (await got(server, first.signal_id)).position == first.position
    assert error.reason == Reason.INDEX_BEHIND
