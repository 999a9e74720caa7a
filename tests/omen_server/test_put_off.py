"""What follows from a refusal and cannot be kept now is put off: nothing else waits for it."""

from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from contract.identity import SIGNAL_ID
from contract.limits import BATCH_ITEMS_MAX
from omen.v1.delivery_service_pb2 import BREAKER_STATE_CLOSED, ListDeadLettersRequest
from omen.v1.ledger_record_pb2 import LedgerRecord
from omen.v1.signal_service_pb2 import ItemError
from omen_server.delivery import follow, settling
from omen_server.delivery_file import DELIVERY_FILE
from riskcast.v1 import ingest_service_pb2 as ingest_pb
from tests.omen_server.running import DEADLINE_S, DELIVERED, LEDGER_ONLY, Omen, closed_port, event, omen, seconds
from tests.omen_server.scripted_riskcast import Judge, Peer, Requests, answering, hello, outcomes, peer_of, stored


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


@contextmanager
def taking_nothing(ledger: Path) -> Iterator[None]:
    """Its delivery.db is away within."""
    file, aside = ledger / DELIVERY_FILE, ledger.parent / DELIVERY_FILE
    file.rename(aside)
    yield
    aside.rename(file)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    directory = tmp_path / "ledger"
    directory.mkdir()
    return directory


async def test_while_delivery_db_takes_no_dead_letter_all_else_is_delivered_and_it_is_asked_about_again(
    ledger: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "READ_RETRY_S", 0.05)
    async with peer_of(answering(refusing([1]))) as peer, omen(ledger, peer.port) as server:
        with taking_nothing(ledger):
            await server.to_ledger(0)
            emissions = [await server.emit(event(number), delivery_timeout=seconds(10)) for number in range(1, 30)]
            asked = len(peer.records)
            await peer.until(lambda peer: [index_of(record) for record in peer.records[asked:]].count(1) >= 2)
            state = await server.state()
        await server.until_state(lambda state: state.backlog_record_count == 0)
        letters = await listed(server)
    assert {emission.status for emission in emissions} == {DELIVERED}
    assert (len(peer.hellos), state.breaker, state.last_error) == (1, BREAKER_STATE_CLOSED, "")
    assert (state.backlog_record_count, letters) == (1, 1), "put off, it still waits"
    assert capsys.readouterr().out.count("refusals_put_off") == 1


async def test_with_much_put_off_the_stream_ends_by_omens_own_fault_and_all_of_it_is_kept_in_the_end(
    ledger: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "PUT_OFF_MAX", 2)
    async with peer_of(answering(refusing(range(1, 6)))) as peer, omen(ledger, peer.port) as server:
        with taking_nothing(ledger):
            emissions = [await server.emit(event(number), delivery_timeout=seconds(0.5)) for number in range(5)]
            await peer.until(lambda peer: len(peer.hellos) > 1)
            assert (await server.state()).breaker == BREAKER_STATE_CLOSED
        await server.until_state(lambda state: state.backlog_record_count == 0)
        letters = await listed(server)
    assert {emission.status for emission in emissions} == {LEDGER_ONLY}
    assert all(SIGNAL_ID.fullmatch(emission.signal_id) for emission in emissions)
    assert letters == 5
    said = capsys.readouterr().out
    assert "delivery_interrupted" in said
    assert "riskcast_unreachable" not in said


async def test_a_message_that_was_under_way_when_omens_own_disk_ended_the_stream_is_in_no_doubt(
    ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In doubt it would be sent by itself, and the peer, which answers once two messages have come, not at all."""
    monkeypatch.setattr(settling, "PUT_OFF_MAX", 2)
    monkeypatch.setattr(follow, "READ_RETRY_S", 0.05)
    judge, port = refusing(range(1, 6)), closed_port()

    async def answers_two(peer: Peer, requests: Requests) -> AsyncIterator[ingest_pb.IngestStreamResponse]:
        await peer.next_hello(requests)
        yield hello()
        for batch in [await peer.next_batch(requests), await peer.next_batch(requests)]:
            yield outcomes([judge(record) for record in batch])

    async with omen(ledger, port, breaker_open_s=0.2) as server:
        await server.to_ledger(*range(2 * BATCH_ITEMS_MAX))
        with taking_nothing(ledger):
            async with peer_of(answers_two, listen=f"127.0.0.1:{port}") as peer:
                await peer.until(lambda peer: len(peer.hellos) == 4)
    assert len(peer.records) >= 3 * 2 * BATCH_ITEMS_MAX
