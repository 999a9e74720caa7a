"""Dead letters in pages, and which of them a filter picks."""

import asyncio
import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from contract.errors import Reason
from contract.limits import PAGE_BYTES_MAX
from omen.v1 import delivery_service_pb2 as pb
from omen.v1.ledger_record_pb2 import LedgerPosition
from omen.v1.ledger_service_pb2 import GetPartitionRequest
from omen_server.delivery_file import CHECKSUM, row_checksum
from omen_server.reading.listed_letters import UNREADABLE
from tests.ledger.faults import flip_byte, overwrite, segment_of
from tests.omen_server.letters import ERROR, NO, Door, drop, ids, listed, page, redrive
from tests.omen_server.running import DEADLINE_S, Omen, closed_port, event, omen, refusal, riskcast
from tests.omen_server.scripted_riskcast import answering, peer_of

BAD = "Will it be refused?"


async def rejected(server: Omen, *numbers: int) -> list[LedgerPosition]:
    return [(await server.emit(event(number))).position for number in numbers]


async def test_pages_go_on_where_the_one_before_ended_and_a_token_is_good_for_its_filter_alone(tmp_path: Path) -> None:
    async with peer_of(answering(lambda record: NO)) as peer, omen(tmp_path, peer.port) as server:
        positions = await rejected(server, *range(1, 8))
        first = await page(server, page_size=3)
        second = await page(server, page_size=3, page_token=first.next_page_token)
        third = await page(server, page_size=3, page_token=second.next_page_token)
        pages = [*first.dead_letters, *second.dead_letters, *third.dead_letters]
        assert [letter.record.position for letter in pages] == positions
        assert (len(first.dead_letters), len(third.dead_letters), third.next_page_token) == (3, 1, "")
        whole = await page(server, page_size=7)
        assert (len(whole.dead_letters), whole.next_page_token) == (7, "")
        other = {"filter": pb.DeadLetterFilter(reason="INVALID_SIGNAL"), "page_token": first.next_page_token}
        for asked in (other, {"page_token": "mistyped"}, {"page_token": first.next_page_token[:-4]}):
            error = await refusal(page(server, **asked))
            assert error.reason == Reason.INVALID_PAGE_TOKEN


async def test_a_page_ends_at_1_mib_and_nothing_is_left_out(tmp_path: Path) -> None:
    async with peer_of(answering(lambda record: NO)) as peer, omen(tmp_path, peer.port) as server:
        for number in range(20):
            large = event(number)
            large.canonical_observation = b"c" * 60_000
            large.ClearField("input_event_hash")
            large.signal.description = "ä" * 5000
            await server.emit(large)
        first = await page(server)
        rest = await page(server, page_token=first.next_page_token)
    assert 10 < len(first.dead_letters) < 20
    assert len(first.dead_letters) + len(rest.dead_letters) == 20
    assert first.ByteSize() <= PAGE_BYTES_MAX + 1024
    assert len(set(ids([*first.dead_letters, *rest.dead_letters]))) == 20


def flip_payload(segment: Path, part: bytes) -> None:
    flip_byte(segment, segment.read_bytes().index(part))


async def test_a_record_that_cannot_be_read_any_more_is_listed_without_its_event(tmp_path: Path) -> None:
    async with peer_of(answering(lambda record: NO)) as peer, omen(tmp_path, peer.port) as server:
        position, intact = await rejected(server, 1, 2)
    flip_payload(segment_of(tmp_path, partition=position.partition), b"market:1")
    async with omen(tmp_path, closed_port()) as server:
        damaged, other = await listed(server)
        assert await drop(server, "its bytes are gone", positions=[position]) == 1
    assert (damaged.record.position, damaged.record.event) == (position, b"")
    assert not damaged.record.HasField("written_at")
    assert damaged.rejection == ERROR
    assert (other.record.position, bool(other.record.event)) == (intact, True)


