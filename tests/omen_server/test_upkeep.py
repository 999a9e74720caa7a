"""What OMEN does for its ledger unasked, and what it does when asked: sealing, and re-reading every byte."""

import asyncio
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from contract.errors import Reason
from ledger import LedgerReader
from omen.v1 import ledger_service_pb2 as pb
from omen_server.journal import open_journal
from omen_server.scrub import scrub
from omen_server.sealing import seal_due
from omen_server.tasks import beside
from tests.ledger.faults import flip_byte, segment_of
from tests.omen_server.days import AGES_AGO, DAY, NEXT_DAY, write_days
from tests.omen_server.running import DEADLINE_S, Omen, closed_port, omen, refusal

TODAY = datetime.now(UTC)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


def damage_third_record(directory: Path) -> int:
    """Its sequence."""
    record = list(LedgerReader(directory).records(DAY))[2]
    segment = segment_of(directory, 1, DAY)
    flip_byte(segment, segment.read_bytes().index(record.payload) + 10)
    return record.position.sequence


def cut_footer(directory: Path) -> None:
    """Then opening reads the segment instead of trusting it."""
    [segment] = LedgerReader(directory).partition(DAY).segments
    os.truncate(segment_of(directory, 1, DAY), segment.byte_length)


async def partition(server: Omen, name: str = DAY) -> Any:
    return await server.ledger.GetPartition(pb.GetPartitionRequest(partition=name), timeout=DEADLINE_S)


async def verification(server: Omen, name: str = DAY) -> list[pb.VerifyPartitionResponse]:
    return [answer async for answer in server.ledger.VerifyPartition(pb.VerifyPartitionRequest(partition=name))]


def seal(server: Omen, name: str) -> Any:
    return server.ledger.SealPartition(pb.SealPartitionRequest(partition=name), timeout=DEADLINE_S)


async def sealed(server: Omen, name: str) -> Any:
    """The partition as soon as it is sealed; nobody has asked for it."""
    async with asyncio.timeout(DEADLINE_S):
        while not (told := await partition(server, name)).summary.is_sealed:
            pass
    return told


async def test_what_is_due_is_sealed_unasked_and_what_is_not_stays_open(ledger: Path) -> None:
    write_days(ledger, AGES_AGO, AGES_AGO + timedelta(days=1), TODAY)
    async with omen(ledger, closed_port()) as server:
        first, second = await sealed(server, DAY), await sealed(server, NEXT_DAY)
        today = await partition(server, TODAY.date().isoformat())
    assert [told.summary.record_count for told in (first, second, today)] == [4, 4, 4]
    assert not today.summary.is_sealed
    assert first.manifest_revision == 1
    assert today.manifest_revision == 0


async def test_sealing_answers_with_the_seal_and_repeating_it_changes_nothing(ledger: Path) -> None:
    write_days(ledger)
    async with omen(ledger, closed_port()) as server:
        first, again = await seal(server, DAY), await seal(server, DAY)
    before = (ledger / DAY / "SEAL").read_bytes()
    async with omen(ledger, closed_port()) as server:
        after_a_restart = await seal(server, DAY)
    assert first == again == after_a_restart
    assert first.summary.is_sealed
    assert first.sealed_at.ToMicroseconds() == json.loads(before)["manifest"]["sealed_at"]
    assert (ledger / DAY / "SEAL").read_bytes() == before


async def test_what_is_not_due_is_refused_with_the_moment_it_will_be(ledger: Path) -> None:
    write_days(ledger, TODAY)
    today = TODAY.date().isoformat()
    async with omen(ledger, closed_port()) as server:
        error = await refusal(seal(server, today))
        due_at = (await partition(server, today)).summary.due_at
    assert error.reason == Reason.NOT_DUE
    assert datetime.fromisoformat(error.metadata["due_at"]) == due_at.ToDatetime(UTC)


async def test_a_partition_that_is_not_there_is_neither_sealed_nor_verified(ledger: Path) -> None:
    async with omen(ledger, closed_port()) as server:
        unsealed = await refusal(seal(server, DAY))
        unread = await refusal(server.ledger.VerifyPartition(pb.VerifyPartitionRequest(partition=DAY)).read())
    assert unsealed.reason == unread.reason == Reason.PARTITION_NOT_FOUND


async def test_a_damaged_partition_is_not_sealed_and_the_sequences_are_named(ledger: Path) -> None:
    write_days(ledger)
    sequence = damage_third_record(ledger)
    cut_footer(ledger)
    async with omen(ledger, closed_port()) as server:
        error = await refusal(seal(server, DAY))
        assert not (await partition(server)).summary.is_sealed
    assert (error.reason, error.metadata["sequences"]) == (Reason.LEDGER_DAMAGED, str(sequence))


async def test_verifying_reads_every_byte_and_names_what_is_damaged(ledger: Path) -> None:
    write_days(ledger)
    async with omen(ledger, closed_port()) as server:
        await sealed(server, DAY)
        whole = await verification(server)
    sequence = damage_third_record(ledger)
    async with omen(ledger, closed_port()) as server:
        hurt = await verification(server)
        told = await partition(server)
    assert whole[-1].summary.intact_record_count == 4
    assert not any(answer.HasField("damage") for answer in whole)
    progress = [answer.progress for answer in whole if answer.HasField("progress")]
    assert progress[-1].bytes_read == progress[-1].bytes_total == whole[-1].summary.bytes_read > 0
    assert [answer.damage.sequence for answer in hurt if answer.damage.sequence] == [sequence]
    assert (hurt[-1].summary.intact_record_count, hurt[-1].summary.damaged_record_count) == (3, 1)
    assert [(run.first, run.last) for run in told.damaged_sequences] == [(sequence, sequence)]


async def test_rot_in_a_finished_segment_is_found_unasked_and_told_once(
    ledger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_days(ledger)
    sequence = damage_third_record(ledger)
    async with open_journal(ledger) as journal, beside(scrub(journal, bytes_per_s=1 << 30, pause_s=0.001)):
        async with asyncio.timeout(DEADLINE_S):
            while not (info := (await journal.partitions())[0]).damaged:
                pass
        reads = 0
        while reads < 20:  # some more rounds
            reads += len(await journal.partitions())
    assert info.segments[0].damaged == ((3, 3),)
    logged = capsys.readouterr().out
    assert logged.count("ledger_damage_found") == 1
    assert str(sequence) in logged


async def test_a_partition_that_refuses_its_seal_is_told_once_and_the_others_are_sealed(
    ledger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_days(ledger, AGES_AGO, AGES_AGO + timedelta(days=1))
    damage_third_record(ledger)
    cut_footer(ledger)
    async with open_journal(ledger) as journal:
        async with beside(seal_due(journal, lambda: TODAY, check_interval_s=0.001)), asyncio.timeout(DEADLINE_S):
            while not [info for info in await journal.partitions() if info.is_sealed]:
                pass
            for _ in range(20):
                await journal.partitions()
        states = {info.name: info.is_sealed for info in await journal.partitions()}
    assert states == {DAY: False, NEXT_DAY: True}
    assert capsys.readouterr().out.count("partition_not_sealed") == 1
