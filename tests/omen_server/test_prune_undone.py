"""PrunePartition and what may change meanwhile: dead letters, the rows RiskCast has, and whether anybody still asks."""

import asyncio
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

import omen_server.upkeep.retention
from contract.errors import Reason
from ledger import Disk, Ledger, PartitionInfo
from omen.v1.delivery_service_pb2 import PauseDeliveryRequest
from omen.v1.signal_event_pb2 import SignalEvent
from omen_server.dead_letters import DeadLetters
from omen_server.delivery import Delivery
from omen_server.upkeep.settlement import Settlement
from riskcast.v1 import reconcile_service_pb2 as reconcile_pb
from tests.omen_server.days import AGES_AGO, DAY, payloads, write_days
from tests.omen_server.letters import Door, drop, listed, redrive
from tests.omen_server.running import DEADLINE_S, Omen, closed_port, omen, refusal
from tests.omen_server.test_prune import COUNT, Both, both, files, prune, refused, summary_of, until_sealed

TITLES = [SignalEvent.FromString(payload).signal.title for payload in payloads(range(COUNT))]
COMPLETED = reconcile_pb.RECONCILE_STATUS_COMPLETED


@pytest.fixture(autouse=True)
def days(tmp_path: Path) -> None:
    write_days(tmp_path / "ledger", AGES_AGO, count=COUNT)


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Door:
    refusing = Door(monkeypatch)
    refusing.refused.update(TITLES)
    return refusing


async def dropped_and_reconciled(running: Both) -> None:
    assert await drop(running.omen, "a test", partition=DAY) == COUNT
    assert (await running.reconcile()).status == COMPLETED


async def redriven(server: Omen) -> int:
    return await redrive(server, positions=[letter.record.position for letter in await listed(server)])


async def states(server: Omen) -> list[tuple[int, bool, str]]:
    """Of each dead letter: its attempts, whether it is being redriven, why it was dropped."""
    found = await listed(server)
    return [(each.attempt_count, each.HasField("redrive_requested_at"), each.drop_reason) for each in found]


async def test_a_dead_letter_that_is_taken_up_again_after_a_complete_reconcile_keeps_its_day(
    tmp_path: Path, door: Door
) -> None:
    async with both(tmp_path) as running:
        await dropped_and_reconciled(running)
        assert await redriven(running.omen) == COUNT
        while {again := (2, False, "")} != {*await states(running.omen)}:  # rejected once more
            pass
        for apply in (False, True):
            error = await refusal(prune(running.omen, apply=apply))
            assert (error.reason, "that are not dropped" in error.message) == (Reason.NOT_SETTLED, True)
        assert await states(running.omen) == [again] * COUNT
        door.refused.clear()
        assert await redriven(running.omen) == COUNT
        await running.omen.until_drained()
        while await listed(running.omen):
            pass
        await running.reconcile()
        assert (await prune(running.omen, apply=True)).summary.is_pruned
        assert len(running.riskcast.ids()) == COUNT


