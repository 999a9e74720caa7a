"""Delivery to a RiskCast that wants a key: it holds while the key is wrong, loses nothing, and goes on by itself."""

from pathlib import Path

import grpc
import pytest

import serving.server
from omen.v1.delivery_service_pb2 import (
    DELIVERY_PHASE_FOLLOWING,
    DELIVERY_PHASE_HELD,
    GetDeliveryStateResponse,
)
from omen_server.delivery import contact
from tests.omen_server.running import LEDGER_ONLY, Omen, event, omen, riskcast, seconds
from tests.serving.authority import write_keys


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of half a minute and a second."""
    monkeypatch.setattr(contact, "HELD_RETRY_S", 0.2)
    monkeypatch.setattr(serving.server, "KEYS_WATCHED_S", 0.05)


async def held(server: Omen) -> GetDeliveryStateResponse:
    return await server.until_state(lambda state: state.phase == DELIVERY_PHASE_HELD)


@pytest.mark.parametrize(
    ("key_id", "reason"), [("nobody", "BAD_CREDENTIALS"), ("reader", "SCOPE_MISSING")], ids=["wrong", "without scope"]
)
async def test_with_the_wrong_key_delivery_holds_and_with_the_right_one_in_its_file_it_goes_on(
    tmp_path: Path, key_id: str, reason: str
) -> None:
    keys, mine = tmp_path / "keys.json", tmp_path / "key"
    known = write_keys(keys, omen=["ingest"], reader=["signals.read"]) | {"nobody": "nobody.hunter2"}
    mine.write_text(known[key_id] + "\n", "utf-8")
    async with (
        riskcast(tmp_path / "db", api_keys_file=keys) as store,
        omen(tmp_path / "ledger", store.port, riskcast_api_key_file=mine) as server,
    ):
        emission = await server.emit(event(1), delivery_timeout=seconds(20))
        assert emission.status == LEDGER_ONLY
        state = await held(server)
        assert state.last_error.startswith(f"{reason}: ")
        assert known[key_id] not in str(state)
        emitted = [emission, *await server.to_ledger(2, 3)]
        assert store.ids() == []
        mine.write_text(known["omen"] + "\n", "utf-8")
        await server.until_drained()
        assert (await server.state()).phase == DELIVERY_PHASE_FOLLOWING
        assert sorted(store.ids()) == sorted(each.signal_id for each in emitted)


async def test_without_a_key_delivery_holds_and_the_next_start_with_one_delivers_everything(tmp_path: Path) -> None:
    keys, mine = tmp_path / "keys.json", tmp_path / "key"
    mine.write_text(write_keys(keys, omen=["ingest"])["omen"], "utf-8")
    async with riskcast(tmp_path / "db", api_keys_file=keys) as store:
        async with omen(tmp_path / "ledger", store.port) as server:
            emitted = await server.to_ledger(1, 2)
            assert "BAD_CREDENTIALS" in (await held(server)).last_error
        async with omen(tmp_path / "ledger", store.port, riskcast_api_key_file=mine) as server:
            await server.until_drained()
        assert sorted(store.ids()) == sorted(each.signal_id for each in emitted)


async def test_a_key_that_is_revoked_while_its_stream_is_open_holds_delivery_until_there_is_another(
    tmp_path: Path,
) -> None:
    keys, mine = tmp_path / "keys.json", tmp_path / "key"
    mine.write_text(write_keys(keys, omen=["ingest"])["omen"], "utf-8")
    async with (
        riskcast(tmp_path / "db", api_keys_file=keys) as store,
        omen(tmp_path / "ledger", store.port, riskcast_api_key_file=mine) as server,
    ):
        emitted = [await server.emit(event(1), delivery_timeout=seconds(20))]
        another = write_keys(keys, omen2=["ingest"])["omen2"]
        await held(server)
        emitted += await server.to_ledger(2)
        assert store.ids() == [emitted[0].signal_id]
        mine.write_text(another, "utf-8")
        await server.until_drained()
        assert sorted(store.ids()) == sorted(each.signal_id for each in emitted)


async def test_delivery_holds_also_when_grpc_has_lost_why_a_stream_was_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that meets a refusal on its way here may end as INTERNAL (grpc/grpc#36066)."""
    keys = tmp_path / "keys.json"
    write_keys(keys)
    lost = 0

    async def write(call: grpc.aio.StreamStreamCall[object, object], request: object) -> None:
        nonlocal lost
        if lost < 3:
            lost += 1
            raise grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, details="Internal error from Core")
        await real_write(call, request)

    real_write = grpc.aio.StreamStreamCall.write
    monkeypatch.setattr("grpc.aio._call.StreamStreamCall.write", write)
    async with riskcast(tmp_path / "db", api_keys_file=keys) as store, omen(tmp_path / "ledger", store.port) as server:
        emission = await server.emit(event(1), delivery_timeout=seconds(20))
        assert emission.status == LEDGER_ONLY
        assert (await held(server)).last_error.startswith("BAD_CREDENTIALS: ")
        assert lost == 3
