"""A SEAL that cannot be read: its partition stays sealed and is served, and the chain goes on."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from ledger import (
    FormatUnsupported,
    LedgerDamaged,
    LedgerReader,
    Recovered,
    Seal,
    SegmentState,
)
from ledger.seal import encode_seal
from tests.ledger.conftest import OpenLedger
from tests.ledger.faults import (
    DUE,
    FIVE,
    LATE,
    NOON,
    TODAY,
    TOMORROW,
    Answers,
    Clock,
    append_each,
    seal_path,
    served,
)

DAY = timedelta(days=1)


def test_whichever_byte_of_a_seal_rots_the_partition_stays_sealed_and_is_served(sealed: Path) -> None:
    whole = seal_path(sealed).read_bytes()
    reader = LedgerReader(sealed)
    for at in range(len(whole)):
        for bit in (0x02, 0xFF):
            seal_path(sealed).write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
            info = reader.partition(TODAY)
            assert (info.is_sealed, info.is_seal_damaged, info.damaged, info.seal) == (True, True, True, None), at
            assert {segment.state for segment in info.segments} == {SegmentState.FROZEN}
            assert info.record_count == 5
    assert served(sealed) == FIVE


def in_another_ledger(seal: Seal) -> bytes:
    return encode_seal(replace(seal, ledger_id="another"))


def of_another_partition(seal: Seal) -> bytes:
    return encode_seal(replace(seal, partition=LATE))


DAMAGED_SEALS: dict[str, Callable[[Seal], bytes]] = {
    "empty": lambda seal: b"",
    "cut short": lambda seal: encode_seal(seal)[:-1],
    "of another ledger": in_another_ledger,
    "of another partition": of_another_partition,
    "the shape of nothing": lambda seal: b"{}",
    "deeply nested": lambda seal: b"[" * 100_000,
}


@pytest.mark.parametrize("encode", DAMAGED_SEALS.values(), ids=DAMAGED_SEALS)
def test_a_seal_that_cannot_be_read_closes_its_partition_and_no_other(
    sealed: Path, open_ledger: OpenLedger, clock: Clock, encode: Callable[[Seal], bytes]
) -> None:
    seal = LedgerReader(sealed).partition(TODAY).seal
    assert seal
    seal_path(sealed).write_bytes(encode(seal))
    clock.moment = NOON
    answers = Answers()
    ledger = open_ledger(answers, now=clock)
    assert ledger.recovered == Recovered((), (), (TODAY,))
    assert append_each(ledger, answers, [b"later"])[0].partition == LATE
    assert [record.payload for record in ledger.reader().records(TODAY)] == FIVE
    clock.moment = DUE
    assert ledger.due_partitions(DUE) == []
    with pytest.raises(LedgerDamaged, match="its SEAL cannot be read"):
        ledger.seal(TODAY)
    ledger.close()
    seal_path(sealed).write_bytes(encode_seal(seal))  # restored from a backup
    assert open_ledger(answers, now=clock).seal(TODAY) == seal


def test_a_seal_of_a_newer_program_is_no_damage(sealed: Path, open_ledger: OpenLedger) -> None:
    told = json.loads(seal_path(sealed).read_bytes())
    manifest = {**told["manifest"], "format_version": 2, "what is new": True}
    digest = sha256(json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    seal_path(sealed).write_text(json.dumps({"manifest": manifest, "sha256": digest, "state": "MOVED"}))
    with pytest.raises(FormatUnsupported, match="SEAL format version 2"):
        open_ledger(Answers())


def test_a_chain_whose_last_seal_is_damaged_goes_on_from_the_last_one_that_can_be_read(
    sealed: Path, open_ledger: OpenLedger, clock: Clock
) -> None:
    first = LedgerReader(sealed).partition(TODAY).seal
    assert first
    answers = Answers()
    with open_ledger(answers, now=clock) as ledger:
        append_each(ledger, answers, [b"second", b"third"], DUE)
        append_each(ledger, answers, [b"fourth"], DUE + DAY)
        clock.moment = DUE + DAY
        assert ledger.seal(TOMORROW).seal_number == 2
    second = seal_path(sealed, TOMORROW).read_bytes()
    seal_path(sealed, TOMORROW).write_bytes(b"rot")
    clock.moment = DUE + 2 * DAY
    with open_ledger(Answers(), now=clock) as ledger:
        third = ledger.seal("2026-01-31")
    assert (third.seal_number, third.previous) == (3, first.link)
    seal_path(sealed, TOMORROW).write_bytes(second)
    numbers = [info.seal.seal_number for info in LedgerReader(sealed).partitions() if info.seal]
    assert numbers == [1, 2, 3]


def test_without_any_seal_that_can_be_read_the_numbers_still_go_on(
    sealed: Path, open_ledger: OpenLedger, clock: Clock
) -> None:
    seal_path(sealed).write_bytes(b"rot")
    answers = Answers()
    ledger = open_ledger(answers, now=clock)
    append_each(ledger, answers, [b"next"], DUE)
    clock.moment = DUE + DAY
    seal = ledger.seal(TOMORROW)
    assert (seal.seal_number, seal.previous) == (2, None)