def changed(ledger: Path, statement: str) -> None:
    with closing(sqlite3.connect(ledger / "delivery.db")) as connection, connection:
        connection.create_function("row_checksum", -1, row_checksum)
        connection.execute(statement)


async def test_a_dead_letter_of_a_file_that_the_ledger_has_no_longer_is_not_shown_with_what_has_its_name_now(
    tmp_path: Path,
) -> None:
    async with peer_of(answering(lambda record: NO)) as peer, omen(tmp_path, peer.port) as server:
        [position] = await rejected(server, 1)
    changed(tmp_path, "UPDATE dead_letters SET segment_id = zeroblob(16)")
    changed(tmp_path, f"UPDATE dead_letters SET checksum = {CHECKSUM}")
    async with omen(tmp_path, closed_port()) as server:
        [letter] = await listed(server)
        assert (letter.record.position.sequence, letter.record.event) == (position.sequence, b"")
        assert await redrive(server, partition=position.partition) == 1


@pytest.mark.parametrize(
    "garbling",
    [
        "rejection = x'ffff'",
        "attempt_count = -1",
        "attempt_count = 1 << 40",
        "last_rejected_at = 9223372036854775807",
        "record_index = -5",
        "segment_ordinal = -5",
        "segment_ordinal = 1 << 60",
        "partition = CAST(x'ffff2026' AS TEXT)",
        "drop_reason = CAST(x'ff' AS TEXT), dropped_at = 1",
    ],
)
async def test_a_row_that_cannot_be_read_any_more_costs_itself_and_not_the_page(tmp_path: Path, garbling: str) -> None:
    async with peer_of(answering(lambda record: NO)) as peer, omen(tmp_path, peer.port) as server:
        positions = await rejected(server, 1, 2, 3)
    async with omen(tmp_path, closed_port()) as server:
        changed(tmp_path, f"UPDATE dead_letters SET {garbling} WHERE number = 2")
        with capture_logs() as lines:
            first, garbled, third = await listed(server)
            assert list(await listed(server)) == [first, garbled, third]
            assert await redrive(server, reason=ERROR.reason) == 2
            assert await drop(server, "given up", reason=ERROR.reason) == 2
    assert [first.record.position, third.record.position] == [positions[0], positions[2]]
    assert first.rejection == third.rejection == ERROR
    assert (garbled.rejection.message, garbled.record.position.sequence) == (UNREADABLE, 0)
    assert [line["number"] for line in lines if line["event"] == "dead_letter_unreadable"] == [2]


