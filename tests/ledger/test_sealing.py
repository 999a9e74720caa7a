"""Sealing: what a SEAL holds, when there is one, and what goes on meanwhile."""

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier, Event, current_thread
from typing import Any

import pytest

from ledger import (
    Disk,
    Ledger,
    LedgerClosed,
    LedgerDamaged,
    LedgerReader,
    NotDue,
    PartitionClosed,
    Position,
    Seal,
    SealState,
)
from ledger.seal import encode_seal
from ledger.times import microseconds_of
from tests.ledger.conftest import OpenLedger
from tests.ledger.decoder import decode_seal
from tests.ledger.faults import (
    DEADLINE_S,
    DUE,
    FIVE,
    LATE,
    NOON,
    TODAY,
    TOMORROW,
    Answers,
    Clock,
    append_each,
    flip_byte,
    seal_path,
    segment_of,
)

TICK = timedelta(microseconds=1)
DAY = timedelta(days=1)


def test_a_seal_holds_what_the_partition_holds(due: Ledger, directory: Path) -> None:
    seal = due.seal(TODAY)
    manifest = decode_seal(seal_path(directory))
    assert (seal.partition, seal.is_late, seal.total_records) == (TODAY, False, 5)
    assert (seal.seal_number, seal.previous, seal.manifest_revision) == (1, None, 1)
    assert (seal.highwater_sequence, seal.sealed_at) == (3 << 32 | 1, microseconds_of(DUE))
    assert [segment.record_count for segment in seal.segments] == [2, 2, 1]
    assert manifest["ledger_id"] == due.ledger_id
    assert seal_path(directory).read_bytes() == encode_seal(seal)
    for reader in (due.reader(), LedgerReader(directory)):
        info = reader.partition(TODAY)
        assert (info.seal, info.is_sealed, info.is_pruned, info.damaged) == (seal, True, False, False)
        assert [record.payload for record in reader.records(TODAY)] == FIVE
    assert {file.stat().st_mode & 0o777 for file in (directory / TODAY).glob("*.log")} == {0o400}


def test_sealing_again_gives_back_the_seal_there_is(
    due: Ledger, directory: Path, open_ledger: OpenLedger, clock: Clock
) -> None:
    seal = due.seal(TODAY)
    before = seal_path(directory).stat()
    clock.moment += DAY
    assert due.seal(TODAY) == seal
    due.close()
    assert due.seal(TODAY) == seal
    assert open_ledger(Answers(), now=clock).seal(TODAY) == seal
    assert seal_path(directory).stat() == before


def test_a_partition_is_due_to_the_microsecond_and_no_longer_once_it_is_sealed(due: Ledger) -> None:
    assert due.due_partitions(DUE - TICK) == []
    assert due.due_partitions(DUE) == [TODAY]
    due.seal(TODAY)
    assert due.due_partitions(DUE + 9 * DAY) == []


def test_what_still_takes_records_is_not_sealed_by_the_ledgers_own_clock(
    due: Ledger, directory: Path, clock: Clock
) -> None:
    clock.moment = DUE - TICK
    with pytest.raises(NotDue, match="2026-01-29 takes records until 2026-01-30T06:00:00") as refusal:
        due.seal(TODAY)
    assert refusal.value.due_at == microseconds_of(DUE)
    assert not seal_path(directory).exists()
    assert not due.partition(TODAY).is_sealed


def test_the_last_day_there_is_never_comes_due(open_ledger: OpenLedger, clock: Clock) -> None:
    answers = Answers()
    ledger = open_ledger(answers, now=clock)
    last_day = datetime(9999, 12, 31, 12, tzinfo=UTC)
    append_each(ledger, answers, [b"x"], last_day)
    for clock.moment in (NOON, datetime.max.replace(tzinfo=UTC)):
        with pytest.raises(NotDue, match="9999-12-31 takes records until 9999-12-31T23:59:59"):
            ledger.seal("9999-12-31")
        assert ledger.due_partitions(clock.moment) == []
    assert ledger.failure is None


