"""What OMEN outlives, and what it says while it does."""

import errno
import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

import omen_server.app
import serving
from contract.errors import Reason
from ledger import Disk, LedgerSettings
from omen.v1 import signal_service_pb2 as pb
from omen.v1.ledger_service_pb2 import ListPartitionsRequest
from omen.v1.signal_service_pb2_grpc import SignalServiceStub
from omen_server.journal import open_journal
from tests.omen_server.running import DEADLINE_S, LEDGER_ONLY, closed_port, event, omen, records_of, refusal, seconds
from tests.omen_server.scripted_riskcast import answering, hanging, peer_of


class UnreadableDisk(Disk):
    """Reads fail as from a bad sector until it is mended."""

    is_mended = False

    def read(self, path: Path, offset: int, size: int) -> bytes:
        if path.suffix == ".log" and not self.is_mended:
            raise OSError(errno.EIO, "bad sector")
        return super().read(path, offset, size)


async def test_a_segment_that_cannot_be_read_now_is_delivered_when_it_can_and_meanwhile_calls_are_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = UnreadableDisk()
    disk.is_mended = True
    opened = partial(open_journal, settings=LedgerSettings(free_bytes_min=0), disk=disk)
    monkeypatch.setattr(omen_server.app, "open_journal", opened)
    port = closed_port()
    async with omen(tmp_path, port) as server:
        await server.to_ledger(1)
        disk.is_mended = False
        async with peer_of(answering(), listen=f"127.0.0.1:{port}") as peer:
            await server.until_state(lambda state: state.last_error == "the ledger could not be read")
            await server.to_ledger(2)
            disk.is_mended = True
            await server.until_drained()
            assert len(peer.records) == 2


async def test_whoever_waits_for_riskcast_when_omen_stops_hears_that_the_signal_is_in_the_ledger(
    tmp_path: Path,
) -> None:
    async with peer_of(hanging) as peer, AsyncExitStack() as after:
        async with omen(tmp_path, peer.port) as server:
            channel = await after.enter_async_context(serving.channel(f"127.0.0.1:{server.port}"))
            request = pb.EmitRequest(event=event(1), delivery_timeout=seconds(60))
            waiting = SignalServiceStub(channel).Emit(request, timeout=60)
            await peer.until(lambda peer: len(peer.records) == 1)
            began = time.monotonic()
        emission = (await waiting).emission
        assert time.monotonic() - began < DEADLINE_S  # it would have waited for three times as long
    assert emission.status == LEDGER_ONLY
    assert emission.ledger_only_reason == "OMEN is shutting down"
    assert [record.position.sequence for record in records_of(tmp_path)] == [emission.position.sequence]


async def test_what_cannot_be_derived_is_not_asked_for_what_it_derives_from_is(tmp_path: Path) -> None:
    nameless = event(1)
    nameless.ClearField("source_event_id")
    async with peer_of(answering()) as peer, omen(tmp_path, peer.port) as server:
        refused = await refusal(server.emit(nameless))
    assert refused.reason == Reason.INVALID_SIGNAL
    assert [violation.field for violation in refused.violations] == ["source_event_id"]


async def test_riskcasts_address_is_not_told_to_whoever_emits(tmp_path: Path) -> None:
    async with peer_of(answering()) as peer:
        port = peer.port
    async with omen(tmp_path, port) as server:
        emission = await server.emit(event(1))
    assert emission.ledger_only_reason == "RiskCast cannot be reached: UNAVAILABLE"


def truncate_the_only_segment(directory: Path) -> None:
    [segment] = directory.glob("*/segment-*.log")
    segment.write_bytes(b"")


async def test_damage_is_logged_when_the_ledger_is_opened_and_told_even_where_no_record_is_known_to_be_hit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with peer_of(answering()) as peer:
        async with omen(tmp_path, peer.port) as server:
            await server.emit(event(1))
        truncate_the_only_segment(tmp_path)
        async with omen(tmp_path, peer.port) as server:
            partitions = await server.ledger.ListPartitions(ListPartitionsRequest(), timeout=10)
    assert [partition.is_damaged for partition in partitions.partitions] == [True]
    assert "ledger_segment_damaged" in capsys.readouterr().out


def leave_a_seal_that_says_nothing(directory: Path) -> None:
    [segment] = directory.glob("*/segment-*.log")
    segment.with_name("SEAL").write_text("rot")


async def test_a_seal_that_cannot_be_read_is_logged_when_the_ledger_is_opened_and_told_as_damage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with peer_of(answering()) as peer:
        async with omen(tmp_path, peer.port) as server:
            await server.emit(event(1))
        leave_a_seal_that_says_nothing(tmp_path)
        async with omen(tmp_path, peer.port) as server:
            partitions = await server.ledger.ListPartitions(ListPartitionsRequest(), timeout=10)
    assert [(told.is_sealed, told.is_damaged) for told in partitions.partitions] == [(True, True)]
    assert "ledger_seal_damaged" in capsys.readouterr().out
