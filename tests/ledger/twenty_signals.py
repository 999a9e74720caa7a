"""One small run that passes through everything a writer does, to be failed at each of its operations in turn.

Twenty signals in six batches for two partitions, five to a segment: opening, new directories, rollover within a batch
and between two, an idle mark after each batch, a clean close. The nth operation is the same in each run.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from time import monotonic

import pytest

from ledger import Ledger, LedgerClosed, LedgerFull, LedgerReader, LedgerSettings, LedgerUnavailable, Position
from tests.ledger.faults import NOON, TODAY, Answers, FaultyDisk, append_each, at_noon, one_batch

LATE = "2026-01-28-late"
SETTINGS = LedgerSettings(free_bytes_min=0, segment_records_max=5, idle_mark_s=0.0)
REFUSED_WITHIN_S = 5.0  # a second, where nobody else takes the processor; half of what Answers waits
SIGNALS = [f"signal-{number}-".encode() + bytes(number * 7) for number in range(20)]
BATCHES = [SIGNALS[start:stop] for start, stop in pairwise((0, 1, 3, 8, 9, 13, 20))]
QUEUED = [b"queued at the moment of the failure", b"and another"]


def moment_of(signal: bytes) -> datetime:
    """Every third one is of the day before, which is late by noon."""
    return NOON - timedelta(days=signal in SIGNALS[::3])


def partition_of(signal: bytes) -> str:
    return LATE if moment_of(signal) < NOON else TODAY


@dataclass
class Told:
    """What the callers of one run were told. `tried` is what append() has taken."""

    has_opened: bool = False
    tried: list[bytes] = field(default_factory=list)
    acknowledged: dict[bytes, Position] = field(default_factory=dict)


def run(directory: Path, disk: FaultyDisk) -> Told:
    """Appends until refused, then closes. Whatever fails, every waiter has a typed answer at once."""
    told = Told()
    answers = Answers(disk.events)
    try:
        ledger = Ledger.open(directory, on_commit=answers, settings=SETTINGS, disk=disk, now=at_noon)
    except (LedgerUnavailable, LedgerFull):
        assert disk.has_failed
        return told
    told.has_opened = True
    disk.when_failing = lambda: _queue_more(ledger)
    for batch in BATCHES:
        if not _is_taken(ledger, disk, answers, batch, told):
            break
    if disk.has_failed:
        _assert_it_has_stopped(ledger, answers, told)
    close_in_time(ledger)
    if disk.has_failed:
        assert isinstance(ledger.failure, LedgerUnavailable)
        assert_nothing_follows_the_failure(disk)
    return told


def _queue_more(ledger: Ledger) -> None:
    """While close() is what fails, there is no queue left."""
    for payload in QUEUED:
        try:
            ledger.append(payload, NOON, payload)
        except LedgerClosed:
            return


def _is_taken(ledger: Ledger, disk: FaultyDisk, answers: Answers, batch: list[bytes], told: Told) -> bool:
    try:
        with one_batch(ledger):
            for payload in batch:
                ledger.append(payload, moment_of(payload), payload)
                told.tried.append(payload)
    except LedgerUnavailable:  # a mark has failed meanwhile
        return False
    started = monotonic()
    given = answers.of(*batch)
    assert monotonic() - started < REFUSED_WITHIN_S
    told.acknowledged |= {
        signal: answer for signal, answer in zip(batch, given, strict=True) if isinstance(answer, Position)
    }
    _wait_until_idle(disk, batch)
    return not disk.has_failed


def _wait_until_idle(disk: FaultyDisk, batch: list[bytes]) -> None:
    """Until the mark in each file that the batch ended in is being synced: then the next batch cannot forestall it."""
    touched = len({partition_of(signal) for signal in batch})

    def is_idle(events: list[tuple[str, object]]) -> bool:
        kinds = [kind for kind, _ in events]
        acknowledged_at = len(kinds) - kinds[::-1].index("ack") if "ack" in kinds else 0
        return "failed" in kinds or kinds[acknowledged_at:].count("fdatasync") >= touched

    disk.wait_for(is_idle)


def _assert_it_has_stopped(ledger: Ledger, answers: Answers, told: Told) -> None:
    """Also for those who came while it failed: they have their answer in time, and no one after them gets in."""
    started = monotonic()
    refused = answers.of(*QUEUED, *(signal for signal in told.tried if signal not in told.acknowledged))
    assert monotonic() - started < REFUSED_WITHIN_S
    assert {type(answer) for answer in refused} == {LedgerUnavailable}
    assert isinstance(ledger.failure, LedgerUnavailable)
    with pytest.raises(LedgerUnavailable):
        ledger.append(b"later", NOON, "later")
    for partition in {partition_of(signal) for signal in told.acknowledged}:
        assert_it_holds(ledger.reader(), partition, told)


def assert_it_holds(reader: LedgerReader, partition: str, told: Told, *more: bytes) -> None:
    """Every acknowledged record, of the others a prefix, nothing that was refused before it was written."""
    held = [record.payload for record in reader.records(partition)]
    tried = [signal for signal in told.tried if partition_of(signal) == partition]
    count = len(held) - len(more)
    assert held == [*tried[:count], *more]
    assert count >= sum(partition_of(signal) == partition for signal in told.acknowledged)


def close_in_time(ledger: Ledger) -> None:
    started = monotonic()
    ledger.close()
    assert monotonic() - started < REFUSED_WITHIN_S


def assert_nothing_follows_the_failure(disk: FaultyDisk) -> None:
    kinds = [kind for kind, _ in disk.events]
    after = kinds[kinds.index("failed") + 1 :]
    assert not {"ack", "write", "fdatasync", "rename", "create"} & set(after), after


def assert_it_serves_again(directory: Path, told: Told) -> None:
    """Without damage, with every acknowledged record where it was said to be."""
    answers = Answers()
    with Ledger.open(directory, on_commit=answers, settings=SETTINGS, now=at_noon) as ledger:
        assert not any(info.damaged for info in ledger.partitions())
        append_each(ledger, answers, [b"after"])
        append_each(ledger, answers, [b"late after"], NOON - timedelta(days=1))
        assert_it_holds(ledger.reader(), TODAY, told, b"after")
        assert_it_holds(ledger.reader(), LATE, told, b"late after")
        for signal, position in told.acknowledged.items():
            record = next(ledger.reader().records(position.partition, from_sequence=position.sequence))
            assert (record.payload, record.position) == (signal, position)
