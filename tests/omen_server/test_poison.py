"""What RiskCast cannot bear, answers oddly, or never settles keeps nothing else waiting, and costs only itself."""

import asyncio
from collections.abc import AsyncIterator, Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from contract.errors import STATUS_DETAILS_KEY, ContractError, ErrorDetails, Reason, internal, timestamp
from contract.identity import fill_identity
from contract.limits import EVENT_BYTES_MAX
from contract.versions import SCHEMA_VERSION
from omen.v1.delivery_service_pb2 import BreakerState
from omen.v1.signal_event_pb2 import SignalEvent
from omen_server import emission
from omen_server.appends import Append
from omen_server.delivery import contact, failing, follow, stream
from riskcast.v1 import ingest_service_pb2 as ingest_pb
from tests.omen_server.days import AGES_AGO, write_days
from tests.omen_server.running import (
    DEADLINE_S,
    DELIVERED,
    LEDGER_ONLY,
    REJECTED,
    closed_port,
    event,
    omen,
    riskcast,
    seconds,
)
from tests.omen_server.scripted_riskcast import (
    Peer,
    Requests,
    Script,
    answering,
    hanging,
    hello,
    outcomes,
    peer_of,
    stored,
    when_told,
)
from tests.omen_server.test_conflict import CONFLICT, colliding
from tests.omen_server.test_prune import prune, until_sealed
from tests.omen_server.test_traceparent import varint

Taken = dict[bytes, list[tuple[int, int]]]


def cannot_bear(unbearable: Collection[int], taken: Taken) -> Script:
    """Ends every stream on which a record of these indexes comes, and stores all others."""

    async def script(peer: Peer, requests: Requests) -> AsyncIterator[ingest_pb.IngestStreamResponse]:
        await peer.next_hello(requests)
        yield hello(taken)
        while True:
            batch = await peer.next_batch(requests)
            indexes = [record.position.sequence & 0xFFFF_FFFF for record in batch]
            if not set(unbearable).isdisjoint(indexes):
                raise internal("a bug")
            for record, index in zip(batch, indexes, strict=True):
                taken.setdefault(record.position.segment_id, []).append((index, index))
            yield outcomes([stored(record) for record in batch])

    return script


async def test_a_record_that_ends_every_stream_keeps_no_other_from_riskcast(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failing, "RETRY_FIRST_S", failing.RETRY_MAX_S)
    port, taken = closed_port(), Taken()
    async with omen(tmp_path, port, breaker_open_s=0.2) as server:
        await server.to_ledger(*range(20))
        async with peer_of(cannot_bear([5], taken), listen=f"127.0.0.1:{port}") as peer:
            await peer.until(lambda peer: sum(map(len, taken.values())) == 19)
            state = await server.until_state(lambda state: state.backlog_record_count == 1)
            emission = await server.emit(event(100), delivery_timeout=seconds(10))
            tried = len(peer.streams_opened_at)
    assert emission.status == DELIVERED
    assert state.last_error.startswith("INTERNAL")
    assert tried <= 7  # five until it is known which record it is, one with the others, one for it alone
    assert capsys.readouterr().out.count("record_failing") == 1


async def test_where_each_message_of_a_backlog_has_a_record_that_ends_streams_all_others_and_new_ones_pass(
    tmp_path: Path,
) -> None:
    port, taken, unbearable = closed_port(), Taken(), range(200, 1001, 200)
    async with omen(tmp_path, port) as server:
        await server.to_ledger(*range(1000))
        async with peer_of(cannot_bear(unbearable, taken), listen=f"127.0.0.1:{port}") as peer:
            await peer.until(lambda peer: sum(map(len, taken.values())) > 400)
            emissions = [await server.emit(event(1000 + number), delivery_timeout=seconds(10)) for number in range(3)]
            await peer.until(lambda peer: sum(map(len, taken.values())) == 1003 - len(unbearable))
            state = await server.until_state(lambda state: state.backlog_record_count == len(unbearable))
    assert {emission.status for emission in emissions} == {DELIVERED}
    assert state.breaker == BreakerState.BREAKER_STATE_CLOSED


