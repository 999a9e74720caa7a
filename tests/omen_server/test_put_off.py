"""What follows from a refusal and cannot be kept now is put off: nothing else waits for it."""

from collections.abc import Collection
from pathlib import Path

import pytest

from contract.identity import SIGNAL_ID
from omen.v1.delivery_service_pb2 import BREAKER_STATE_CLOSED, ListDeadLettersRequest
from omen.v1.ledger_record_pb2 import LedgerRecord
from omen.v1.signal_service_pb2 import ItemError
from omen_server.delivery import follow, settling
from omen_server.delivery_file import DELIVERY_FILE
from riskcast.v1 import ingest_service_pb2 as ingest_pb
from tests.omen_server.running import DEADLINE_S, DELIVERED, LEDGER_ONLY, Omen, event, omen, seconds
from tests.omen_server.scripted_riskcast import Judge, answering, peer_of, stored


def index_of(record: LedgerRecord) -> int:
    return record.position.sequence & 0xFFFF_FFFF


def refusing(indexes: Collection[int]) -> Judge:
    """Rejects these, and stores all others."""

    def judge(record: LedgerRecord) -> ingest_pb.RecordResult:
        if index_of(record) not in indexes:
            return stored(record)
        error = ItemError(reason="INVALID_SIGNAL", message="no")
        return ingest_pb.RecordResult(outcome=ingest_pb.RECORD_OUTCOME_REJECTED, error=error)

    return judge


async def listed(server: Omen) -> int:
    answer = await server.delivery.ListDeadLetters(ListDeadLettersRequest(), timeout=DEADLINE_S)
    return len(answer.dead_letters)


async def test_while_delivery_db_takes_no_dead_letter_all_else_is_delivered_and_it_is_asked_about_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "READ_RETRY_S", 0.05)
    ledger = tmp_path / "ledger"
    ledger.mkdir()
    async with peer_of(answering(refusing([1]))) as peer, omen(ledger, peer.port) as server:
        (ledger / DELIVERY_FILE).rename(tmp_path / DELIVERY_FILE)
        await server.to_ledger(0)
        emissions = [await server.emit(event(number), delivery_timeout=seconds(10)) for number in range(1, 30)]
        asked = len(peer.records)
        await peer.until(lambda peer: [index_of(record) for record in peer.records[asked:]].count(1) >= 2)
        state = await server.state()
        (tmp_path / DELIVERY_FILE).rename(ledger / DELIVERY_FILE)
        await server.until_state(lambda state: state.backlog_record_count == 0)
        letters = await listed(server)
    assert {emission.status for emission in emissions} == {DELIVERED}
    assert (len(peer.hellos), state.breaker, state.last_error) == (1, BREAKER_STATE_CLOSED, "")
    assert (state.backlog_record_count, letters) == (1, 1), "put off, it still waits"
    assert capsys.readouterr().out.count("refusals_put_off") == 1


async def test_with_much_put_off_the_stream_ends_by_omens_own_fault_and_all_of_it_is_kept_in_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "PUT_OFF_MAX", 2)
    ledger = tmp_path / "ledger"
    ledger.mkdir()
    async with peer_of(answering(refusing(range(1, 6)))) as peer, omen(ledger, peer.port) as server:
        (ledger / DELIVERY_FILE).rename(tmp_path / DELIVERY_FILE)
        emissions = [await server.emit(event(number), delivery_timeout=seconds(0.5)) for number in range(5)]
        await peer.until(lambda peer: len(peer.hellos) > 1)
        assert (await server.state()).breaker == BREAKER_STATE_CLOSED
        (tmp_path / DELIVERY_FILE).rename(ledger / DELIVERY_FILE)
        await server.until_state(lambda state: state.backlog_record_count == 0)
        letters = await listed(server)
    assert {emission.status for emission in emissions} == {LEDGER_ONLY}
    assert all(SIGNAL_ID.fullmatch(emission.signal_id) for emission in emissions)
    assert letters == 5
    said = capsys.readouterr().out
    assert "delivery_interrupted" in said
    assert "riskcast_unreachable" not in said
