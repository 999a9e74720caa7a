"""Emit: completed, checked, in the ledger, then what RiskCast says of it, or why that was not waited for."""

import asyncio
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from contract.errors import Reason, timestamp
from contract.identity import ack_id, identity_of_event
from omen.v1 import signal_service_pb2 as pb
from omen.v1.signal_event_pb2 import SignalEvent
from riskcast.v1 import ingest_service_pb2 as ingest_pb
from tests.omen_server.running import (
    DEADLINE_S,
    DELIVERED,
    DUPLICATE,
    LEDGER_ONLY,
    REJECTED,
    closed_port,
    event,
    omen,
    records_of,
    refusal,
    riskcast,
    seconds,
)
from tests.omen_server.scripted_riskcast import answering, hanging, peer_of, when_told


async def test_what_a_producer_leaves_out_is_derived_and_the_answer_says_what_is_in_the_ledger(tmp_path: Path) -> None:
    sent = event(1)
    earliest = datetime.now(UTC)
    async with riskcast(tmp_path / "db") as store, omen(tmp_path / "ledger", store.port) as server:
        emission = await server.emit(sent)
        [record] = await server.records()
        stored = await store.stored(emission.signal_id)
    ids, held = identity_of_event(sent), SignalEvent.FromString(record.event)
    assert emission.status == DELIVERED
    assert emission.signal_id == held.signal_id == ids.signal_id
    assert emission.deterministic_trace_id == held.deterministic_trace_id == ids.trace_id
    assert emission.input_event_hash == held.input_event_hash == sent.input_event_hash
    assert held.schema_version == "1.0.0"
    assert earliest <= held.emitted_at.ToDatetime(UTC) <= datetime.now(UTC)
    assert emission.position == record.position == stored.position
    assert record.position.partition == held.emitted_at.ToDatetime(UTC).date().isoformat()
    assert emission.ack_id == stored.ack_id == ack_id(ids.signal_id, sent.input_event_hash)
    assert stored.stored_event == record.event


async def test_input_event_hash_is_derived_from_the_canonical_observation(tmp_path: Path) -> None:
    made = event(1)
    made.ClearField("input_event_hash")
    made.canonical_observation = b'{"title":"x"}'
    async with omen(tmp_path / "ledger", closed_port()) as server:
        emission = await server.emit(made, wait_for=pb.WAIT_FOR_LEDGER)
    made.input_event_hash = emission.input_event_hash
    assert emission.signal_id == identity_of_event(made).signal_id


def wrong_trace(made: SignalEvent) -> None:
    made.deterministic_trace_id = "0" * 16


def wrong_id(made: SignalEvent) -> None:
    made.signal_id = "OMEN-" + "0" * 12


@pytest.mark.parametrize(("spoil", "field"), [(wrong_trace, "deterministic_trace_id"), (wrong_id, "signal_id")])
async def test_an_id_the_formula_does_not_give_is_refused_with_the_one_it_gives(
    tmp_path: Path, spoil: Callable[[SignalEvent], None], field: str
) -> None:
    made = event(1)
    spoil(made)
    async with omen(tmp_path / "ledger", closed_port()) as server:
        error = await refusal(server.emit(made))
        assert await server.records() == []
    ids = identity_of_event(made)
    assert error.reason == Reason.SIGNAL_ID_MISMATCH
    assert error.metadata["field"] == field
    assert error.metadata["expected"] == (ids.signal_id if field == "signal_id" else ids.trace_id)


async def test_an_id_of_more_digits_of_the_same_digest_is_taken_as_it_is(tmp_path: Path) -> None:
    made = event(1)
    made.signal_id = identity_of_event(made).signal_id_of(20)
    async with omen(tmp_path / "ledger", closed_port()) as server:
        assert (await server.emit(made, wait_for=pb.WAIT_FOR_LEDGER)).signal_id == made.signal_id


def no_title(made: SignalEvent) -> None:
    made.signal.title = ""


def no_source(made: SignalEvent) -> None:
    made.source = ""


def no_hash(made: SignalEvent) -> None:
    made.input_event_hash = ""


def improbable(made: SignalEvent) -> None:
    made.signal.probability = 1.5


def from_the_future(made: SignalEvent) -> None:
    made.emitted_at.CopyFrom(timestamp(datetime.now(UTC) + timedelta(minutes=6)))


def nothing(made: SignalEvent) -> None:
    made.Clear()


