"""`omen ledger verify | seal | damage | show | backup`: with a server beside them or without one."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ledger import (
    FormatUnsupported,
    Ledger,
    LedgerDamaged,
    LedgerFull,
    LedgerLocked,
    LedgerReader,
    LedgerUnavailable,
)
from omen.v1.signal_event_pb2 import SignalEvent
from omen_server.cli.ledger import told
from tests.ledger.faults import Answers, cut_tail, flip_byte, segment_of
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
    assert "NOT_DUE" in early.err


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


COMMANDS = (["ls"], ["cat", DAY], ["show", "OMEN-000000000000"], ["damage"], ["verify"], ["backup", "copy"])


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: arguments[0])
async def test_a_file_that_cannot_be_read_is_one_line_that_names_it(ledger: Path, arguments: list[str]) -> None:
    write_days(ledger)
    (ledger / "ledger.json").unlink()
    (ledger / "ledger.json").mkdir()
    ended = await command(ledger, *arguments)
    assert (ended.code, ended.out, len(ended.err.splitlines())) == (5, "", 1)
    assert str(ledger / "ledger.json") in ended.err


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: arguments[0])
@pytest.mark.parametrize("name", ["segment-00000001.log", "SEAL"])
async def test_a_directory_in_place_of_a_file_is_no_traceback(
    ledger: Path, tmp_path: Path, arguments: list[str], name: str
) -> None:
    write_days(ledger)
    (ledger / DAY / name).unlink(missing_ok=True)
    (ledger / DAY / name).mkdir()
    ended = await omen_command(
        "ledger", *[str(tmp_path / each) if each == "copy" else each for each in arguments], OMEN_LEDGER_DIR=str(ledger)
    )
    assert ended.code in (5, 7)
    assert "Traceback" not in ended.err
    assert name in ended.err + ended.out or DAY in ended.err + ended.out or arguments[0] == "show"


async def test_a_full_disk_and_a_locked_ledger_are_5_wherever_they_are_met(ledger: Path, tmp_path: Path) -> None:
    write_days(ledger)
    (tmp_path / "copy").mkdir()
    with Ledger.open(ledger, on_commit=Answers()):
        locked = await command(ledger, "seal", "--dir", str(ledger))
    assert (locked.code, len(locked.err.splitlines())) == (5, 1)
    assert told(LedgerFull("full")) == told(LedgerUnavailable("gone")) == told(LedgerLocked("locked")) == 5
    assert told(LedgerDamaged("damaged")) == told(FormatUnsupported("new")) == 7


async def test_verify_goes_on_past_a_partition_that_is_not_there(ledger: Path) -> None:
    write_days(ledger, AGES_AGO, AGES_AGO + timedelta(days=1))
    ended = await command(ledger, "verify", "2020-01-01", DAY, NEXT_DAY, "-o", "jsonl")
    damage_record(ledger, 1)
    hurt = await command(ledger, "verify", "2020-01-01", DAY, "-o", "jsonl")
    assert (ended.code, [row["partition"] for row in ended.rows]) == (3, [DAY, NEXT_DAY])
    assert ended.err == "no partition '2020-01-01'\n"
    assert hurt.code == 7


async def test_verify_of_everything_reads_the_chain_and_names_each_break_once(ledger: Path) -> None:
    write_days(ledger, AGES_AGO, AGES_AGO + timedelta(days=1))
    with Ledger.open(ledger, on_commit=Answers()) as held:
        for name in (DAY, NEXT_DAY):
            held.seal(name)
    (ledger / DAY / "SEAL").unlink()
    whole = await command(ledger, "verify")
    part = await command(ledger, "verify", DAY)
    assert (whole.code, part.code) == (7, 0)
    assert whole.err.splitlines() == [
        f"{NEXT_DAY}, SEAL: the SEAL before it, number 1 of {DAY}, is missing",
        f"{NEXT_DAY}, SEAL: the SEAL has number 2, and 1 before it are missing",
    ]


@pytest.mark.parametrize("where", ["directory", "server"])
async def test_seal_goes_on_past_refusals_and_ends_with_the_worst(ledger: Path, where: str) -> None:
    today = datetime.now(UTC).date().isoformat()
    write_days(ledger, AGES_AGO, AGES_AGO + timedelta(days=1), datetime.now(UTC))
    names = [today, "2020-01-01", DAY, NEXT_DAY]
    if where == "server":
        async with omen(ledger, closed_port()) as server:
            options = ["-o", "jsonl", "--target", f"127.0.0.1:{server.port}"]
            ended = await command(ledger, "seal", *options, *names)
            refused = await command(ledger, "seal", *options, *names[:2])
    else:
        options = ["-o", "jsonl", "--dir", str(ledger)]
        ended = await command(ledger, "seal", *options, *names)
        refused = await command(ledger, "seal", *options, *names[:2])
    assert (ended.code, [row["partition"] for row in ended.rows]) == (6, [DAY, NEXT_DAY])
    assert [name in line for name, line in zip(names, ended.err.splitlines(), strict=False)] == [True, True]
    assert (refused.code, refused.out, len(refused.err.splitlines())) == (3, "", 2)


async def test_seal_ends_with_7_when_one_of_them_is_damaged_and_names_no_more_than_the_first(ledger: Path) -> None:
    write_days(ledger, AGES_AGO, AGES_AGO + timedelta(days=1), count=60)
    records = list(LedgerReader(ledger).records(DAY))
    segment = segment_of(ledger, 1, DAY)
    data = segment.read_bytes()
    for record in records[::2]:
        flip_byte(segment, data.index(record.payload) + 10)
    [info] = LedgerReader(ledger).partition(DAY).segments
    os.truncate(segment, info.byte_length)
    ended = await command(ledger, "seal", "--dir", str(ledger), "-o", "jsonl")
    assert (ended.code, [row["partition"] for row in ended.rows]) == (7, [NEXT_DAY])
    assert len(ended.err) < 500
    assert "and 25 more" in ended.err


async def test_cat_says_that_a_seal_cannot_be_read(ledger: Path) -> None:
    write_days(ledger)
    with Ledger.open(ledger, on_commit=Answers()) as held:
        held.seal(DAY)
    (ledger / DAY / "SEAL").write_bytes(b"rot")
    ended = await command(ledger, "cat", DAY, "-o", "jsonl")
    assert (ended.code, len(ended.rows), ended.err) == (7, 4, "the SEAL cannot be read\n")
