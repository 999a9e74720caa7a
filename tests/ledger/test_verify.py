"""Verify: every byte is read, what is wrong is named, what was never durable is nobody's damage."""

import os
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ledger import (
    Damage,
    Disk,
    LedgerReader,
    Progress,
    Seal,
    SealedSegment,
    SealState,
    Verified,
)
from ledger.files.bookends import encode_header
from ledger.files.head import read_head
from ledger.files.layout import seal_path
from ledger.format import TYPE_HEADER, TYPE_RECORD, UNSEEDED, encode_frame, maybe_header, seed_of
from ledger.positions import sequence_of
from tests.ledger.conftest import OpenLedger
from tests.ledger.faults import (
    FIVE,
    TODAY,
    Answers,
    cut_tail,
    flip_byte,
    overwrite,
    segment_of,
    zero_tail,
)
from tests.ledger.sealed_days import (
    AFTER,
    BEFORE,
    DAYS,
    add_bytes,
    found,
    rewrite_footer,
    seal_of,
    sealed_ledger,
    starts,
    texts,
    verified,
    write_seal,
)
from tests.ledger.test_bit_flips import record_at


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sealed_ledger(tmp_path_factory.mktemp("verify") / "sealed")


@pytest.fixture
def sealed(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "sealed")


def row_changed(seal: Seal, ordinal: int, change: Callable[[SealedSegment], SealedSegment]) -> Seal:
    rows = tuple(change(row) if row.ordinal == ordinal else row for row in seal.segments)
    return replace(seal, segments=rows, total_records=sum(row.record_count for row in rows))


def replace_record(path: Path, ordinal: int, frame: int, emitted_at_change: int = 0, fill: bytes = b"~") -> None:
    """A record that was never written, and each of its checksums says it was."""
    data, at = path.read_bytes(), starts(path)[frame]
    header = read_head(Disk(), path).header
    assert header
    seed = seed_of(header.segment_id)
    old = maybe_header(data, at, at, seed)
    assert old
    assert old.kind == TYPE_RECORD
    told = encode_frame(
        TYPE_RECORD,
        fill * old.payload_len,
        seed=seed,
        durable_offset=old.durable_offset,
        written_at=old.written_at,
        emitted_at=old.emitted_at + emitted_at_change,
        sequence=old.sequence,
        flags=old.flags,
    )
    overwrite(path, at, told)


def test_a_whole_ledger_verifies_clean_in_the_writers_process_and_from_another(
    sealed: Path, open_ledger: OpenLedger
) -> None:
    for reader in (LedgerReader(sealed), open_ledger(Answers(), sealed).reader()):
        assert list(reader.verify_chain()) == []
        for partition in DAYS:
            told = list(reader.verify(partition))
            size = sum(path.stat().st_size for path in (sealed / partition).iterdir())
            assert told[-1] == Verified(partition, 5, 0, size)
            assert told[-2] == Progress(size, size)
            assert not any(isinstance(each, Damage) for each in told)
            assert not reader.partition(partition).damaged


def test_no_byte_of_a_sealed_partition_can_be_flipped_without_being_told(where: Path) -> None:
    sealed = sealed_ledger(where / "small", payloads=FIVE[:2], segment_records_max=1)
    chance = random.Random(11)
    for path in sorted((sealed / TODAY).iterdir()):
        whole = path.read_bytes()
        ordinal = int(path.stem[-8:]) if path.suffix == ".log" else 0
        for offset in range(len(whole)):
            overwrite(path, offset, bytes([whole[offset] ^ 1 << chance.randrange(8)]))
            reader = LedgerReader(sealed)
            damage = found(reader)
            hit = record_at(whole, offset) if ordinal else None
            assert damage, (path.name, offset)
            assert {each.ordinal for each in damage} == {ordinal}, (path.name, offset, damage)
            named = [each.sequence for each in damage if each.sequence]
            assert named == ([sequence_of(ordinal, hit)] if hit else []), (path.name, offset)
            assert reader.partition(TODAY).damaged, (path.name, offset)
            path.write_bytes(whole)
    assert found(LedgerReader(sealed)) == []


def test_the_writer_finds_in_each_byte_of_a_finished_segment_what_happened_to_it_since_it_was_opened(
    where: Path, open_ledger: OpenLedger
) -> None:
    directory = sealed_ledger(where / "unsealed", sealed=())
    path = segment_of(directory, 2)
    whole = path.read_bytes()
    reader = open_ledger(Answers(), directory).reader()
    for offset in range(0, len(whole), 3):
        flip_byte(path, offset)
        assert {each.ordinal for each in found(reader)} == {2}, offset
        path.write_bytes(whole)