def test_what_does_not_exist_is_not_sealed(due: Ledger, directory: Path) -> None:
    with pytest.raises(KeyError):
        due.seal("2026-01-28")
    assert not (directory / "2026-01-28").exists()


def test_a_pruned_partition_gives_back_its_seal_and_stays_closed(
    due: Ledger, directory: Path, open_ledger: OpenLedger, clock: Clock
) -> None:
    seal = replace(due.seal(TODAY), state=SealState.PRUNED)
    due.close()
    for file in (directory / TODAY).glob("*.log"):
        file.unlink()
    seal_path(directory).write_bytes(encode_seal(seal))
    answers = Answers()
    clock.moment = NOON
    ledger = open_ledger(answers, now=clock)
    assert ledger.seal(TODAY) == seal
    assert list(ledger.reader().records(TODAY)) == []  # and that they are gone is no damage
    info = ledger.partition(TODAY)
    assert (info.is_pruned, info.damaged, info.record_count) == (True, False, 5)
    assert info.highwater_sequence == seal.highwater_sequence
    assert append_each(ledger, answers, [b"again"])[0].partition == LATE


def test_a_partition_without_a_segment_is_sealed_empty(open_ledger: OpenLedger, directory: Path, clock: Clock) -> None:
    (directory / TODAY).mkdir(parents=True)
    open_ledger(Answers(), directory.with_name("other")).close()
    (directory.with_name("other") / "ledger.json").rename(directory / "ledger.json")
    clock.moment = DUE
    ledger = open_ledger(Answers(), now=clock)
    seal = ledger.seal(TODAY)
    assert (seal.total_records, seal.highwater_sequence, seal.segments) == (0, 0, ())
    assert LedgerReader(directory).partition(TODAY).seal == seal


def test_a_damaged_partition_is_not_sealed_and_the_refusal_names_the_damage(due: Ledger, directory: Path) -> None:
    offset = segment_of(directory, 2).read_bytes().index(FIVE[3])
    flip_byte(segment_of(directory, 2), offset)
    assert len(list(due.reader().records(TODAY))) == 4  # whoever reads it finds it
    with pytest.raises(LedgerDamaged, match=f"segment 2, sequences {2 << 32 | 2} to {2 << 32 | 2}"):
        due.seal(TODAY)
    assert not seal_path(directory).exists()
    assert due.failure is None


def test_a_segment_that_is_gone_is_damage(due: Ledger, directory: Path) -> None:
    segment_of(directory, 1).unlink()
    with pytest.raises(LedgerDamaged, match=r"segment-00000001\.log is gone"):
        due.seal(TODAY)
    assert due.failure is None


def test_a_sealed_day_goes_to_late_even_when_the_clock_goes_back(
    open_ledger: OpenLedger, due: Ledger, clock: Clock
) -> None:
    due.seal(TODAY)
    due.close()
    clock.moment = NOON
    answers = Answers()
    ledger = open_ledger(answers, now=clock)
    assert append_each(ledger, answers, [b"late"])[0].partition == LATE
    clock.moment = DUE + 3 * DAY
    assert ledger.seal(LATE).is_late
    clock.moment = NOON
    ledger.append(b"too late", NOON, "too late")
    assert isinstance(answers.of("too late")[0], PartitionClosed)


def test_one_seal_comes_of_many_calls_at_once(due: Ledger, directory: Path) -> None:
    together = Barrier(8)

    def call(_: int) -> Seal:
        together.wait(DEADLINE_S)
        return due.seal(TODAY)

    with ThreadPoolExecutor(8) as callers:
        seals = list(callers.map(call, range(8)))
    assert set(seals) == {seals[0]}
    assert seal_path(directory).read_bytes() == encode_seal(seals[0])
    assert seals[0].seal_number == 1