async def test_one_that_is_garbled_on_disk_is_named_at_the_start_and_found_again_by_the_next_hello(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Door(monkeypatch).refused.add(BAD)
    async with riskcast(tmp_path / "db") as store:
        async with omen(tmp_path / "ledger", store.port) as server:
            for number in range(1, 4):
                await server.emit(event(number, title=BAD))
            await server.emit(event(4))
            before = await listed(server)
            assert await drop(server, "a wrong one", positions=[before[1].record.position]) == 1
        place = before[1].record.position
        file, row = tmp_path / "ledger" / "delivery.db", place.partition.encode() + place.segment_id
        for found in re.finditer(re.escape(row + b"\x02"), file.read_bytes()):
            overwrite(file, found.end() - 1, b"\x03")  # one bit of its record_index: it tells of another one
        with capture_logs() as lines:
            async with omen(tmp_path / "ledger", store.port) as server:
                async with asyncio.timeout(DEADLINE_S):
                    while len(after := await listed(server)) != 3:
                        pass
                partition = await server.ledger.GetPartition(GetPartitionRequest(partition=place.partition))
    assert [line["drop_reason"] for line in lines if line["event"] == "dead_letter_unreadable"] == ["a wrong one"]
    assert [each.record for each in after] == [before[0].record, before[2].record, before[1].record]
    assert not any(each.drop_reason for each in after)
    assert not partition.dropped_sequences


async def test_a_dead_letter_whose_payload_rots_in_the_ledger_is_named_and_not_redriven(tmp_path: Path) -> None:
    async with peer_of(answering(lambda record: NO)) as peer, omen(tmp_path, peer.port) as server:
        position, intact = await rejected(server, 1, 2)
    flip_payload(segment_of(tmp_path, partition=position.partition), b"market:1")
    settled = {position.segment_id: [(1, 2)]}
    with capture_logs() as lines:
        async with peer_of(answering(settled=settled)) as peer, omen(tmp_path, peer.port) as server:
            await server.until_drained()  # before that nothing is tried that was found damaged at the start
            assert await redrive(server, partition=position.partition) == 2
            async with asyncio.timeout(DEADLINE_S):
                while len(await listed(server)) != 1 or not unreadable(lines):
                    pass
            [damaged] = await listed(server)
    assert [record.position for record in peer.records] == [intact]
    assert (damaged.record.position, damaged.record.event) == (position, b"")
    assert unreadable(lines) == [1]


def unreadable(lines: Sequence[EventDict]) -> list[int]:
    return [line["record_index"] for line in lines if line["event"] == "ledger_record_unreadable"]


@pytest.mark.parametrize(
    ("picked", "field"),
    [
        ({}, "filter"),
        ({"positions": [LedgerPosition(partition="2026-01-29")]}, "filter.positions[0].sequence"),
        ({"positions": [LedgerPosition(sequence=1 << 32 | 1)]}, "filter.positions[0].partition"),
        (
            {"positions": [LedgerPosition(partition="2026-01-29", sequence=1 << 32 | 1, segment_id=b"short")]},
            "filter.positions[0].segment_id",
        ),
        ({"positions": [LedgerPosition(partition="2026-01-29", sequence=1 << 32 | 1)] * 257}, "filter.positions"),
        ({"reason": "R" * 65}, "filter.reason"),
        ({"reason": "é"}, "filter.reason"),
        ({"partition": "yesterday"}, "filter.partition"),
    ],
)
async def test_a_filter_that_is_empty_or_bad_picks_nothing_and_is_refused_by_name(
    tmp_path: Path, picked: dict[str, Any], field: str
) -> None:
    async with peer_of(answering(lambda record: NO)) as peer, omen(tmp_path, peer.port) as server:
        await rejected(server, 1)
        calls = [redrive(server, **picked), drop(server, "given up", **picked)]
        for call in [*calls, listed(server, filter=pb.DeadLetterFilter(**picked))] if picked else calls:
            error = await refusal(call)
            assert error.reason == Reason.INVALID_SIGNAL
            assert [violation.field for violation in error.violations] == [field]
        [letter] = await listed(server)
        assert (letter.attempt_count, letter.drop_reason) == (1, "")


@pytest.mark.parametrize("reason", ["", "  ", "x" * 501, "a\0b"])
async def test_dropping_needs_a_reason_of_at_most_500_characters(tmp_path: Path, reason: str) -> None:
    async with peer_of(answering(lambda record: NO)) as peer, omen(tmp_path, peer.port) as server:
        [position] = await rejected(server, 1)
        error = await refusal(drop(server, reason, positions=[position]))
        assert [violation.field for violation in error.violations] == ["reason"]
        assert (await listed(server))[0].drop_reason == ""


async def test_a_position_of_another_ledger_or_file_picks_no_dead_letter_of_this_one(tmp_path: Path) -> None:
    async with peer_of(answering(lambda record: NO)) as peer, omen(tmp_path, peer.port) as server:
        [position] = await rejected(server, 1)
        for changed in ({"ledger_id": "0c3f9a52-5d57-4f43-9a5d-6a1f4be0c7d3"}, {"segment_id": bytes(16)}):
            other = LedgerPosition()
            other.CopyFrom(position)
            for name, value in changed.items():
                setattr(other, name, value)
            assert await redrive(server, positions=[other]) == 0
            assert await drop(server, "given up", positions=[other]) == 0
            assert await listed(server, filter=pb.DeadLetterFilter(positions=[other])) == []
        assert await drop(server, "given up", positions=[position]) == 1
