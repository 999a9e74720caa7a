"""ledger.json: one bit of it must not make another ledger."""

from pathlib import Path

import pytest

from ledger import LedgerDamaged, LedgerReader
from ledger.files.layout import encode_identity
from tests.ledger.conftest import OpenLedger
from tests.ledger.decoder import decode_identity
from tests.ledger.faults import Answers

WRONG = {
    "nested": b"[" * 60_000,
    "a list": b"[]",
    "a number": b"1",
    "nothing": b"",
    "not UTF-8": b"\xff\xfe",
    "no checksum": b'{"format_version":1,"ledger_id":"7a1c2e52-6f0b-4d52-9a6e-0c5d3c0e9b11","created_at":0}',
    "an id that is a number": encode_identity({"format_version": 1, "ledger_id": 5, "created_at": 0}),
    "an id that is none": encode_identity({"format_version": 1, "ledger_id": "x", "created_at": 0}),
    "no id": encode_identity({"format_version": 1}),
}


def test_what_is_written_is_what_format_md_says(crashed: Path) -> None:
    told = decode_identity(crashed / "ledger.json")
    assert set(told) == {"format_version", "ledger_id", "created_at"}
    assert told["ledger_id"] == LedgerReader(crashed).ledger_id


def test_any_flipped_bit_of_the_identity_is_damage(crashed: Path) -> None:
    path = crashed / "ledger.json"
    whole = path.read_bytes()
    for bit in range(len(whole) * 8):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        with pytest.raises(LedgerDamaged, match="Restore it from a backup"):
            LedgerReader(crashed)


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
def test_an_identity_of_a_wrong_kind_is_damage_and_stays_as_it_is(
    crashed: Path, open_ledger: OpenLedger, data: bytes
) -> None:
    (crashed / "ledger.json").write_bytes(data)
    with pytest.raises(LedgerDamaged, match="Restore it from a backup"):
        open_ledger(Answers(), crashed)
    assert (crashed / "ledger.json").read_bytes() == data
