"""When the ledger cannot take a record its caller is told so, and RiskCast never hears of it."""

import asyncio
import errno
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import omen_server.app
from contract.errors import Reason
from ledger import LedgerSettings
from omen.v1 import signal_service_pb2 as pb
from omen.v1.ledger_record_pb2 import LedgerRecord
from omen_server.app import LedgerFailed
from omen_server.journal import open_journal
from riskcast.v1.ingest_service_pb2 import RecordResult
from tests.ledger.faults import FaultyDisk
from tests.omen_server.running import DELIVERED, Omen, closed_port, event, omen, records_of, refusal, seconds
from tests.omen_server.scripted_riskcast import answering, peer_of, stored

DEADLINE_S = 10.0
SEGMENT = "segment-00000001.log"

OpenedWith = Callable[..., None]


@pytest.fixture
def opened_with(monkeypatch: pytest.MonkeyPatch) -> OpenedWith:
    """OMEN opens its ledger with these settings and this disk, without a free-space floor."""

    def set_up(disk: FaultyDisk, **limits: Any) -> None:
        settings = LedgerSettings(**{"free_bytes_min": 0, **limits})
        monkeypatch.setattr(omen_server.app, "open_journal", partial(open_journal, settings=settings, disk=disk))

    return set_up


class HeldDisk(FaultyDisk):
    """fdatasync waits until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = Event()

    def fdatasync(self, fd: int) -> None:
        self._do("fdatasync_began", self._names[fd])
        assert self.let_go.wait(DEADLINE_S)
        super().fdatasync(fd)


async def ended(server: Omen) -> BaseException | None:
    """What the app ended with, by itself."""
    await asyncio.wait([server.task], timeout=DEADLINE_S)
    assert server.task.done()
    return server.task.exception()


@pytest.mark.parametrize("kind", ["write", "fdatasync"])
async def test_a_failed_append_is_answered_ledger_unavailable_and_ends_omen_with_nothing_pushed(
    tmp_path: Path, opened_with: OpenedWith, kind: str
) -> None:
    disk = FaultyDisk()
    opened_with(disk, idle_mark_s=60)
    async with peer_of(answering()) as peer, omen(tmp_path, peer.port) as server:
        await peer.until(lambda peer: len(peer.hellos) == 1)
        readiness = asyncio.create_task(readiness_until_the_end(server))
        assert (await server.emit(event(1))).status == DELIVERED
        disk.fail(kind, at=disk._counts[kind] + 1)
        error = await refusal(server.emit(event(2)))
        failure = await ended(server)
        assert (await readiness)[-1] == health_pb2.HealthCheckResponse.NOT_SERVING
        pushed = list(peer.records)
    opened_with(FaultyDisk())
    async with omen(tmp_path, closed_port()) as server:
        assert (await server.records())[:1] == pushed
    assert (error.reason, error.code) == (Reason.LEDGER_UNAVAILABLE, grpc.StatusCode.UNAVAILABLE.value[0])
    assert error.retry_delay_s
    assert "OSError" not in error.message
    assert isinstance(failure, LedgerFailed)


async def readiness_until_the_end(server: Omen) -> list[int]:
    """What a watcher of readiness is told until its stream ends."""
    stub: Any = health_pb2_grpc.HealthStub(server.channel)
    told: list[int] = []
    with suppress(grpc.aio.AioRpcError):
        async for answer in stub.Watch(health_pb2.HealthCheckRequest(service="readiness"), timeout=DEADLINE_S):
            told.append(answer.status)
    return told


async def test_after_a_failed_append_a_new_process_takes_records_and_delivers_them(
    tmp_path: Path, opened_with: OpenedWith
) -> None:
    disk = FaultyDisk()
    opened_with(disk)
    async with peer_of(answering()) as peer:
        async with omen(tmp_path, peer.port) as server:
            await server.emit(event(1))
            disk.fail("fdatasync", at=disk._counts["fdatasync"] + 1)
            await refusal(server.emit(event(2)))
            assert isinstance(await ended(server), LedgerFailed)
        opened_with(FaultyDisk())
        async with omen(tmp_path, peer.port) as server:
            assert (await server.emit(event(3))).status == DELIVERED
        assert {record.payload for record in records_of(tmp_path)} == {record.event for record in peer.records}


async def test_a_full_queue_is_answered_at_once_with_when_to_try_again(tmp_path: Path, opened_with: OpenedWith) -> None:
    disk = HeldDisk()
    opened_with(disk, queue_records_max=2)
    async with omen(tmp_path, closed_port()) as server:
        try:
            first = asyncio.create_task(server.emit(event(1), wait_for=pb.WAIT_FOR_LEDGER))
            await asyncio.to_thread(disk.wait_for, lambda events: any(kind == "fdatasync_began" for kind, _ in events))
            more = [asyncio.create_task(server.emit(event(n), wait_for=pb.WAIT_FOR_LEDGER)) for n in range(2, 8)]
            async with asyncio.timeout(DEADLINE_S):
                while sum(task.done() for task in more) < 4:
                    await asyncio.wait([task for task in more if not task.done()], return_when=asyncio.FIRST_COMPLETED)
            errors = [await refusal(task) for task in more if task.done()]
        finally:
            disk.let_go.set()
        await asyncio.gather(first, *(task for task in more if not task.done()))
        assert len(await server.records()) == 3
    assert {(error.reason, error.code) for error in errors} == {
        (Reason.QUEUE_FULL, grpc.StatusCode.RESOURCE_EXHAUSTED.value[0])
    }
    assert all(error.retry_delay_s for error in errors)


async def test_below_the_free_space_floor_nothing_is_taken_and_with_space_back_it_goes_on(
    tmp_path: Path, opened_with: OpenedWith
) -> None:
    disk = FaultyDisk()
    opened_with(disk, free_bytes_min=1 << 20)
    async with peer_of(answering()) as peer, omen(tmp_path, peer.port) as server:
        disk.free = 1000
        error = await refusal(server.emit(event(1)))
        assert await server.records() == []
        disk.free = 1 << 30
        assert (await server.emit(event(2))).status == DELIVERED
        assert len(peer.records) == 1
    assert (error.reason, error.code) == (Reason.LEDGER_FULL, grpc.StatusCode.UNAVAILABLE.value[0])
    assert error.retry_delay_s
    assert str(tmp_path) not in error.message


async def test_a_full_disk_in_the_middle_of_a_write_ends_omen(tmp_path: Path, opened_with: OpenedWith) -> None:
    disk = FaultyDisk()
    opened_with(disk, idle_mark_s=60)
    async with omen(tmp_path, closed_port()) as server:
        await server.to_ledger(1)
        disk.fail_write(at=disk._counts["write"] + 1, with_=errno.ENOSPC)
        error = await refusal(server.emit(event(2)))
        assert error.reason == Reason.LEDGER_UNAVAILABLE
        assert isinstance(await ended(server), LedgerFailed)


class SyncedDisk(HeldDisk):
    """Remembers which bytes an fdatasync that has returned covered."""

    def __init__(self) -> None:
        super().__init__()
        self._synced: dict[str, bytes] = {}

    def fdatasync(self, fd: int) -> None:
        covered = os.pread(fd, os.fstat(fd).st_size, 0)
        super().fdatasync(fd)
        self._synced[self._names[fd]] = covered

    def wait_for_another_fdatasync(self, seen: int) -> None:
        self.wait_for(lambda events: events.count(("fdatasync_began", SEGMENT)) > seen)

    def holds(self, payload: bytes) -> bool:
        return any(payload in covered for covered in self._synced.values())


async def test_no_record_reaches_riskcast_before_its_fdatasync_has_returned(
    tmp_path: Path, opened_with: OpenedWith
) -> None:
    disk = SyncedDisk()
    opened_with(disk)
    early: list[LedgerRecord] = []

    def judge(record: LedgerRecord) -> RecordResult:
        if not disk.holds(record.event):
            early.append(record)
        return stored(record)

    async with peer_of(answering(judge)) as peer, omen(tmp_path, peer.port) as server:
        await peer.until(lambda peer: len(peer.hellos) == 1)
        for number in range(3):
            disk.let_go.clear()
            seen = disk.events.count(("fdatasync_began", SEGMENT))
            emitting = asyncio.create_task(server.emit(event(number)))
            await asyncio.to_thread(disk.wait_for_another_fdatasync, seen)
            for _ in range(50):  # more than it takes to send a record: each is a round trip through the same loop
                await server.state()
            assert (len(peer.records), emitting.done()) == (number, False)
            disk.let_go.set()
            assert (await emitting).status == DELIVERED
        await asyncio.gather(*(server.emit(event(number)) for number in range(3, 300)))
        assert len(peer.records) == 300
    assert early == []


async def test_a_client_that_gives_up_before_the_fsync_changes_nothing_the_record_is_stored_and_delivered(
    tmp_path: Path, opened_with: OpenedWith
) -> None:
    disk = HeldDisk()
    opened_with(disk, idle_mark_s=60)
    async with peer_of(answering()) as peer, omen(tmp_path, peer.port) as server:
        await peer.until(lambda peer: len(peer.hellos) == 1)
        call = server.signals.Emit(pb.EmitRequest(event=event(1)), timeout=60)
        await asyncio.to_thread(disk.wait_for, lambda events: ("fdatasync_began", SEGMENT) in events)
        call.cancel()
        for _ in range(20):  # the cancellation goes before these on the same connection
            await server.state()
        disk.let_go.set()
        await peer.until(lambda peer: len(peer.records) == 1)
        assert await server.records() == peer.records
        await server.until_drained()


async def test_what_was_handed_in_when_the_server_stops_is_in_the_ledger(tmp_path: Path) -> None:
    async with omen(tmp_path, closed_port()) as server:
        emissions = await asyncio.gather(*(server.emit(event(n), delivery_timeout=seconds(0)) for n in range(100)))
    assert {emission.position.sequence for emission in emissions} <= {
        record.position.sequence for record in records_of(tmp_path)
    }
