"""GetSignal: by id, the first append, and what is known of its delivery."""

from pathlib import Path

import pytest

from contract.errors import Reason
from contract.identity import identity_of_event
from omen.v1 import signal_service_pb2 as pb
from omen.v1.signal_event_pb2 import SignalEvent
from tests.omen_server.running import Omen, closed_port, event, omen, refusal, riskcast
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