@pytest.mark.parametrize(
    ("spoil", "field"),
    [
        (no_title, "signal.title"),
        (no_source, "source"),
        (no_hash, "input_event_hash"),
        (improbable, "signal.probability"),
        (from_the_future, "emitted_at"),
        (nothing, "signal"),
    ],
)
async def test_a_bad_event_is_refused_by_its_field_and_nothing_is_appended(
    tmp_path: Path, spoil: Callable[[SignalEvent], None], field: str
) -> None:
    made = event(1)
    spoil(made)
    async with omen(tmp_path / "ledger", closed_port()) as server:
        error = await refusal(server.emit(made))
        assert await server.records() == []
    assert (error.reason, error.code) == (Reason.INVALID_SIGNAL, grpc.StatusCode.INVALID_ARGUMENT.value[0])
    assert field in [violation.field for violation in error.violations]


async def test_a_schema_version_of_a_higher_major_is_refused(tmp_path: Path) -> None:
    made = event(1)
    made.schema_version = "2.0.0"
    async with omen(tmp_path / "ledger", closed_port()) as server:
        error = await refusal(server.emit(made))
        assert await server.records() == []
    assert error.reason == Reason.SCHEMA_VERSION_UNSUPPORTED


async def test_the_second_emit_of_a_signal_is_a_duplicate_with_the_ack_id_of_the_first(tmp_path: Path) -> None:
    async with riskcast(tmp_path / "db") as store, omen(tmp_path / "ledger", store.port) as server:
        first, second = await server.emit(event(1)), await server.emit(event(1))
        assert (first.status, second.status) == (DELIVERED, DUPLICATE)
        assert first.ack_id == second.ack_id != ""
        assert first.position == second.position
        assert store.ids() == [first.signal_id]
        assert len(await server.records()) == 1


async def test_many_emits_of_one_signal_at_once_give_one_delivered_and_one_ack_id(tmp_path: Path) -> None:
    async with riskcast(tmp_path / "db") as store, omen(tmp_path / "ledger", store.port) as server:
        emissions = await asyncio.gather(*(server.emit(event(1)) for _ in range(64)))
        assert sorted(emission.status for emission in emissions) == [DELIVERED] + [DUPLICATE] * 63
        assert len({emission.ack_id for emission in emissions}) == 1
        assert await store.count() == 1


async def test_every_emit_of_many_at_once_is_answered_with_its_own_signal(tmp_path: Path) -> None:
    async with riskcast(tmp_path / "db") as store, omen(tmp_path / "ledger", store.port) as server:
        emissions = await asyncio.gather(*(server.emit(event(number)) for number in range(200)))
        held = {record.position.sequence: record.event for record in await server.records()}
    for number, emission in enumerate(emissions):
        made = event(number)
        assert emission.status == DELIVERED
        assert emission.signal_id == identity_of_event(made).signal_id
        assert emission.ack_id == ack_id(emission.signal_id, made.input_event_hash)
        assert SignalEvent.FromString(held[emission.position.sequence]).signal_id == emission.signal_id


async def test_waiting_for_the_ledger_does_not_wait_for_a_riskcast_that_hangs(tmp_path: Path) -> None:
    async with peer_of(hanging) as peer, omen(tmp_path / "ledger", peer.port) as server:
        async with asyncio.timeout(DEADLINE_S):  # it does not wait for the stream to be given up: no reason is given
            emission = await server.emit(event(1), wait_for=pb.WAIT_FOR_LEDGER, delivery_timeout=seconds(60))
    assert emission.status == LEDGER_ONLY
    assert (emission.ack_id, emission.ledger_only_reason) == ("", "")


@pytest.mark.parametrize("timeout_s", [-0.5, 60.5, 61, 1e9])
async def test_a_delivery_timeout_beyond_60_s_is_refused_by_its_field(tmp_path: Path, timeout_s: float) -> None:
    async with omen(tmp_path / "ledger", closed_port()) as server:
        error = await refusal(server.emit(event(1), delivery_timeout=seconds(timeout_s)))
        assert await server.records() == []
    assert [violation.field for violation in error.violations] == ["delivery_timeout"]


async def test_a_delivery_timeout_that_is_no_duration_is_refused_by_its_field(tmp_path: Path) -> None:
    async with omen(tmp_path / "ledger", closed_port()) as server:
        error = await refusal(server.emit(event(1), delivery_timeout=Duration(seconds=-1, nanos=2_000_000_000)))
    assert [violation.field for violation in error.violations] == ["delivery_timeout"]