async def test_many_records_that_end_every_stream_keep_no_other_from_riskcast_and_open_no_breaker(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failing, "REST_MIN_S", 0.05)
    monkeypatch.setattr(failing, "RETRY_FIRST_S", 0.05)
    monkeypatch.setattr(contact, "CALLS_PER_S_MAX", 50.0)
    port, taken, unbearable = closed_port(), Taken(), range(3, 40, 2)
    async with omen(tmp_path, port, breaker_open_s=0.2) as server:
        await server.to_ledger(*range(40))
        async with peer_of(cannot_bear(unbearable, taken), listen=f"127.0.0.1:{port}") as peer:
            await peer.until(lambda peer: sum(map(len, taken.values())) == 40 - len(unbearable))
            capsys.readouterr()  # until it was known which message is at fault the breaker may have opened
            streams, emitted = len(peer.hellos), 0
            await peer.until(lambda peer: len(peer.hellos) > streams + 20)  # with nothing else to send
            while len(peer.hellos) < streams + 40:  # each is ended by one of those that are tried
                emission = await server.emit(event(100 + emitted), delivery_timeout=seconds(10))
                assert emission.status in (DELIVERED, LEDGER_ONLY)
                emitted += emission.status == DELIVERED
            state = await server.state()
    assert emitted >= 10
    assert state.backlog_record_count == len(unbearable)
    assert state.breaker == BreakerState.BREAKER_STATE_CLOSED
    said = capsys.readouterr().out
    assert "riskcast_breaker_opened" not in said
    assert "riskcast_unreachable" not in said, "it was not RiskCast's fault"


async def test_a_riskcast_that_tells_of_rejected_records_without_end_is_listened_to_for_a_while_and_sent_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "REJECTED_PAGES_MAX", 3)

    async def tells_of_more(peer: Peer, requests: Requests) -> AsyncIterator[ingest_pb.IngestStreamResponse]:
        await peer.next_hello(requests)
        page = hello()
        page.hello.next_rejected_page_token = "again"
        yield page
        yield outcomes([stored(record) for record in await peer.next_batch(requests)])

    async with peer_of(tells_of_more) as peer, omen(tmp_path, peer.port) as server:
        emission = await server.emit(event(1), delivery_timeout=seconds(10))
    assert emission.status == DELIVERED
    assert len(peer.hellos) == 1 + follow.REJECTED_PAGES_MAX
    assert "rejected_not_all_told" in capsys.readouterr().out


async def test_pages_of_what_was_rejected_are_calls_too_and_come_no_faster(tmp_path: Path) -> None:
    pages = 10

    async def tells_of_more(peer: Peer, requests: Requests) -> AsyncIterator[ingest_pb.IngestStreamResponse]:
        await peer.next_hello(requests)
        page = hello()
        page.hello.next_rejected_page_token = str(len(peer.hellos)) if len(peer.hellos) < pages else ""
        yield page
        await peer.next_batch(requests)

    async with peer_of(tells_of_more) as peer, omen(tmp_path, peer.port):
        await peer.until(lambda peer: len(peer.hellos) == pages)
    took_s = peer.streams_opened_at[pages - 1] - peer.streams_opened_at[0]
    assert took_s > 0.8 * (pages - contact.CALLS_PER_S_MAX) / contact.CALLS_PER_S_MAX