def both_headers(directory: Path) -> None:
    for start in starts(segment_of(directory))[:2]:
        flip_byte(segment_of(directory), start + 50)


def lose_two_records(directory: Path) -> None:
    path = segment_of(directory)
    data, at = path.read_bytes(), starts(path)
    path.write_bytes(data[: at[2]] + data[at[4] :])


def a_copy_of_another_day(directory: Path) -> None:
    shutil.copy(segment_of(directory, 2, BEFORE), segment_of(directory, 2))


def a_copy_from_another_ledger(directory: Path) -> None:
    other = sealed_ledger(directory.parent / "other")
    shutil.copy(segment_of(other, 2), segment_of(directory, 2))


def an_unlisted_segment(directory: Path) -> None:
    shutil.copy(segment_of(directory, 3), segment_of(directory, 4))


def a_footer_that_lies(**changes: object) -> Callable[[Path], None]:
    return lambda directory: rewrite_footer(segment_of(directory, 2), **changes)


def a_seal_that_lies(change: Callable[[Seal], Seal]) -> Callable[[Path], None]:
    return lambda directory: write_seal(directory, change(seal_of(directory)))


def without_last_row(seal: Seal) -> Seal:
    rows = seal.segments[:-1]
    return replace(seal, segments=rows, total_records=4, highwater_sequence=sequence_of(2, 2))


def records_and_footer_header(directory: Path) -> None:
    path = segment_of(directory, 2)
    for at in starts(path)[2:]:
        flip_byte(path, at)


