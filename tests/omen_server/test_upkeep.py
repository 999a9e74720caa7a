"""What OMEN does for its ledger unasked, and what it does when asked: sealing, and re-reading every byte."""

import asyncio
import errno
import json
import os
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Condition
from typing import Any

import pytest

import omen_server.app
from contract.errors import ContractError, Reason
from ledger import Disk, FormatUnsupported, Ledger, LedgerReader, Recovered, SegmentInfo, SegmentState
from omen.v1 import ledger_service_pb2 as pb
from omen_server.journal import Journal, announce, open_journal
from omen_server.services.ledger import VERIFYING_MAX
from omen_server.upkeep.scrub import scrub
from omen_server.upkeep.sealing import seal_due
from serving.tasks import beside
from tests.ledger.faults import Answers, flip_byte, seal_path, segment_of
from tests.ledger.sealed_days import seal_of, write_seal
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


async def test_the_last_day_there_is_hides_no_other_and_is_not_due(ledger: Path) -> None:
    write_days(ledger, TODAY, datetime(9999, 12, 31, 12, tzinfo=UTC))
    async with omen(ledger, closed_port()) as server:
        error = await refusal(seal(server, "9999-12-31"))
        listed = (await server.ledger.ListPartitions(pb.ListPartitionsRequest())).partitions
    assert (error.reason, error.metadata["due_at"][:10]) == (Reason.NOT_DUE, "9999-12-31")
    assert [(each.partition, each.due_at.ToDatetime(UTC).year) for each in listed][1:] == [("9999-12-31", 9999)]


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
    async with (
        open_journal(ledger) as journal,
        beside(scrub(journal, random.Random(1), bytes_per_s=1 << 30, pause_s=0.001)),
    ):
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


class GuardedDisk(Disk):
    """Refuses to read some files, and writes down what verifying reads."""

    def __init__(self) -> None:
        self.refusals: dict[Path, Exception] = {}
        self.opened: list[Path] = []

    def read(self, path: Path, offset: int, size: int) -> bytes:
        if error := self.refusals.get(path):
            raise error
        self.opened.append(path)
        return super().read(path, offset, size)


def refused(path: Path, number: int) -> OSError:
    return OSError(number, os.strerror(number), str(path))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> GuardedDisk:
    """The disk of every OMEN."""
    guarded = GuardedDisk()
    monkeypatch.setattr(omen_server.app, "open_journal", partial(open_journal, disk=guarded))
    return guarded


async def rounds(journal: Journal, disk: GuardedDisk, segment: Path, count: int) -> None:
    """Scrubs until the head of a segment has been read so often."""
    async with beside(scrub(journal, random.Random(1), bytes_per_s=1 << 30, pause_s=0.001)):
        async with asyncio.timeout(DEADLINE_S):
            while disk.opened.count(segment) < count:
                await journal.partitions()