async def test_a_dead_letter_that_is_redriven_while_the_day_is_read_keeps_its_day(
    tmp_path: Path, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After everything else was found to be settled."""
    async with both(tmp_path) as running:
        await dropped_and_reconciled(running)
        await running.omen.delivery.PauseDelivery(PauseDeliveryRequest(reason="maintenance"), timeout=DEADLINE_S)
        asked: list[PartitionInfo] = []
        real = Settlement.settled_by

        async def then_redriven(settlement: Settlement, info: PartitionInfo) -> str:
            run_id = await real(settlement, info)
            asked.append(info)
            if len(asked) == 2:
                assert await redriven(running.omen) == COUNT
            return run_id

        monkeypatch.setattr(Settlement, "settled_by", then_redriven)
        error = await refused(running.omen)
        assert (error.reason, "4 of its dead letters are not dropped" in error.message) == (Reason.NOT_SETTLED, True)
        assert not (await summary_of(running.omen)).is_pruned


async def test_what_riskcast_rejected_and_nobody_has_given_up_keeps_its_day(
    tmp_path: Path, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if delivery.db had been lost since the last Reconcile."""
    async with both(tmp_path) as running:
        await dropped_and_reconciled(running)
    for path in (tmp_path / "ledger").glob("delivery.db*"):
        path.unlink()
    monkeypatch.setattr(DeadLetters, "unknown", lambda letters, rejected: {})  # delivery does not ask for them yet
    async with both(tmp_path) as running:
        assert await listed(running.omen) == []
        error = await refused(running.omen)
        assert (error.reason, "rejected 4 records" in error.message) == (Reason.NOT_SETTLED, True)


async def test_rows_that_riskcast_lost_since_its_last_reconcile_keep_their_day(tmp_path: Path) -> None:
    async with both(tmp_path) as running:
        assert (await running.reconcile()).status == COMPLETED
        lose_a_row(tmp_path / "riskcast.db")
        for apply in (False, True):
            error = await refusal(prune(running.omen, apply=apply))
            assert (error.reason, "settled 1 records" in error.message) == (Reason.NOT_SETTLED, True)
        assert (await running.reconcile()).status == COMPLETED
        assert (await prune(running.omen, apply=True)).summary.is_pruned
        assert len(running.riskcast.ids()) == COUNT


async def test_rows_that_riskcast_lost_while_the_day_was_read_keep_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with both(tmp_path) as running:
        await running.reconcile()
        real = Ledger.prune

        def prune_later(ledger: Ledger, partition: str) -> Any:
            lose_a_row(tmp_path / "riskcast.db")
            return real(ledger, partition)

        monkeypatch.setattr(Ledger, "prune", prune_later)
        assert (await refused(running.omen)).reason == Reason.NOT_SETTLED
        assert not (await summary_of(running.omen)).is_pruned


def lose_a_row(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        lost = connection.execute("DELETE FROM signals WHERE signal_id = (SELECT min(signal_id) FROM signals)")
        assert lost.rowcount == 1


async def test_what_an_override_leaves_is_given_up_for_its_reason_and_cannot_be_redriven(
    tmp_path: Path, door: Door
) -> None:
    async with both(tmp_path) as running:
        await prune(running.omen, apply=True, unsettled_reason="the consumer is gone")
        assert await states(running.omen) == [(1, False, f"{DAY} was pruned: the consumer is gone")] * COUNT
        door.refused.clear()
        for _ in range(2):
            for picked in ({"partition": DAY}, {"positions": [(await listed(running.omen))[0].record.position]}):
                error = await refusal(redrive(running.omen, **picked))
                assert (error.reason, error.metadata["partition"]) == (Reason.PARTITION_PRUNED, DAY)
        assert await redrive(running.omen, reason="INVALID_SIGNAL") == 0
    async with both(tmp_path) as running:
        assert (await refusal(redrive(running.omen, partition=DAY))).reason == Reason.PARTITION_PRUNED


async def test_killed_between_the_seal_and_its_dead_letters_they_are_given_up_at_the_next_start(
    tmp_path: Path, door: Door
) -> None:
    async with both(tmp_path):
        pass
    with Ledger.open(tmp_path / "ledger", on_commit=lambda results, written_at: None) as ledger:
        for _ in ledger.prune(DAY):
            pass
    async with omen(tmp_path / "ledger", closed_port()) as server:
        assert await states(server) == [(1, False, f"{DAY} was pruned")] * COUNT
        assert (await refusal(redrive(server, partition=DAY))).reason == Reason.PARTITION_PRUNED


@pytest.mark.parametrize("is_lost", [False, True], ids=["one is garbled", "the file is lost"])
async def test_dead_letters_of_a_pruned_day_that_are_forgotten_stand_in_no_reconciles_way(
    tmp_path: Path, door: Door, is_lost: bool
) -> None:
    file = tmp_path / "ledger" / "delivery.db"
    async with both(tmp_path) as running:
        await dropped_and_reconciled(running)
        assert (await prune(running.omen, apply=True)).summary.is_pruned
    if is_lost:
        file.unlink()
    else:
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("UPDATE dead_letters SET checksum = 1 WHERE number = 2")
    async with both(tmp_path) as running:
        told = await running.reconcile()
        assert (told.status, told.failed_record_count) == (COMPLETED, 0)
        assert len(await listed(running.omen)) == (0 if is_lost else COUNT - 1)


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The partitions that delivery was told of."""
    told: list[str] = []
    real = Delivery.forget

    def forget(delivery: Delivery, partition: str) -> None:
        told.append(partition)
        real(delivery, partition)

    monkeypatch.setattr(Delivery, "forget", forget)
    return told


async def test_though_whoever_asked_leaves_in_the_removal_it_is_logged_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgotten: list[str]
) -> None:
    removing, goes_on = threading.Event(), threading.Event()
    real = Disk.unlink

    def waits(disk: Disk, path: Path) -> None:
        if path.suffix == ".log":
            removing.set()
            assert goes_on.wait(DEADLINE_S)
        real(disk, path)

    monkeypatch.setattr(Disk, "unlink", waits)
    async with both(tmp_path) as running:
        run_id = (await running.reconcile()).run_id
        with capture_logs() as lines:
            asking = asyncio.create_task(prune(running.omen, apply=True))
            assert await asyncio.to_thread(removing.wait, DEADLINE_S)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await summary_of(running.omen)  # on the same connection: OMEN knows of it too
            assert forgotten == [DAY]  # before the first file is gone
            again = asyncio.create_task(prune(running.omen, apply=True))  # waits for its turn
            goes_on.set()
            assert ((await again).byte_count, (await again).summary.is_pruned) == (0, True)
        assert [*files(tmp_path)] == ["SEAL"]
        assert forgotten == [DAY, DAY]
        [line] = [line for line in lines if line["event"] == "partition_pruned"]
        assert (line["records"], line["run_id"], line["bytes"] > 0) == (COUNT, run_id, True)


async def test_what_delivery_db_did_not_take_is_done_by_a_repeat(
    tmp_path: Path, door: Door, monkeypatch: pytest.MonkeyPatch, forgotten: list[str]
) -> None:
    async with both(tmp_path) as running:
        (tmp_path / "ledger" / "delivery.db").rename(tmp_path / "away")
        assert (await refused(running.omen, unsettled_reason="x")).reason == Reason.LEDGER_UNAVAILABLE
        assert (await summary_of(running.omen)).is_pruned
        (tmp_path / "away").rename(tmp_path / "ledger" / "delivery.db")
        with capture_logs() as lines:
            assert (await prune(running.omen, apply=True, unsettled_reason="x")).byte_count > 0
        assert await states(running.omen) == [(1, False, f"{DAY} was pruned: x")] * COUNT
        assert forgotten == [DAY, DAY]
        assert [line["event"] for line in lines if line["event"].startswith("partition")] == ["partition_pruned"]


async def test_days_are_read_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading: list[int] = [0]
    real = omen_server.upkeep.retention.Retention._ready

    async def counted(retention: Any, *what: Any) -> None:
        reading.append(reading[-1] + 1)
        await real(retention, *what)
        reading.append(reading[-1] - 1)

    monkeypatch.setattr(omen_server.upkeep.retention.Retention, "_ready", counted)
    async with omen(tmp_path / "ledger", closed_port()) as server:
        await until_sealed(server)
        asked = [prune(server, apply=True, unsettled_reason="x") for _ in range(3)]
        assert sorted(answer.byte_count > 0 for answer in await asyncio.gather(*asked)) == [False, False, True]
    assert reading == [0, 1, 0]