@pytest.mark.parametrize("timeout_s", [0, 60])
async def test_a_delivery_timeout_of_0_or_60_s_is_taken(tmp_path: Path, timeout_s: float) -> None:
    async with peer_of(answering()) as peer, omen(tmp_path / "ledger", peer.port) as server:
        emission = await server.emit(event(1), delivery_timeout=seconds(timeout_s))
    assert emission.status == (DELIVERED if timeout_s else LEDGER_ONLY)


@pytest.mark.parametrize(("timeout_s", "expected_s"), [(0.3, 0.3), (0, 0), (None, 5.0)])
async def test_a_riskcast_that_hangs_is_waited_for_as_long_as_asked_and_5_s_by_default(
    tmp_path: Path, timeout_s: float | None, expected_s: float
) -> None:
    request = {} if timeout_s is None else {"delivery_timeout": seconds(timeout_s)}
    async with peer_of(hanging) as peer, omen(tmp_path / "ledger", peer.port) as server:
        await server.until_drained()
        loop = asyncio.get_running_loop()
        began = loop.time()
        emission = await server.emit(event(1), **request)
        took_s = loop.time() - began
        assert len(await server.records()) == 1
    assert emission.status == LEDGER_ONLY
    assert emission.ledger_only_reason == f"RiskCast did not answer within {expected_s:g} s"
    assert expected_s <= took_s < expected_s + DEADLINE_S


async def test_ledger_only_comes_at_once_when_riskcast_is_down(tmp_path: Path) -> None:
    async with omen(tmp_path / "ledger", closed_port()) as server:
        emissions = await asyncio.gather(*(server.emit(event(n), delivery_timeout=seconds(60)) for n in range(30)))
        assert {emission.status for emission in emissions} == {LEDGER_ONLY}
        assert all("RiskCast cannot be reached" in emission.ledger_only_reason for emission in emissions)
        assert len(await server.records()) == 30


async def test_a_client_that_gives_up_changes_nothing_the_record_is_delivered(tmp_path: Path) -> None:
    may_answer = asyncio.Event()
    async with peer_of(when_told(may_answer)) as peer, omen(tmp_path / "ledger", peer.port) as server:
        call = server.signals.Emit(pb.EmitRequest(event=event(1), delivery_timeout=seconds(60)), timeout=60)
        await peer.until(lambda peer: len(peer.records) == 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (await server.emit(event(2), delivery_timeout=seconds(0))).status == LEDGER_ONLY
        may_answer.set()
        await server.until_drained()
        assert [record.event for record in await server.records()] == [record.event for record in peer.records]
        assert (await server.emit(event(1))).status == DUPLICATE


async def test_what_riskcast_rejects_is_answered_with_its_reason_and_stays_in_the_ledger(tmp_path: Path) -> None:
    error = pb.ItemError(code=3, reason="INVALID_SIGNAL", message="signal.title: must not be empty")
    rejected = ingest_pb.RecordResult(outcome=ingest_pb.RECORD_OUTCOME_REJECTED, error=error)
    async with peer_of(answering(lambda record: rejected)) as peer, omen(tmp_path / "ledger", peer.port) as server:
        emission = await server.emit(event(1))
        assert len(await server.records()) == 1
    assert (emission.status, emission.rejection, emission.ack_id) == (REJECTED, error, "")


async def test_an_event_whose_day_is_long_over_is_refused_and_not_stored(tmp_path: Path) -> None:
    old = timestamp(datetime.now(UTC) - timedelta(days=6))
    async with omen(tmp_path / "ledger", closed_port()) as server:
        error = await refusal(server.emit(event(1, emitted_at=old)))
        assert await server.records() == []
    assert (error.reason, error.retry_delay_s) == (Reason.PARTITION_CLOSED, None)
    assert error.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]


async def test_an_event_of_a_day_that_fell_due_goes_to_its_late_partition_and_is_delivered(tmp_path: Path) -> None:
    at = datetime.now(UTC) - timedelta(days=2)
    async with riskcast(tmp_path / "db") as store, omen(tmp_path / "ledger", store.port) as server:
        emission = await server.emit(event(1, emitted_at=timestamp(at)))
    assert emission.status == DELIVERED
    assert emission.position.partition == f"{at.date().isoformat()}-late"
    assert len(records_of(tmp_path / "ledger")) == 1


async def test_a_negative_zero_is_stored_as_zero(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()) as server:
        negative = event(1)
        negative.signal.probability = -0.0
        await server.emit(negative, wait_for=pb.WAIT_FOR_LEDGER)
        [record] = await server.records()
        assert math.copysign(1.0, SignalEvent.FromString(record.event).signal.probability) == 1.0
