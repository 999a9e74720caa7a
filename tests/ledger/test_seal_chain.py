"""The chain of SEALs when some of them cannot be read, or could not when others were made."""

from dataclasses import replace
from pathlib import Path

from ledger import LedgerReader
from ledger.files.layout import seal_path
from tests.ledger.conftest import OpenLedger
from tests.ledger.faults import TODAY, Answers, Clock
from tests.ledger.sealed_days import AFTER, BEFORE, LONG_AFTER, found, seal_of, sealed_ledger, write_seal


def test_a_seal_that_names_none_before_it_is_right_also_when_that_one_is_restored(
    open_ledger: OpenLedger, directory: Path
) -> None:
    sealed_ledger(directory, [BEFORE])
    whole = seal_path(directory, BEFORE).read_bytes()
    seal_path(directory, BEFORE).write_bytes(b"rot")
    with open_ledger(Answers(), now=Clock(LONG_AFTER)) as ledger:
        assert (ledger.seal(TODAY).seal_number, ledger.seal(TODAY).previous) == (2, None)
    told = list(LedgerReader(directory).verify_chain())
    assert [(each.partition, each.description) for each in told] == [(BEFORE, "the SEAL cannot be read")]
    seal_path(directory, BEFORE).write_bytes(whole)
    reader = LedgerReader(directory)
    assert list(reader.verify_chain()) == [*found(reader, BEFORE), *found(reader, TODAY)] == []


def test_a_seal_that_is_gone_is_told_beside_one_that_cannot_be_read(directory: Path) -> None:
    sealed_ledger(directory)
    seal_path(directory, BEFORE).unlink()
    seal_path(directory, TODAY).write_bytes(b"rot")
    told = [each.description for each in LedgerReader(directory).verify_chain() if each.partition == AFTER]
    assert told[-1] == "the SEAL has number 3, and 2 before it are missing"


def test_one_seal_that_cannot_be_read_accounts_for_one_number(directory: Path) -> None:
    sealed_ledger(directory)
    seal_path(directory, BEFORE).write_bytes(b"rot")
    write_seal(directory, replace(seal_of(directory, AFTER), seal_number=4), AFTER)
    told = [each.description for each in LedgerReader(directory).verify_chain() if each.partition == AFTER]
    assert told == ["the SEAL has number 4, and 1 before it are missing"]
