"""FORMAT.md against the bytes: by a second decoder, by golden files, by its own example."""

import hashlib
import json
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from ledger import LedgerReader
from ledger.format import TYPE_RECORD, encode_frame, seed_of
from ledger.seal import encode_seal
from tests.ledger.conftest import OpenLedger
from tests.ledger.decoder import crc32c, decode, decode_seal
from tests.ledger.faults import (
    NOON,
    TODAY,
    Answers,
    FaultyDisk,
    append_each,
    flip_byte,
    one_batch,
    seal_path,
    segment_of,
    served,
)

GOLDEN = Path(__file__).parent / "golden"
PRUNED = "2026-01-26"
SEALED = "2026-01-27"
LATE = "2026-01-28-late"
FORMAT = Path(__file__).parents[2] / "ledger" / "FORMAT.md"
SEAL_SECTION = FORMAT.read_text().split("## SEAL")[1].split("\n## ")[0]


def test_a_golden_ledger_is_read_by_todays_code() -> None:
    reader = LedgerReader(GOLDEN)
    assert reader.ledger_id == "7a1c2e52-6f0b-4d52-9a6e-0c5d3c0e9b11"
    assert [(info.name, info.record_count, info.is_late) for info in reader.partitions()] == [
        (PRUNED, 1, False),
        (SEALED, 3, False),
        (LATE, 1, True),
        (TODAY, 4, False),
    ]
    assert [record.payload for record in reader.records(LATE)] == [b"late"]
    records = list(reader.records(TODAY))
    assert [record.payload for record in records] == [b"hello", b"", bytes(range(256)), "größer".encode()]
    assert [record.position.sequence for record in records] == [1 << 32 | 1, 1 << 32 | 2, 1 << 32 | 3, 2 << 32 | 1]
    assert {record.position.segment_id.hex() for record in records} == {
        "00112233445566778899aabbccddeeff",
        "0123456789abcdef0123456789abcdef",
    }
    assert (records[0].written_at, records[0].emitted_at) == (1_769_688_000_000_000, 1_769_687_999_000_000)


def test_the_golden_ledger_is_read_by_the_second_decoder() -> None:
    frames = decode(segment_of(GOLDEN))
    assert [frame.type for frame in frames] == ["HEADER", "HEADER", "RECORD", "RECORD", "RECORD", "FOOTER"]
    assert [frame.flags for frame in frames[2:5]] == [0, 1, 1]
    assert [frame.type for frame in decode(segment_of(GOLDEN, 2))][2:] == ["RECORD", "COMMIT_MARK"]
    assert [frame.payload for frame in decode(segment_of(GOLDEN, partition=LATE))][2] == b"late"


def test_the_golden_seals_are_read_by_todays_code() -> None:
    reader = LedgerReader(GOLDEN)
    pruned, sealed = reader.partition(PRUNED), reader.partition(SEALED)
    assert (pruned.is_pruned, sealed.is_pruned, pruned.damaged, sealed.damaged) == (True, False, False, False)
    assert sealed.seal
    assert pruned.seal
    assert (sealed.seal.seal_number, sealed.seal.previous) == (2, pruned.seal.link)
    assert sealed.seal.sealed_at == 1_769_580_000_000_000
    assert [record.payload for record in reader.records(SEALED)] == [b"one", b"two", b"three"]
    for info in (pruned, sealed):
        assert info.seal
        assert encode_seal(info.seal) == seal_path(GOLDEN, info.name).read_bytes()


def test_the_golden_seals_are_read_by_the_second_decoder() -> None:
    pruned, sealed = decode_seal(seal_path(GOLDEN, PRUNED)), decode_seal(seal_path(GOLDEN, SEALED))
    assert (pruned["seal_number"], pruned["previous"]) == (1, None)
    digest = json.loads(seal_path(GOLDEN, PRUNED).read_bytes())["sha256"]
    assert sealed["previous"] == {"partition": PRUNED, "seal_number": 1, "sha256": digest}
    assert set(sealed) == set(re.findall(r"^\| `(\w+)` \|", SEAL_SECTION, re.MULTILINE))


def test_the_commands_of_format_md_check_a_golden_seal_by_hand() -> None:
    if shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    (commands,) = re.findall(r"^    jq .*(?:\n    .+)*", SEAL_SECTION, re.MULTILINE)
    for partition in (PRUNED, SEALED):
        told = subprocess.run(commands, shell=True, cwd=GOLDEN / partition, capture_output=True, text=True, check=False)
        digest = json.loads(seal_path(GOLDEN, partition).read_bytes())["sha256"]
        assert told.stdout.splitlines()[0] == f"{digest}  -"
        if partition == SEALED:
            assert told.stdout.splitlines()[1:] == ["segment-00000001.log: OK", "segment-00000002.log: OK"]