async def test_what_was_rejected_is_asked_for_page_by_page_though_riskcast_wants_time_in_between(
    tmp_path: Path,
) -> None:
    async def tells_of_more(peer: Peer, requests: Requests) -> AsyncIterator[ingest_pb.IngestStreamResponse]:
        await peer.next_hello(requests)
        first_page = hello()
        first_page.hello.next_rejected_page_token = "second"
        yield first_page
        while True:
            yield outcomes([stored(record) for record in await peer.next_batch(requests)])

    async def wants_time(peer: Peer, requests: Requests) -> AsyncIterator[ingest_pb.IngestStreamResponse]:
        if await peer.next_hello(requests) is not None:
            raise ContractError(Reason.RATE_LIMITED, "too many calls", retry_delay_s=0.01)
        yield hello()

    scripts = tells_of_more, wants_time, wants_time, answering()
    async with peer_of(*scripts) as peer, omen(tmp_path, peer.port) as server:
        assert (await server.emit(event(1), delivery_timeout=seconds(10))).status == DELIVERED
    assert [each.rejected_page_token for each in peer.hellos] == ["", "second", "second", "second"]


class AsksForTime(Peer):
    """Ends the first stream with a RetryInfo of so many seconds."""

    def __init__(self, delay_s: int) -> None:
        super().__init__(answering())
        self._delay_s = delay_s

    async def IngestStream(
        self, request_iterator: Requests, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> AsyncIterator[ingest_pb.IngestStreamResponse]:
        if not self.streams_opened_at:
            self.streams_opened_at.append(asyncio.get_running_loop().time())
            context.set_trailing_metadata(((STATUS_DETAILS_KEY, asking(self._delay_s).SerializeToString()),))
            await context.abort(grpc.StatusCode.UNAVAILABLE, "busy")
        async for response in super().IngestStream(request_iterator, context):
            yield response


def asking(delay_s: int) -> status_pb2.Status:
    status = status_pb2.Status(code=14, message="busy")
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.seconds = delay_s
    status.details.add().Pack(retry)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="STORE_UNAVAILABLE", domain="riskcast.v1"))
    return status


@pytest.mark.parametrize("delay_s", [3 * 10**8, 10**15, -(10**15)])
async def test_a_riskcast_that_asks_for_an_absurd_time_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, delay_s: int
) -> None:
    assert ErrorDetails.from_status(asking(delay_s)).retry_delay_s == delay_s
    monkeypatch.setattr(contact, "ASKED_FOR_MAX_S", 0.2)
    monkeypatch.setattr("tests.omen_server.scripted_riskcast.Peer", lambda *scripts: AsksForTime(delay_s))
    async with peer_of(answering()) as peer, omen(tmp_path, peer.port) as server:
        await server.until_drained()
        assert (await server.emit(event(1))).status == DELIVERED


def of_the_largest_size(made: SignalEvent) -> SignalEvent:
    """Padded by a field of a later version: a tag of two bytes, a length of three."""
    made.schema_version = SCHEMA_VERSION
    made.emitted_at.CopyFrom(timestamp(datetime.now(UTC)))
    fill_identity(made)
    room = EVENT_BYTES_MAX - made.ByteSize() - 5
    made.MergeFromString(b"\xfa\x7f" + varint(room) + b"x" * room)
    assert made.ByteSize() == EVENT_BYTES_MAX
    return made


async def test_a_conflict_whose_wider_id_leaves_no_room_is_rejected_and_makes_no_second_record(tmp_path: Path) -> None:
    one, other = colliding()
    async with riskcast(tmp_path / "db") as store:
        async with omen(tmp_path / "one", store.port) as server:
            await server.emit(one)
        for _ in range(3):
            async with omen(tmp_path / "other", store.port) as server:
                if not await server.records():
                    emission = await server.emit(of_the_largest_size(other))
                await server.until_drained()
                assert len(await server.records()) == 1
        assert (emission.status, emission.rejection.reason) == (REJECTED, "SIGNAL_ID_CONFLICT")


async def test_an_event_that_has_no_room_for_a_wider_id_is_not_widened_at_once_either(tmp_path: Path) -> None:
    one, other = colliding()
    async with riskcast(tmp_path / "db") as store, omen(tmp_path / "ledger", store.port) as server:
        await server.emit(one)
        emission = await server.emit(of_the_largest_size(other))
        assert (emission.status, emission.rejection.reason) == (REJECTED, "SIGNAL_ID_CONFLICT")
        assert max(len(record.event) for record in await server.records()) == EVENT_BYTES_MAX


