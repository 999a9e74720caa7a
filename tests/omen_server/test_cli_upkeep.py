"""`omen ledger verify | seal | damage | show | backup`: with a server beside them or without one."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ledger import LedgerReader
from omen.v1.signal_event_pb2 import SignalEvent
from tests.ledger.faults import cut_tail, flip_byte, segment_of
from tests.omen_server.command import Ended, omen_command
from tests.omen_server.days import AGES_AGO, DAY, NEXT_DAY, write_days
from tests.omen_server.running import closed_port, omen, records_of


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


async def command(directory: Path, *arguments: str, **settings: str) -> Ended:
    return await omen_command("ledger", *arguments, OMEN_LEDGER_DIR=str(directory), **settings)


def damage_record(directory: Path, index: int) -> int:
    """Its sequence."""
    record = list(LedgerReader(directory).records(DAY))[index]
    segment = segment_of(directory, 1, DAY)
    flip_byte(segment, segment.read_bytes().index(record.payload) + 10)
    return record.position.sequence


async def test_verify_reads_all_partitions_and_ends_with_0_when_every_byte_is_right(ledger: Path) -> None:
    write_days(ledger, AGES_AGO, AGES_AGO + timedelta(days=1))
    ended = await command(ledger, "verify", "-o", "jsonl")
    assert (ended.code, ended.err) == (0, "")
    assert [(row["partition"], row["intact_records"], row["damaged_records"]) for row in ended.rows] == [
        (DAY, 4, 0),
        (NEXT_DAY, 4, 0),
    ]
    assert all(row["bytes_read"] for row in ended.rows)


async def test_verify_names_each_damaged_record_and_ends_with_7(ledger: Path) -> None:
    write_days(ledger, AGES_AGO, AGES_AGO + timedelta(days=1))
    sequence = damage_record(ledger, 1)
    ended = await command(ledger, "verify", "-o", "jsonl")
    other = await command(ledger, "verify", NEXT_DAY)
    assert ended.code == 7
    assert f"{DAY}, segment 1, sequence {sequence}: " in ended.err
    assert [(row["intact_records"], row["damaged_records"]) for row in ended.rows] == [(3, 1), (4, 0)]
    assert (other.code, other.err) == (0, "")


async def test_a_partition_that_is_not_there_ends_with_3(ledger: Path) -> None:
    write_days(ledger)
    ended = await command(ledger, "verify", "2020-01-01")
    assert (ended.code, ended.out) == (3, "")


async def test_damage_lists_what_is_known_and_the_tails_that_were_kept(ledger: Path) -> None:
    write_days(ledger, AGES_AGO, AGES_AGO + timedelta(days=1))
    whole = await command(ledger, "damage", "-o", "jsonl")
    [segment] = LedgerReader(ledger).partition(DAY).segments
    os.truncate(segment_of(ledger, 1, DAY), segment.byte_length)
    sequence = damage_record(ledger, 1)
    last = segment_of(ledger, 1, NEXT_DAY)
    [segment] = LedgerReader(ledger).partition(NEXT_DAY).segments
    os.truncate(last, segment.byte_length)
    cut_tail(last, 4)
    write_days(ledger, datetime.now(UTC))  # opening it is what cuts off a torn tail
    ended = await command(ledger, "damage", "-o", "jsonl")
    assert (whole.code, whole.rows) == (0, [])
    assert ended.code == 7
    assert [(row["partition"], row["what"]) for row in ended.rows] == [
        (DAY, "records cannot be read"),
        (NEXT_DAY, next(row["what"] for row in ended.rows if row["what"].startswith("torn tail kept as segment-"))),
    ]
    assert (ended.rows[0]["first_sequence"], ended.rows[0]["last_sequence"]) == (sequence, sequence)


async def test_show_finds_a_signal_without_a_server_or_an_index(ledger: Path) -> None:
    write_days(ledger, AGES_AGO, AGES_AGO + timedelta(days=1))
    [*_, wanted] = records_of(ledger)
    event = SignalEvent.FromString(wanted.payload)
    ended = await command(ledger, "show", event.signal_id, "-o", "jsonl")
    unknown = await command(ledger, "show", "OMEN-000000000000")
    damage_record(ledger, 1)
    maybe_damaged = await command(ledger, "show", "OMEN-000000000000")
    assert [row["sequence"] for row in ended.rows] == [wanted.position.sequence]
    assert ended.rows[0]["event"]["source_event_id"] == event.source_event_id
    assert (ended.code, unknown.code, maybe_damaged.code) == (0, 3, 7)


async def test_seal_asks_the_server_and_says_what_is_not_due(ledger: Path) -> None:
    now = datetime.now(UTC)
    write_days(ledger, AGES_AGO, now)
    async with omen(ledger, closed_port()) as server:
        listen = f"127.0.0.1:{server.port}"
        ended = await command(ledger, "seal", DAY, "-o", "jsonl", OMEN_LISTEN=listen)
        nothing_left = await command(ledger, "seal", "-o", "jsonl", OMEN_LISTEN=listen)
        early = await command(ledger, "seal", now.date().isoformat(), OMEN_LISTEN=listen)
        absent = await command(ledger, "seal", "2020-01-01", OMEN_LISTEN=listen)
        locked = await command(ledger, "seal", "--dir", str(ledger))
    assert [(row["partition"], row["records"]) for row in ended.rows] == [(DAY, 4)]
    assert (nothing_left.code, nothing_left.out) == (0, "")
    assert (early.code, absent.code, locked.code) == (2, 3, 5)
    assert early.err.startswith("NOT_DUE")


async def test_seal_works_on_a_directory_without_a_server(ledger: Path) -> None:
    write_days(ledger, AGES_AGO, AGES_AGO + timedelta(days=1), datetime.now(UTC))
    ended = await command(ledger, "seal", "--dir", str(ledger), "-o", "jsonl")
    early = await command(ledger, "seal", "--dir", str(ledger), datetime.now(UTC).date().isoformat())
    absent = await command(ledger, "seal", "--dir", str(ledger), "2020-01-01")
    nowhere = await command(ledger, "seal", "--dir", str(ledger / "not there"))
    assert [row["partition"] for row in ended.rows] == [DAY, NEXT_DAY]
    assert [info.is_sealed for info in LedgerReader(ledger).partitions()] == [True, True, False]
    assert (ended.code, early.code, absent.code, nowhere.code) == (0, 2, 3, 3)


async def test_backup_copies_a_ledger_beside_its_server_and_goes_on_from_an_earlier_copy(
    ledger: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    write_days(ledger, AGES_AGO)
    async with omen(ledger, closed_port()):
        first = await command(ledger, "backup", str(copy), "-o", "jsonl")
    write_days(ledger, AGES_AGO + timedelta(days=1))
    again = await command(ledger, "backup", str(copy), "-o", "jsonl")
    inside = await command(ledger, "backup", str(ledger / "copy"))
    assert (first.code, again.code, inside.code) == (0, 0, 2)
    assert [(row["segments_copied"], row["segments_kept"]) for row in first.rows + again.rows] == [(1, 0), (1, 1)]
    assert [record.payload for record in records_of(copy)] == [record.payload for record in records_of(ledger)]


async def test_backup_names_the_damage_that_it_copies_and_ends_with_7(ledger: Path, tmp_path: Path) -> None:
    write_days(ledger)
    sequence = damage_record(ledger, 1)
    ended = await command(ledger, "backup", str(tmp_path / "copy"), "-o", "jsonl")
    assert ended.code == 7
    assert f"sequence {sequence}: " in ended.err
    assert [(row["records"], row["damaged_records"]) for row in ended.rows] == [(4, 1)]
    assert len(records_of(tmp_path / "copy")) == 3