def test_days_sealed_at_once_are_one_chain(open_ledger: OpenLedger, directory: Path, clock: Clock) -> None:
    answers = Answers()
    ledger = open_ledger(answers, now=clock, main_grace_s=30 * 86_400)
    days = [NOON + number * DAY for number in range(12)]
    for day in days:
        append_each(ledger, answers, [str(day).encode()], day)
    clock.moment = NOON + 90 * DAY
    names = ledger.due_partitions(clock.moment)
    with ThreadPoolExecutor(12) as callers:
        seals = sorted(callers.map(ledger.seal, names), key=lambda seal: seal.seal_number)
    assert [seal.seal_number for seal in seals] == list(range(1, 13))
    assert [seal.previous for seal in seals] == [None, *(seal.link for seal in seals[:-1])]
    for seal in seals:
        decode_seal(seal_path(directory, seal.partition))


def test_the_chain_goes_on_after_reopening(due: Ledger, open_ledger: OpenLedger, directory: Path, clock: Clock) -> None:
    first = due.seal(TODAY)
    due.close()
    answers = Answers()
    ledger = open_ledger(answers, now=clock)
    append_each(ledger, answers, [b"next day"], DUE)
    clock.moment += DAY
    second = ledger.seal(TOMORROW)
    assert (second.seal_number, second.previous) == (2, first.link)
    told = decode_seal(seal_path(directory, TOMORROW))["previous"]
    assert told == {"partition": TODAY, "seal_number": 1, "sha256": first.sha256}


class GatherBlocker(Disk):
    """Stops whoever reads a FOOTER of the first segment, outside the flusher, until `release` is set."""

    def __init__(self) -> None:
        self.is_reading = Event()
        self.release = Event()

    def read(self, path: Path, offset: int, size: int) -> bytes:
        if path.name == "segment-00000001.log" and offset > 0 and path.parent.name == TODAY:
            self.is_reading.set()
            assert self.release.wait(DEADLINE_S)
        return super().read(path, offset, size)


def test_appends_are_acknowledged_while_a_day_is_gathered(open_ledger: OpenLedger, clock: Clock) -> None:
    answers, disk = Answers(), GatherBlocker()
    ledger = open_ledger(answers, now=clock, disk=disk, segment_records_max=2)
    append_each(ledger, answers, FIVE)
    clock.moment = DUE
    with ThreadPoolExecutor(1) as caller:
        sealing = caller.submit(ledger.seal, TODAY)
        try:
            assert disk.is_reading.wait(DEADLINE_S)
            assert append_each(ledger, answers, [b"meanwhile"], DUE)[0].partition == TOMORROW
            assert append_each(ledger, answers, [b"late"])[0].partition == LATE
            assert not sealing.done()
        finally:
            disk.release.set()
        assert sealing.result(DEADLINE_S).total_records == 5


def test_what_changed_while_a_day_was_gathered_still_refuses_it(open_ledger: OpenLedger, clock: Clock) -> None:
    answers, disk = Answers(), GatherBlocker()
    ledger = open_ledger(answers, now=clock, disk=disk, segment_records_max=2)
    append_each(ledger, answers, FIVE)
    clock.moment = DUE
    with ThreadPoolExecutor(1) as caller:
        sealing = caller.submit(ledger.seal, TODAY)
        try:
            assert disk.is_reading.wait(DEADLINE_S)
            clock.moment = NOON
        finally:
            disk.release.set()
        with pytest.raises(NotDue):
            sealing.result(DEADLINE_S)
    assert append_each(ledger, answers, [b"not too late"])[0].partition == TODAY