@pytest.mark.parametrize(
    "error", [refused(Path("x"), errno.EMFILE), FormatUnsupported("frame type 9")], ids=["descriptors", "a newer frame"]
)
async def test_scrubbing_goes_on_past_what_cannot_be_read_and_says_so(
    ledger: Path, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    write_days(ledger, AGES_AGO, AGES_AGO + timedelta(days=1))
    disk = GuardedDisk()
    async with open_journal(ledger, disk=disk) as journal:
        disk.refusals[segment_of(ledger, 1, DAY)] = error
        await rounds(journal, disk, segment_of(ledger, 1, NEXT_DAY), 20)
        assert not any(info.damaged for info in await journal.partitions())
    assert "scrub_interrupted" in capsys.readouterr().out


async def test_scrubbing_reads_the_chain_of_the_seals_and_tells_what_is_missing_once(
    ledger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_days(ledger, AGES_AGO, AGES_AGO + timedelta(days=1))
    with Ledger.open(ledger, on_commit=Answers()) as held:
        for name in (DAY, NEXT_DAY):
            held.seal(name)
    write_seal(ledger, replace(seal_of(ledger, NEXT_DAY), previous=None), NEXT_DAY)  # nothing but its number tells
    seal_path(ledger, DAY).unlink()
    disk = GuardedDisk()
    async with open_journal(ledger, disk=disk) as journal:
        await rounds(journal, disk, segment_of(ledger, 1, NEXT_DAY), 40)
    assert capsys.readouterr().out.count("ledger_damage_found") == 1


async def test_scrubbing_begins_anywhere(ledger: Path) -> None:
    write_days(ledger, *(AGES_AGO + timedelta(days=number) for number in range(4)))
    begun = set()
    for seed in range(20):
        disk = GuardedDisk()
        async with open_journal(ledger, disk=disk) as journal:
            of_opening = len(disk.opened)
            async with beside(scrub(journal, random.Random(seed), bytes_per_s=1 << 30)), asyncio.timeout(DEADLINE_S):
                while not (days := [path for path in disk.opened[of_opening:] if path.suffix == ".log"]):
                    await journal.partitions()
        begun.add(days[0].parent.name)
    assert len(begun) == 4


async def test_what_cannot_be_read_now_is_answered_unavailable_and_is_no_damage(
    ledger: Path, disk: GuardedDisk, capsys: pytest.CaptureFixture[str]
) -> None:
    write_days(ledger)
    path = segment_of(ledger, 1, DAY)
    async with omen(ledger, closed_port()) as server:
        await sealed(server, DAY)
        disk.refusals[path] = refused(path, errno.EMFILE)
        unread = await refusal(server.ledger.VerifyPartition(pb.VerifyPartitionRequest(partition=DAY)).read())
        unsent = await refusal(server.replay(DAY).read())
        assert not (await partition(server)).summary.is_damaged
        disk.refusals.clear()
        assert (await verification(server))[-1].summary.intact_record_count == 4
    assert (unread.reason, unread.message) == (Reason.LEDGER_UNAVAILABLE, "the ledger cannot be read now")
    assert (unsent.reason, unsent.message) == (Reason.LEDGER_UNAVAILABLE, "the ledger cannot be read now")
    assert unread.retry_delay_s
    assert str(path) in capsys.readouterr().out


async def test_a_day_that_cannot_be_read_now_is_not_sealed_and_the_ledger_has_not_stopped(
    ledger: Path, disk: GuardedDisk
) -> None:
    write_days(ledger)
    path = segment_of(ledger, 1, DAY)
    async with open_journal(ledger, disk=disk) as journal:
        disk.refusals[path] = refused(path, errno.EMFILE)
        with pytest.raises(ContractError, match="the ledger cannot be read now") as refusal_of_seal:
            await journal.seal(DAY)
        assert refusal_of_seal.value.retry_delay_s
        disk.refusals.clear()
        assert (await journal.seal(DAY)).total_records == 4


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EISDIR, errno.ELOOP, errno.EPERM])
async def test_a_segment_that_nobody_can_read_is_damage(ledger: Path, disk: GuardedDisk, number: int) -> None:
    write_days(ledger)
    path = segment_of(ledger, 1, DAY)
    async with omen(ledger, closed_port()) as server:
        await sealed(server, DAY)
        disk.refusals[path] = refused(path, number)
        hurt = await verification(server)
        told = await partition(server)
    assert hurt[-1].summary.damaged_record_count == 4
    assert told.summary.is_damaged
    assert told.summary.damaged_record_count == 4


class CountingDisk(Disk):
    """How many threads were reading one segment at the same moment; each waits for others to come."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = Condition()
        self._reading = 0
        self.most = 0

    def size(self, path: Path) -> int:
        if path == self._path:
            with self._changed:
                self._reading += 1
                self.most = max(self.most, self._reading)
                self._changed.notify_all()
                self._changed.wait_for(lambda: self.most > VERIFYING_MAX + 1, 0.05)
                self._reading -= 1
        return super().size(path)


async def test_no_more_than_a_few_verifications_read_at_once_and_all_of_them_end(
    ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_days(ledger)
    disk = CountingDisk(segment_of(ledger, 1, DAY))
    monkeypatch.setattr(omen_server.app, "open_journal", partial(open_journal, disk=disk))
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(16))
    async with omen(ledger, closed_port()) as server:
        await sealed(server, DAY)
        all_of_them = await asyncio.gather(*(verification(server) for _ in range(16)))
    assert {answers[-1].summary.intact_record_count for answers in all_of_them} == {4}
    assert 1 < disk.most <= VERIFYING_MAX + 1  # and the scrub


def test_of_thousands_of_damaged_ranges_the_log_of_an_opening_shows_the_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    damaged = tuple((number, number) for number in range(1, 9_000, 2))
    segment = SegmentInfo(DAY, 1, bytes(16), 9_000, 1, damaged, SegmentState.DAMAGED)
    announce(Recovered((segment,), ()))
    logged = capsys.readouterr().out
    assert len(logged) < 500
    assert "4500" in logged


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