async def test_a_conflict_that_is_never_settled_is_emitted_again_once(tmp_path: Path) -> None:
    """RiskCast says so at each hello, since it will not take the wider one."""
    async with peer_of(answering(lambda record: CONFLICT)) as peer, omen(tmp_path, peer.port) as server:
        assert (await server.emit(event(1))).status == REJECTED
    for _ in range(3):
        async with peer_of(answering(lambda record: CONFLICT)) as peer, omen(tmp_path, peer.port) as server:
            await peer.until(lambda peer: bool(peer.records))
            await server.until_drained()
            assert len(await server.records()) == 2


async def test_a_repeat_of_what_lies_in_a_long_backlog_is_ledger_only_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "ANSWER_TIMEOUT_S", 60.0)
    may_answer = asyncio.Event()
    async with peer_of(when_told(may_answer)) as peer, omen(tmp_path, peer.port) as server:
        await server.to_ledger(1)
        await peer.until(lambda peer: len(peer.records) == 1)
        async with asyncio.timeout(DEADLINE_S):
            while "behind" not in (await server.emit(event(2), delivery_timeout=seconds(0.01))).ledger_only_reason:
                pass
            repeat = await server.emit(event(1), delivery_timeout=seconds(60))
        assert repeat.status == LEDGER_ONLY
        assert "behind" in repeat.ledger_only_reason


async def test_a_day_that_is_given_up_while_it_is_sent_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stream, "ANSWER_TIMEOUT_S", 60.0)
    write_days(tmp_path, AGES_AGO, count=3000)
    may_answer = asyncio.Event()
    async with peer_of(when_told(may_answer)) as peer, omen(tmp_path, peer.port) as server:
        await peer.until(lambda peer: len(peer.batches) == 4)
        await until_sealed(server)
        await prune(server, apply=True, unsettled_reason="nobody needs it")
        may_answer.set()
        await server.until_drained()
        assert (await server.emit(event(77))).status == DELIVERED
        assert len(peer.records) == 4 * 256 + 1
    assert capsys.readouterr().out.count("ledger_record_unreadable") == 0


async def test_of_an_emit_that_waits_for_riskcast_no_payload_is_kept_once_it_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "ANSWER_TIMEOUT_S", 60.0)
    made: list[Append] = []

    def making(*told: Any) -> Append:
        made.append(Append(*told))
        return made[-1]

    monkeypatch.setattr(emission, "Append", making)
    async with peer_of(hanging) as peer, omen(tmp_path, peer.port) as server:
        for _ in range(2):  # the second is a repeat
            await server.emit(event(1), delivery_timeout=seconds(0.1))
        assert [bool(append.payload) for append in made] == [False, False]


async def test_with_a_riskcast_that_fell_silent_emit_is_ledger_only_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only once the connection was given up and the next hello has gone unanswered, too."""
    monkeypatch.setattr(stream, "ANSWER_TIMEOUT_S", 0.3)
    monkeypatch.setattr(stream, "HELLO_TIMEOUT_S", 30.0)
    monkeypatch.setattr(contact, "HELLO_TIMEOUT_S", 30.0)

    async def says_nothing(peer: Peer, requests: Requests) -> AsyncIterator[ingest_pb.IngestStreamResponse]:
        await peer.next_hello(requests)
        await peer.next_batch(requests)
        yield hello()

    async with peer_of(hanging, says_nothing) as peer, omen(tmp_path, peer.port) as server:
        await server.to_ledger(1)
        await server.until_state(lambda state: "no answer" in state.last_error)
        async with asyncio.timeout(DEADLINE_S):
            emission = await server.emit(event(2), delivery_timeout=seconds(60))
        assert emission.status == LEDGER_ONLY
        assert emission.ledger_only_reason == "RiskCast cannot be reached: no answer within 0.3 s"