def overwritten_tail(directory: Path) -> None:
    path = segment_of(directory, 2)
    zero_tail(path, path.stat().st_size - starts(path)[-1])


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "magic": (lambda d: flip_byte(segment_of(d), 0), "1 0: the magic bytes are damaged"),
    "first HEADER": (lambda d: flip_byte(segment_of(d), 60), "1 0: a HEADER is damaged, bytes 8 to "),
    "second HEADER": (lambda d: flip_byte(segment_of(d), starts(segment_of(d))[1]), "1 0: a HEADER is damaged"),
    "both HEADERs": (
        both_headers,
        "1 0: neither HEADER can be read",
    ),
    "frame header": (lambda d: flip_byte(segment_of(d), starts(segment_of(d))[2]), "1 1: bytes .* are no frame"),
    "payload": (lambda d: flip_byte(segment_of(d), starts(segment_of(d))[3] + 48), "1 2: its payload or padding is"),
    "two records cut out": (lose_two_records, "1 1: (?s:.*)1 2: "),
    "cut short": (lambda d: os.truncate(segment_of(d, 3), starts(segment_of(d, 3))[2] + 9), "3 1: .*the file ends at"),
    "empty": (lambda d: os.truncate(segment_of(d, 3), 0), "3 1: .*the file ends at 0"),
    "removed": (lambda d: segment_of(d, 2).unlink(), "2 0: its file is gone(?s:.*)2 1: (?s:.*)2 2: "),
    "FOOTER overwritten with zeros": (overwritten_tail, "2 0: its FOOTER is damaged"),
    "FOOTER cut": (lambda d: cut_tail(segment_of(d, 2), 8), "2 0: its FOOTER is damaged"),
    "all records, and the FOOTER's header": (records_and_footer_header, "2 1: (?s:.*)2 0: its FOOTER is damaged"),
    "FOOTER removed": (
        lambda d: os.truncate(segment_of(d, 2), starts(segment_of(d, 2))[-1]),
        "2 0: it has no FOOTER",
    ),
    "FOOTER: count": (a_footer_that_lies(record_count=3), "2 0: its FOOTER says record_count 3, the bytes say 2"),
    "FOOTER: least emitted_at": (a_footer_that_lies(emitted_at_min=1), "2 0: its FOOTER says emitted_at_min 1"),
    "FOOTER: greatest emitted_at": (a_footer_that_lies(emitted_at_max=1), "2 0: its FOOTER says emitted_at_max 1"),
    "FOOTER: sparse index": (a_footer_that_lies(sparse=((1, 8),)), r"2 0: its FOOTER says sparse \(\(1, 8\),\)"),
    "FOOTER: no sparse index": (a_footer_that_lies(sparse=()), r"2 0: its FOOTER says sparse \(\)"),
    "FOOTER: sha256": (a_footer_that_lies(sha256="0" * 64), "2 0: its FOOTER says sha256 0+, the SEAL"),
    "bytes behind the FOOTER": (lambda d: add_bytes(segment_of(d), bytes(8)), "1 0: bytes .* behind"),
    "a record replaced": (lambda d: replace_record(segment_of(d, 2), 2, 2), "2 0: .*sha256"),
    "a record emitted at another time": (
        lambda d: replace_record(segment_of(d, 2), 2, 2, 7),
        "2 0: its FOOTER says emitted_at_m",
    ),
    "another day's segment": (a_copy_of_another_day, "2 0: another file lies under this name: segment 2 of 2026-01-28"),
    "another ledger's segment": (a_copy_from_another_ledger, "2 0: another file lies under this name"),
    "a segment too many": (an_unlisted_segment, "4 0: the SEAL does not list it"),
    "SEAL: empty": (lambda d: os.truncate(seal_path(d, TODAY), 0), "0 0: the SEAL cannot be read"),
    "SEAL: one byte more": (lambda d: add_bytes(seal_path(d, TODAY), b"\n"), "0 0: the SEAL cannot"),
    "SEAL: another ledger": (a_seal_that_lies(lambda s: replace(s, ledger_id="x")), "0 0: the SEAL "),
    "SEAL: another day's": (lambda d: shutil.copy(seal_path(d, BEFORE), seal_path(d, TODAY)), "0 0: the SEAL is of 2"),
    "SEAL: main as late": (a_seal_that_lies(lambda s: replace(s, is_late=True)), "0 0: the SEAL says is_late True"),
    "SEAL: total": (
        a_seal_that_lies(lambda s: replace(s, total_records=6)),
        "0 0: the SEAL says 6 records",
    ),
    "SEAL: highwater": (
        a_seal_that_lies(lambda s: replace(s, highwater_sequence=9)),
        "0 0: the SEAL says 9 is",
    ),
    "SEAL: its first row twice": (
        a_seal_that_lies(lambda s: replace(s, segments=(s.segments[0], *s.segments), total_records=7)),
        "0 0: the SEAL does not list the segments 1, 2, 3",
    ),
    "SEAL: a count": (
        a_seal_that_lies(lambda s: row_changed(s, 2, lambda row: replace(row, record_count=3))),
        "2 3: it is in none of the frames",
    ),
    "SEAL: a length": (
        a_seal_that_lies(lambda s: row_changed(s, 2, lambda row: replace(row, byte_length=row.byte_length + 8))),
        "2 0: .*others say 2 in",
    ),
    "SEAL: an id": (
        a_seal_that_lies(lambda s: row_changed(s, 2, lambda row: replace(row, segment_id=bytes([7] * 16)))),
        "2 0: another file lies under this name",
    ),
    "SEAL: a sha256": (
        a_seal_that_lies(lambda s: row_changed(s, 2, lambda row: replace(row, sha256="0" * 64))),
        "2 0: .*the SEAL 0+\n2 0: the SEAL says sha256 0+, the bytes say",
    ),
    "SEAL: a name": (
        a_seal_that_lies(lambda s: row_changed(s, 2, lambda row: replace(row, file="segment-2.log"))),
        "2 0: the SEAL lists it as segment-2.log",
    ),
    "SEAL: a row too few": (a_seal_that_lies(without_last_row), "3 0: the SEAL does not list it"),
    "SEAL: a number from the future": (
        a_seal_that_lies(lambda s: replace(s, seal_number=1)),
        "0 0: the SEAL has number 1 and names number 1",
    ),
    "the SEAL before it removed": (
        lambda d: seal_path(d, BEFORE).unlink(),
        "0 0: the SEAL before it, number 1 of 2026-01-28, is missing",
    ),
    "the SEAL before it damaged": (
        lambda d: flip_byte(seal_path(d, BEFORE), 30),
        "0 0: the SEAL before it, number 1 of 2026-01-28, is damaged",
    ),
    "the SEAL before it replaced": (
        lambda d: write_seal(d, replace(seal_of(d, BEFORE), sealed_at=1), BEFORE),
        "0 0: the SEAL before it, of 2026-01-28, is number 1 with sha256",
    ),
    "the day before it removed": (lambda d: shutil.rmtree(d / BEFORE), "0 0: the SEAL before it, .* is missing"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_whatever_is_broken_is_named_and_known_from_then_on(sealed: Path, name: str) -> None:
    break_it, expected = BROKEN[name]
    break_it(sealed)
    reader = LedgerReader(sealed)
    damage = found(reader)
    assert damage
    assert re.search(f"(?m)^{expected}", texts(damage)), texts(damage)
    assert reader.partition(TODAY).damaged
    named = {each.sequence for each in damage if each.sequence}
    info = reader.partition(TODAY)
    ranges = {(segment.ordinal, hit) for segment in info.segments for hit in segment.damaged}
    assert named == {sequence_of(ordinal, at) for ordinal, (a, b) in ranges for at in range(a, b + 1)}


def test_damage_in_two_records_names_both_and_only_them(sealed: Path) -> None:
    flip_byte(segment_of(sealed), starts(segment_of(sealed))[2] + 50)
    flip_byte(segment_of(sealed, 3), starts(segment_of(sealed, 3))[2])
    reader = LedgerReader(sealed)
    assert [each.sequence for each in found(reader)] == [1 << 32 | 1, 3 << 32 | 1]
    told = verified(reader)
    assert (told.intact_record_count, told.damaged_record_count) == (3, 2)


def test_a_pin_that_lies_is_named_in_the_segment_that_carries_it(sealed: Path) -> None:
    """The HEADER of segment 3 is written anew, with right checksums, and pins one record less."""
    path = segment_of(sealed, 3)
    header = read_head(Disk(), path).header
    assert header
    assert header.prev
    lying = replace(header, prev=replace(header.prev, record_count=1))
    frame = encode_frame(
        TYPE_HEADER, encode_header(lying), seed=UNSEEDED, durable_offset=0, written_at=header.created_at
    )
    assert len(frame) == starts(path)[1] - starts(path)[0]
    overwrite(path, 8, frame + frame)
    assert "3 0: its HEADER pins segment 2 with 1 records" in texts(found(LedgerReader(sealed)))


def test_a_pruned_partition_is_its_seal_and_its_place_in_the_chain(sealed: Path) -> None:
    for path in (sealed / TODAY).glob("*.log"):
        path.unlink()
    write_seal(sealed, replace(seal_of(sealed), state=SealState.PRUNED))
    size = seal_path(sealed, TODAY).stat().st_size
    reader = LedgerReader(sealed)
    assert found(reader) == []
    assert verified(reader) == Verified(TODAY, 0, 0, size)
    assert list(reader.verify_chain()) == []
    flip_byte(seal_path(sealed, BEFORE), 30)
    assert "0 0: the SEAL before it" in texts(found(LedgerReader(sealed)))


def test_a_partition_that_is_pruned_while_it_is_verified_is_not_damaged(sealed: Path) -> None:
    reader = LedgerReader(sealed)
    verification = reader.verify(TODAY)
    next(verification)
    write_seal(sealed, replace(seal_of(sealed), state=SealState.PRUNED))
    for path in (sealed / TODAY).glob("*.log"):
        path.unlink()
    assert not [each for each in verification if isinstance(each, Damage)]


def test_the_chain_names_what_is_missing_doubled_damaged_or_replaced(sealed: Path, tmp_path: Path) -> None:
    def chain_after(change: Callable[[Path], object]) -> list[tuple[str, str]]:
        image = shutil.copytree(sealed, tmp_path / "image")
        change(image)
        reader = LedgerReader(image)
        told = [(each.partition, each.description) for each in reader.verify_chain()]
        assert all(reader.partition(name).damaged for name, _ in told)
        shutil.rmtree(image)
        return told

    (missing, counted) = chain_after(lambda image: seal_path(image, TODAY).unlink())
    assert missing == (AFTER, f"the SEAL before it, number 2 of {TODAY}, is missing")
    assert counted == (AFTER, "the SEAL has number 3, and 1 before it are missing")
    first, _ = chain_after(lambda image: seal_path(image, BEFORE).unlink())
    assert first == (TODAY, f"the SEAL before it, number 1 of {BEFORE}, is missing")
    told = chain_after(lambda image: flip_byte(seal_path(image, TODAY), 40))
    assert (TODAY, "the SEAL cannot be read") in told
    told = chain_after(lambda image: write_seal(image, replace(seal_of(image), sealed_at=1)))
    assert [name for name, _ in told] == [AFTER]
    assert "not number 2 with" in told[0][1]
    told = chain_after(lambda image: write_seal(image, replace(seal_of(image), seal_number=3)))
    assert (AFTER, f"the SEAL has number 3, and so has that of {TODAY}") in told or (
        TODAY,
        f"the SEAL has number 3, and so has that of {AFTER}",
    ) in told


def test_a_seal_made_while_the_one_before_it_was_damaged_names_the_last_that_could_be_read(
    sealed: Path,
) -> None:
    """Once that one is restored, the chain is whole: each number is there, and nothing was named wrongly."""
    write_seal(sealed, replace(seal_of(sealed, AFTER), previous=seal_of(sealed, BEFORE).link), AFTER)
    reader = LedgerReader(sealed)
    assert list(reader.verify_chain()) == []
    assert found(reader, AFTER) == []


def test_what_is_not_there_is_a_key_error_at_once(sealed: Path) -> None:
    with pytest.raises(KeyError):
        LedgerReader(sealed).verify("2026-01-01")