def test_what_is_written_today_is_what_format_md_says(open_ledger: OpenLedger, directory: Path) -> None:
    disk = FaultyDisk()
    answers = Answers(disk.events)
    ledger = open_ledger(answers, disk=disk, segment_records_max=300, idle_mark_s=0.01)
    batch = [f"signal-{number}".encode() for number in range(400)]
    with one_batch(ledger):
        for payload in batch:
            ledger.append(payload, NOON, payload)
    answers.positions(*batch)
    append_each(ledger, answers, [b"last"])
    disk.wait_for(lambda events: events[-3][0] == "ack")
    ledger.close()
    first, second = decode(segment_of(directory)), decode(segment_of(directory, 2))
    assert [frame.payload for frame in first[2:302]] == batch[:300]
    assert [frame.sequence for frame in first[2:302]] == [1 << 32 | index for index in range(1, 301)]
    assert [frame.offset for frame in first if frame.flags] == [first[301].offset]
    types = [frame.type for frame in second if frame.type != "COMMIT_MARK"]
    assert types == ["HEADER"] * 2 + ["RECORD"] * 101 + ["FOOTER"]
    marks = [(frame.payload, frame.durable_offset) for frame in second if frame.type == "COMMIT_MARK"]
    assert marks[-1] == ((101).to_bytes(8, "little"), second[-2].offset)
    footer = first[-1].told
    prev = second[0].told["prev"]
    assert {name: footer[name] for name in ("segment_id", "record_count", "byte_length")} == {
        name: prev[name] for name in ("segment_id", "record_count", "byte_length")
    }
    assert (footer["record_count"], footer["byte_length"]) == (300, first[-1].offset)
    assert footer["sparse"] == [[1, first[2].offset], [257, first[258].offset]]
    assert footer["sha256"] == hashlib.sha256(segment_of(directory).read_bytes()[: first[-1].offset]).hexdigest()
    assert all(before.durable_offset <= after.durable_offset for before, after in pairwise(second))


def test_a_footer_that_rots_costs_whoever_reads_the_files_no_record(open_ledger: OpenLedger, directory: Path) -> None:
    answers = Answers()
    ledger = open_ledger(answers, idle_mark_s=3600)
    append_each(ledger, answers, [b"one", b"two"])
    ledger.close()
    types = ["HEADER", "HEADER", "RECORD", "RECORD", "COMMIT_MARK", "FOOTER"]
    frames = decode(segment_of(directory))
    assert [frame.type for frame in frames] == types
    assert frames[-2].durable_offset == frames[-2].offset
    footer = frames[-1]
    assert (footer.told["byte_length"], footer.told["record_count"]) == (footer.offset, 2)
    whole = segment_of(directory).read_bytes()
    assert footer.told["sha256"] == hashlib.sha256(whole[: footer.offset]).hexdigest()
    for offset in range(footer.offset, len(whole), 8):
        flip_byte(segment_of(directory), offset)
        assert served(directory) == [b"one", b"two"], offset
        segment_of(directory).write_bytes(whole)


def test_the_footer_that_recovery_appends_is_the_one_the_writer_would_have_written(
    open_ledger: OpenLedger, tmp_path: Path
) -> None:
    image = tmp_path / "image"
    (image / TODAY).mkdir(parents=True)
    for file in (Path("ledger.json"), Path(TODAY) / "segment-00000001.log"):
        (image / file).write_bytes((GOLDEN / file).read_bytes())
    whole = segment_of(image).read_bytes()
    segment_of(image).write_bytes(whole[: decode(segment_of(image))[-1].offset])
    open_ledger(Answers(), image).close()
    assert segment_of(image).read_bytes() == whole


def test_the_example_of_format_md_is_the_golden_record() -> None:
    example = FORMAT.read_text().split("## Example")[1]
    lines = re.findall(r"^    ((?:[0-9a-f]{2} )*[0-9a-f]{2})  ", example, re.MULTILINE)
    frame = bytes.fromhex("".join(lines))
    assert segment_of(GOLDEN).read_bytes()[568 : 568 + len(frame)] == frame
    assert frame == encode_frame(
        TYPE_RECORD,
        b"hello",
        seed=seed_of(bytes.fromhex("00112233445566778899aabbccddeeff")),
        durable_offset=568,
        written_at=1_769_688_000_000_000,
        emitted_at=1_769_687_999_000_000,
        sequence=1 << 32 | 1,
    )


def test_the_second_decoders_checksum_is_castagnolis() -> None:
    assert crc32c(b"123456789") == 0xE3069283
