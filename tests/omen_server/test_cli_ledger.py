"""`omen ledger`: reads the files, with a server beside it or without one."""

import json
from pathlib import Path

import pytest

from ledger import Record
from omen.v1 import signal_service_pb2 as pb
from omen.v1.signal_event_pb2 import SignalEvent
from tests.ledger.faults import flip_byte, segment_of
from tests.omen_server.command import Ended, omen_command
from tests.omen_server.running import closed_port, event, omen, records_of


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


async def fill(directory: Path, count: int) -> list[Record]:
    async with omen(directory, closed_port()) as server:
        await server.to_ledger(*range(1, count + 1))
    return records_of(directory)


async def command(directory: Path, *arguments: str) -> Ended:
    return await omen_command("ledger", *arguments, OMEN_LEDGER_DIR=str(directory))


async def test_ls_shows_every_partition_with_what_it_holds(ledger: Path) -> None:
    held = await fill(ledger, 3)
    ended = await command(ledger, "ls", "-o", "jsonl")
    table = await command(ledger, "ls")
    [row] = ended.rows
    assert (ended.code, ended.err) == (0, "")
    assert row["partition"] == held[0].position.partition
    assert (row["state"], row["records"], row["segments"], row["damaged_records"]) == ("open", 3, 1, 0)
    assert row["highwater_sequence"] == held[-1].position.sequence
    assert row["bytes"] > sum(len(record.payload) for record in held)
    assert len(table.out.splitlines()) == 2


async def test_cat_shows_the_records_of_a_partition(ledger: Path) -> None:
    held = await fill(ledger, 3)
    partition = held[0].position.partition
    everything = await command(ledger, "cat", partition, "-o", "json")
    later = await command(ledger, "cat", partition, "--from", str(held[1].position.sequence), "-o", "jsonl")
    table = await command(ledger, "cat", partition)
    assert [row["sequence"] for row in json.loads(everything.out)] == [record.position.sequence for record in held]
    ids = [SignalEvent.FromString(record.payload).signal_id for record in held]
    assert [row["event"]["signal_id"] for row in later.rows] == ids[1:]
    assert [line.split()[2] for line in table.out.splitlines()[1:]] == ids
    assert (everything.code, later.code, table.code) == (0, 0, 0)


async def test_a_count_given_for_a_sequence_is_a_usage_error(ledger: Path) -> None:
    held = await fill(ledger, 3)
    assert (await command(ledger, "cat", held[0].position.partition, "--from", "2")).code == 2


async def test_a_ledger_is_read_beside_its_server(ledger: Path) -> None:
    async with omen(ledger, closed_port()) as server:
        first, *_, last = await server.to_ledger(*range(1, 11))
        partition = first.position.partition
        ended = await command(ledger, "cat", partition, "-o", "jsonl")
        while not ended.rows or ended.rows[-1]["sequence"] < last.position.sequence:  # up to an idle mark behind
            ended = await command(ledger, "cat", partition, "-o", "jsonl")
        await server.emit(event(11), wait_for=pb.WAIT_FOR_LEDGER)
    assert [row["sequence"] & 0xFFFFFFFF for row in ended.rows] == list(range(1, 11))


async def test_damage_is_named_and_ends_with_7_after_everything_readable_was_shown(ledger: Path) -> None:
    held = await fill(ledger, 4)
    segment = segment_of(ledger, 1, held[0].position.partition)
    flip_byte(segment, segment.read_bytes().index(held[1].payload) + 10)
    ended = await command(ledger, "cat", held[0].position.partition, "-o", "jsonl")
    assert ended.code == 7
    assert [row["sequence"] & 0xFFFFFFFF for row in ended.rows] == [1, 3, 4]
    assert ended.err == "segment 1: records 2 to 2 cannot be read\n"


async def test_ls_ends_with_7_when_a_segment_is_gone(ledger: Path) -> None:
    held = await fill(ledger, 4)
    await fill(ledger, 4)
    segment_of(ledger, 1, held[0].position.partition).unlink()
    ended = await command(ledger, "ls", "-o", "jsonl")
    assert ended.code == 7
    assert ended.rows[0]["damaged_records"] == 4


@pytest.mark.parametrize("partition", ["2020-01-01", "../ledger", "nonsense"])
async def test_an_unknown_partition_ends_with_3(ledger: Path, partition: str) -> None:
    await fill(ledger, 1)
    ended = await command(ledger, "cat", partition, "-o", "jsonl")
    assert (ended.code, ended.out) == (3, "")
    assert partition in ended.err
    assert len(ended.err.splitlines()) == 1


async def test_a_directory_that_is_not_there_ends_with_3(tmp_path: Path) -> None:
    ended = await command(tmp_path / "nowhere", "ls")
    assert (ended.code, ended.out) == (3, "")
    assert "nowhere" in ended.err


async def test_a_directory_that_is_no_ledger_ends_with_7(tmp_path: Path) -> None:
    ended = await command(tmp_path, "ls")
    assert (ended.code, ended.out) == (7, "")
    assert len(ended.err.splitlines()) == 1


async def test_the_directory_given_goes_before_the_setting(ledger: Path, tmp_path: Path) -> None:
    await fill(ledger, 1)
    ended = await command(tmp_path / "nowhere", "ls", "--dir", str(ledger))
    assert ended.code == 0