class FlusherDisk(Disk):
    """Counts what the flusher thread asks for."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def __getattribute__(self, name: str) -> Any:
        if current_thread().name == "ledger-flusher":
            super().__getattribute__("counts")[name] += 1
        return super().__getattribute__(name)


@pytest.mark.parametrize("segment_count", [1, 2, 100])
def test_the_flusher_does_the_same_few_things_whatever_the_size_of_the_day(
    open_ledger: OpenLedger, clock: Clock, segment_count: int
) -> None:
    answers, disk = Answers(), FlusherDisk()
    ledger = open_ledger(answers, now=clock, disk=disk, segment_records_max=1, idle_mark_s=3600)
    payloads = [str(number).encode() for number in range(segment_count)]
    for payload in payloads:
        ledger.append(payload, NOON, payload)
    answers.positions(*payloads)
    clock.moment = DUE
    disk.counts.clear()
    assert len(ledger.seal(TODAY).segments) == segment_count
    reads = {"identity": 2, "free_bytes": 1, "read": 1}
    freeze = {"write": 2, "fdatasync": 2, "is_named": 1, "close": 1}  # the mark and the FOOTER
    publish = {"create": 1, "write": 1, "fsync": 1, "rename": 1, "fsync_dir": 1, "close": 1}
    assert disk.counts == Counter(reads) + Counter(freeze) + Counter(publish)


class UncertainClock:
    """From one call to the next one or another of the moments it is given."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self.moments = [NOON]

    def __call__(self) -> datetime:
        return self._chance.choice(self.moments)


@pytest.mark.parametrize("seed", range(10))
def test_every_append_that_races_a_seal_lands_wholly_before_it_or_in_late(
    open_ledger: OpenLedger, directory: Path, seed: int
) -> None:
    answers, clock, started = Answers(), UncertainClock(seed), Barrier(6)
    ledger = open_ledger(answers, now=clock, segment_records_max=7, queue_records_max=10**6)
    append_each(ledger, answers, [b"first"])
    clock.moments = [NOON, DUE]

    def append(number: int) -> None:
        started.wait(DEADLINE_S)
        for count in range(200):
            ledger.append(f"{number}-{count}".encode(), NOON, (number, count))
            if count % 10 == 0:
                answers.of((number, count))

    def seal(_: int) -> Seal:
        started.wait(DEADLINE_S)
        for _ in range(10_000):
            with suppress(NotDue):
                return ledger.seal(TODAY)
        raise AssertionError("it is due every other time")

    with ThreadPoolExecutor(6) as threads:
        appending = [threads.submit(append, number) for number in range(4)]
        sealing = [threads.submit(seal, number) for number in range(2)]
        for future in appending:
            future.result(DEADLINE_S)
        seals = {future.result(DEADLINE_S) for future in sealing}
    append_each(ledger, answers, [b"last"])
    waiters = [b"first", *((number, count) for number in range(4) for count in range(200)), b"last"]
    positions = answers.positions(*waiters)
    (told,) = seals
    main = [position for position in positions if position.partition == TODAY]
    assert len(main) == told.total_records, f"seed {seed}"
    assert max(position.sequence for position in main) == told.highwater_sequence, f"seed {seed}"
    assert {position.partition for position in positions} == {TODAY, LATE}
    for partition in (TODAY, LATE):
        held = {record.position for record in ledger.reader().records(partition)}
        assert held == {position for position in positions if position.partition == partition}, f"seed {seed}"
    decode_seal(seal_path(directory))


def test_what_was_asked_before_close_is_sealed_and_nothing_after(due: Ledger) -> None:
    due.close()
    with pytest.raises(LedgerClosed):
        due.seal(TODAY)
    assert not due.partition(TODAY).is_sealed


def test_seals_beside_a_running_day(due: Ledger, clock: Clock) -> None:
    answers = due._on_commit
    assert isinstance(answers, Answers)
    before = append_each(due, answers, [b"a"], DUE)
    due.seal(TODAY)
    after = append_each(due, answers, [b"b"], DUE)
    assert [position.sequence for position in (*before, *after)] == [1 << 32 | 1, 1 << 32 | 2]
    assert isinstance(after[0], Position)
