"""The trace that a caller emits in goes with its event: into the ledger, to RiskCast, and into no identity."""

import asyncio
from pathlib import Path
from typing import Any

from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from contract.identity import identity_of_event
from contract.limits import EVENT_BYTES_MAX
from omen.v1 import pipeline_service_pb2 as pipeline_pb
from omen.v1 import signal_service_pb2 as pb
from omen.v1.signal_event_pb2 import SignalEvent
from tests.omen_server.running import (
    DEADLINE_S,
    DELIVERED,
    DUPLICATE,
    LEDGER_ONLY,
    Omen,
    closed_port,
    event,
    omen,
    riskcast,
)
from tests.omen_server.scripted_riskcast import answering, peer_of
from tests.omen_server.test_conflict import CONFLICT
from tests.omen_server.test_process import accepted

TRACE, OTHER_TRACE = "0af7651916cd43dd8448eb211c80319c", "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT, OTHER_PARENT = f"00-{TRACE}-b7ad6b7169203331-01", f"00-{OTHER_TRACE}-00f067aa0ba902b7-00"


async def emitted(server: Omen, made: SignalEvent, traceparent: str, **request: Any) -> pb.Emission:
    answer = await server.signals.Emit(
        pb.EmitRequest(event=made, **request), metadata=[("traceparent", traceparent)], timeout=DEADLINE_S
    )
    emission: pb.Emission = answer.emission
    return emission


async def events(server: Omen) -> list[SignalEvent]:
    return [SignalEvent.FromString(record.event) for record in await server.records()]


async def test_the_callers_trace_is_stored_with_the_event_and_delivered_with_it(tmp_path: Path) -> None:
    async with riskcast(tmp_path / "db") as store, omen(tmp_path / "ledger", store.port) as server:
        emission = await emitted(server, event(1), PARENT)
        assert emission.status == DELIVERED
        [record] = await server.records()
        stored = await store.stored(emission.signal_id)
    assert SignalEvent.FromString(record.event).traceparent == PARENT
    assert stored.stored_event == record.event


async def test_a_repeat_in_another_trace_is_an_equal_repeat_and_the_first_trace_stays(tmp_path: Path) -> None:
    async with riskcast(tmp_path / "db") as store, omen(tmp_path / "ledger", store.port) as server:
        with capture_logs() as lines:
            first = await emitted(server, event(1), PARENT)
            again = await emitted(server, event(1), OTHER_PARENT)
        untraced = await server.emit(event(1))
        stored = await store.stored(first.signal_id)
    assert (first.status, again.status, untraced.status) == (DELIVERED, DUPLICATE, DUPLICATE)
    assert {first.signal_id, again.signal_id, untraced.signal_id} == {stored.event.signal_id}
    assert first.ack_id == again.ack_id == untraced.ack_id
    assert stored.event.traceparent == PARENT
    assert [line for line in lines if line["event"] == "repeat_with_other_content"] == []


async def test_what_an_event_brings_itself_stays_and_what_is_no_traceparent_is_not_stored(tmp_path: Path) -> None:
    own = event(1)
    own.traceparent = OTHER_PARENT
    async with omen(tmp_path, closed_port()) as server:
        await emitted(server, own, PARENT, wait_for=pb.WAIT_FOR_LEDGER)
        await emitted(server, event(2), "00-1-2-01", wait_for=pb.WAIT_FOR_LEDGER)
        await server.to_ledger(3)
        assert [each.traceparent for each in await events(server)] == [OTHER_PARENT, "", ""]


async def test_a_signal_that_is_made_of_an_observation_has_the_trace_of_its_call_too(tmp_path: Path) -> None:
    request = pipeline_pb.ProcessRequest(observation=accepted(), wait_for=pb.WAIT_FOR_LEDGER)
    async with omen(tmp_path, closed_port()) as server:
        with capture_logs(processors=[merge_contextvars]) as lines:
            answer = await server.pipeline.Process(request, metadata=[("traceparent", PARENT)], timeout=DEADLINE_S)
        [stored] = await events(server)
    assert (stored.traceparent, answer.event) == (PARENT, stored)
    [line] = [line for line in lines if line["event"] == "call"]
    assert line["signal_id"] == stored.signal_id
    assert line["deterministic_trace_id"] == stored.deterministic_trace_id
    assert (line["trace_id"], line["status"]) == (TRACE, "LEDGER_ONLY")


async def test_an_event_that_has_just_room_for_itself_is_taken_without_the_trace(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()) as server:
        emission = (await server.to_ledger(1))[0]
        [completed] = await events(server)
        completed.ClearField("traceparent")
        unknown = EVENT_BYTES_MAX - completed.ByteSize()
        # A field of a later version: a tag of two bytes, a length of three.
        padded = completed.SerializeToString() + b"\xfa\x7f" + varint(unknown - 5) + b"x" * (unknown - 5)
        largest = SignalEvent.FromString(padded)
        assert largest.ByteSize() == EVENT_BYTES_MAX
        again = await emitted(server, largest, PARENT, wait_for=pb.WAIT_FOR_LEDGER)
        assert (again.status, again.signal_id) == (LEDGER_ONLY, emission.signal_id)
        assert again.position == emission.position  # a repeat
    async with omen(tmp_path, closed_port()) as server:
        await emitted(server, largest, PARENT, wait_for=pb.WAIT_FOR_LEDGER)
        assert [each.traceparent for each in await events(server)] == ["", ""]


def varint(number: int) -> bytes:
    """In three bytes."""
    return bytes([number & 0x7F | 0x80, number >> 7 & 0x7F | 0x80, number >> 14])


async def test_calls_that_run_at_once_keep_their_traces_apart(tmp_path: Path) -> None:
    traces = {number: f"00-{number:032x}-b7ad6b7169203331-01" for number in range(1, 40)}
    async with omen(tmp_path, closed_port()) as server:
        emissions = await asyncio.gather(
            *(emitted(server, event(number), trace, wait_for=pb.WAIT_FOR_LEDGER) for number, trace in traces.items())
        )
        stored = {each.signal_id: each.traceparent for each in await events(server)}
    assert stored == {emission.signal_id: trace for emission, trace in zip(emissions, traces.values(), strict=True)}


async def test_what_omen_says_of_a_record_names_its_signal_and_its_trace(tmp_path: Path) -> None:
    """Its id is taken, and the wide one too."""
    with capture_logs(processors=[merge_contextvars]) as lines:
        async with peer_of(answering(lambda record: CONFLICT)) as peer, omen(tmp_path, peer.port) as server:
            await emitted(server, event(1), PARENT)
    ids = identity_of_event(event(1))
    said = {line["event"]: line for line in lines if line.get("deterministic_trace_id") == ids.trace_id}
    assert {name: (line["signal_id"], line["trace_id"]) for name, line in said.items()} == {
        "signal_id_conflict": (ids.signal_id, TRACE),
        "record_rejected": (ids.signal_id_of(32), TRACE),
        "call": (ids.signal_id_of(32), TRACE),
    }
    assert said["signal_id_conflict"]["emitted_again_as"] == ids.signal_id_of(32)
    assert said["record_rejected"]["reason"] == "SIGNAL_ID_CONFLICT"
    assert said["call"]["status"] == "REJECTED"
