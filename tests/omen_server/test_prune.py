"""PrunePartition: given up is what is sealed, whole, and settled by RiskCast's own word; everything else goes on."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from structlog.testing import capture_logs

from contract.errors import ErrorDetails, Reason
from ledger import Damage, Ledger, LedgerReader, Seal
from omen.v1 import ledger_service_pb2 as pb
from omen.v1 import signal_service_pb2 as signal_pb
from omen.v1.delivery_service_pb2 import DeliveryPhase
from omen.v1.signal_event_pb2 import SignalEvent
from omen_server.upkeep.settlement import flaw_of
from riskcast.v1 import reconcile_service_pb2 as reconcile_pb
from riskcast.v1.reconcile_service_pb2_grpc import ReconcileServiceStub
from tests.ledger.faults import Answers, append_each, flip_byte, segment_of
from tests.omen_server.days import AGES_AGO, DAY, payloads, write_days
from tests.omen_server.running import DEADLINE_S, Omen, Riskcast, closed_port, event, omen, refusal, riskcast
from tests.omen_server.test_ledger_service import replayed
from tests.serving.scraping import scraper

COUNT = 4
IDS = [SignalEvent.FromString(payload).signal_id for payload in payloads(range(COUNT))]


@dataclass(frozen=True)
class Both:
    omen: Omen
    riskcast: Riskcast

    async def reconcile(self) -> reconcile_pb.ReconcileState:
        """The state of the old day after a run."""
        call: Any = ReconcileServiceStub(self.riskcast.channel).Reconcile(
            reconcile_pb.ReconcileRequest(partitions=[DAY]), timeout=DEADLINE_S
        )
        [finished] = [
            message.partition_finished.state async for message in call if message.HasField("partition_finished")
        ]
        state: reconcile_pb.ReconcileState = finished
        return state


@asynccontextmanager
async def both(directory: Path, database: str = "riskcast.db", **settings: Any) -> AsyncIterator[Both]:
    """An OMEN with one sealed day of long ago, and a RiskCast that has all of it."""
    port = closed_port()
    async with (
        omen(directory / "ledger", port, **settings) as server,
        riskcast(directory / database, port, omen_targets=(f"127.0.0.1:{server.port}",), reconcile_interval=0) as store,
    ):
        await server.until_drained()
        await until_sealed(server)
        yield Both(server, store)


async def until_sealed(server: Omen) -> None:
    while not (await summary_of(server)).is_sealed:
        pass


async def summary_of(server: Omen) -> pb.PartitionSummary:
    answer = await server.ledger.GetPartition(pb.GetPartitionRequest(partition=DAY), timeout=DEADLINE_S)
    summary: pb.PartitionSummary = answer.summary
    return summary


async def prune(server: Omen, partition: str = DAY, **request: Any) -> pb.PrunePartitionResponse:
    answer: pb.PrunePartitionResponse = await server.ledger.PrunePartition(
        pb.PrunePartitionRequest(partition=partition, **request), timeout=DEADLINE_S
    )
    return answer


async def refused(server: Omen, **request: Any) -> ErrorDetails:
    return await refusal(prune(server, apply=True, **request))


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (directory / "ledger" / DAY).iterdir()}


@pytest.fixture(autouse=True)
def days(tmp_path: Path) -> None:
    write_days(tmp_path / "ledger", AGES_AGO, count=COUNT)


async def test_what_is_settled_is_given_up_and_only_when_told_to(tmp_path: Path) -> None:
    async with both(tmp_path) as running:
        run_id = (await running.reconcile()).run_id
        before = files(tmp_path)
        would_be = await prune(running.omen)
        assert files(tmp_path) == before
        assert (would_be.summary.is_pruned, would_be.reconcile_run_id) == (False, run_id)
        assert would_be.byte_count == sum(len(data) for name, data in before.items() if name != "SEAL")
        for byte_count, told_by in ((would_be.byte_count, run_id), (0, "")):  # and once more
            done = await prune(running.omen, apply=True)
            assert (done.summary.is_pruned, done.byte_count, done.reconcile_run_id) == (True, byte_count, told_by)
        assert [*files(tmp_path)] == ["SEAL"]


async def test_what_was_given_up_is_no_part_of_what_the_ledger_is_said_to_hold(tmp_path: Path) -> None:
    metrics = scraper()
    names = [f"omen_ledger_{what}" for what in ("records", "bytes", "segments")]
    async with both(tmp_path, metrics_listen=metrics.listen) as running:
        await running.reconcile()
        before = await metrics.scrape()
        await prune(running.omen, apply=True)
        after = await metrics.scrape()
    assert before.maybe("omen_ledger_records") == COUNT
    assert [after.maybe(name) for name in names] == [0, 0, 0]


async def test_whoever_asks_for_what_was_given_up_is_told_so_and_the_rest_goes_on(
    tmp_path: Path,
) -> None:
    async with both(tmp_path) as running:
        await running.omen.emit(event(50))
        await running.reconcile()
        await prune(running.omen, apply=True)
        await assert_it_is_gone(running.omen)
        assert sorted(running.riskcast.ids()) == sorted([*IDS, (await one_signal(running.omen)).signal_id])
        state = await running.reconcile()
        assert (state.status, state.ledger_record_count) == (reconcile_pb.RECONCILE_STATUS_COMPLETED, COUNT)
    async with both(tmp_path) as running:
        await assert_it_is_gone(running.omen)
        assert (await running.omen.state()).backlog_record_count == 0
        assert (await running.omen.emit(event(51))).status == signal_pb.EMISSION_STATUS_DELIVERED
        assert (await running.reconcile()).status == reconcile_pb.RECONCILE_STATUS_COMPLETED
    reader = LedgerReader(tmp_path / "ledger")
    told = [each for info in reader.partitions() for each in reader.verify(info.name)]
    assert not any(isinstance(each, Damage) for each in [*told, *reader.verify_chain()])


async def one_signal(server: Omen) -> SignalEvent:
    answer = await server.signals.ListSignals(signal_pb.ListSignalsRequest(), timeout=DEADLINE_S)
    assert list(answer.unreadable) == []
    [found] = answer.events
    made: SignalEvent = found
    return made


async def assert_it_is_gone(server: Omen) -> None:
    await one_signal(server)  # the one that came later
    get = server.signals.GetSignal(signal_pb.GetSignalRequest(signal_id=IDS[0]), timeout=DEADLINE_S)
    assert (await refusal(get)).reason == Reason.SIGNAL_NOT_FOUND
    _, replay = await replayed(server.replay(DAY))
    _, verification = await replayed(server.ledger.VerifyPartition(pb.VerifyPartitionRequest(partition=DAY)))
    assert replay
    assert verification
    assert replay.reason == verification.reason == Reason.PARTITION_PRUNED
    summary = await summary_of(server)
    assert (summary.is_pruned, summary.is_damaged, summary.record_count) == (True, False, COUNT)


async def test_a_riskcast_that_lost_its_rows_later_is_never_told_to_be_complete(tmp_path: Path) -> None:
    async with both(tmp_path) as running:
        await running.reconcile()
        await prune(running.omen, apply=True)
    async with both(tmp_path, "another.db") as running:
        state = await running.reconcile()
        assert (state.status, state.failed_record_count) == (reconcile_pb.RECONCILE_STATUS_PARTIAL, COUNT)
        assert state.reason.startswith("PARTITION_PRUNED")
        assert (await running.omen.emit(event(52))).status == signal_pb.EMISSION_STATUS_DELIVERED


async def test_a_riskcast_that_comes_back_empty_is_not_sent_what_was_given_up_and_gets_the_rest(tmp_path: Path) -> None:
    port = closed_port()
    async with omen(tmp_path / "ledger", port) as server:
        async with riskcast(tmp_path / "first.db", port):
            kept = await server.emit(event(70))
            await until_sealed(server)
            await prune(server, apply=True, unsettled_reason="in a test")
        with capture_logs() as lines:
            async with riskcast(tmp_path / "second.db", port) as empty:
                await server.until_state(lambda state: state.phase == DeliveryPhase.DELIVERY_PHASE_FOLLOWING)
                await server.emit(event(71))
                await server.until_drained()
                assert len(empty.ids()) == 2
                assert kept.signal_id in empty.ids()
    assert [line for line in lines if line["event"] == "ledger_record_unreadable"] == []


async def test_what_riskcast_has_not_settled_by_its_own_word_is_refused(tmp_path: Path) -> None:
    async with both(tmp_path) as running:
        before = files(tmp_path)
        never = await refused(running.omen)
        assert (never.reason, never.metadata["partition"]) == (Reason.NOT_SETTLED, DAY)
        assert "never reconciled" in never.message
    async with omen(tmp_path / "ledger", closed_port()) as server:
        away = await refused(server)
        assert (away.reason, "does not tell: UNAVAILABLE" in away.message) == (Reason.NOT_SETTLED, True)
        assert (await refusal(prune(server))).reason == Reason.NOT_SETTLED  # nor is it promised
    assert files(tmp_path) == before


SEAL = Seal("a ledger", DAY, False, 1_000_000, COUNT, 99, 1, 1, None, ())
SETTLED = {"status": reconcile_pb.RECONCILE_STATUS_COMPLETED, "ledger_record_count": COUNT, "highwater_sequence": 99}


@pytest.mark.parametrize(
    ("change", "flaw"),
    [
        ({}, ""),
        ({"status": reconcile_pb.RECONCILE_STATUS_PARTIAL, "reason": "NOT_FETCHED"}, "ended PARTIAL: NOT_FETCHED"),
        ({"status": reconcile_pb.RECONCILE_STATUS_FAILED}, "ended FAILED"),
        ({"status": reconcile_pb.RECONCILE_STATUS_SKIPPED}, "ended SKIPPED"),
        ({"ledger_record_count": COUNT - 1}, "counted 3 records"),
        ({"highwater_sequence": 98}, "up to 98"),
        ({"failed_record_count": 1}, "1 of them failed"),
        ({"finished_at": Timestamp(seconds=1)}, "before it was sealed"),
    ],
)
def test_a_state_shows_that_all_is_settled_only_if_everything_in_it_does(change: dict[str, Any], flaw: str) -> None:
    state = reconcile_pb.ReconcileState(**{"finished_at": Timestamp(seconds=2), **SETTLED, **change})
    found = flaw_of(state, SEAL)
    assert flaw in found
    assert bool(found) == bool(flaw)


async def test_what_was_reconciled_before_it_was_sealed_is_refused(tmp_path: Path) -> None:
    async with both(tmp_path) as running:
        assert (await running.reconcile()).status == reconcile_pb.RECONCILE_STATUS_COMPLETED
    (tmp_path / "ledger" / DAY / "SEAL").unlink()  # so it is sealed once more, later
    async with both(tmp_path) as running:
        early = await refused(running.omen)
        assert (early.reason, "before it was sealed" in early.message) == (Reason.NOT_SETTLED, True)
        await running.reconcile()
        assert (await prune(running.omen, apply=True)).summary.is_pruned


async def test_what_may_still_grow_is_refused(tmp_path: Path) -> None:
    async with omen(tmp_path / "ledger", closed_port()) as server:
        emission = await server.emit(event(60), wait_for=signal_pb.WAIT_FOR_LEDGER)
        for reason in ("", "I know better"):
            error = await refused(server, partition=emission.position.partition, unsettled_reason=reason)
            assert error.reason == Reason.NOT_SEALED
        absent = await refused(server, partition="2020-01-01")
        assert absent.reason == Reason.PARTITION_NOT_FOUND


@pytest.mark.parametrize("reason", ["", "I know better"])
async def test_damage_that_nobody_knew_of_is_found_and_nothing_is_given_up(tmp_path: Path, reason: str) -> None:
    async with both(tmp_path) as running:
        await running.reconcile()
        path = segment_of(tmp_path / "ledger", 1, DAY)
        path.chmod(0o600)
        flip_byte(path, path.stat().st_size // 2)
        before = files(tmp_path)
        assert (await refused(running.omen, unsettled_reason=reason)).reason == Reason.LEDGER_DAMAGED
        assert files(tmp_path) == before


async def test_an_operator_may_give_up_what_is_not_settled_for_a_reason_that_is_logged(tmp_path: Path) -> None:
    async with omen(tmp_path / "ledger", closed_port()) as server:
        await until_sealed(server)
        too_long = await refused(server, unsettled_reason="x" * 501)
        assert [each.field for each in too_long.violations] == ["unsettled_reason"]
        with capture_logs() as lines:
            await prune(server, unsettled_reason="the consumer is gone")
            assert [line for line in lines if line["event"] != "call"] == []
            done = await prune(server, apply=True, unsettled_reason=" the consumer is gone ")
        assert (done.summary.is_pruned, done.reconcile_run_id) == (True, "")
    told = {line["event"]: line for line in lines}
    assert told["partition_given_up_unsettled"]["reason"] == "the consumer is gone"
    assert told["partition_given_up_unsettled"]["log_level"] == "warning"
    assert (told["partition_pruned"]["partition"], told["partition_pruned"]["records"]) == (DAY, COUNT)
    assert told["partition_pruned"]["bytes"] == done.byte_count


async def test_a_replay_that_is_under_way_is_told_that_its_records_go(tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "ledger")
    answers = Answers()
    with Ledger.open(tmp_path / "ledger", on_commit=answers, now=lambda: AGES_AGO) as ledger:
        large = [b"%d" % number + bytes(200_000) for number in range(60)]  # more than a stream takes unread
        append_each(ledger, answers, large, AGES_AGO)
    async with omen(tmp_path / "ledger", closed_port()) as server:
        await until_sealed(server)
        call = server.replay(DAY)
        await anext(aiter(call))
        await prune(server, apply=True, unsettled_reason="in a test")
        _, error = await replayed(call)
    assert error
    assert error.reason == Reason.PARTITION_PRUNED
