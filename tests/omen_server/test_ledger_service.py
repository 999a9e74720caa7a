"""LedgerService: what the ledger holds, count by count and record by record."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from contract.errors import ErrorDetails, Reason, timestamp
from contract.limits import BATCH_BYTES_MAX, BATCH_ITEMS_MAX
from ledger import Record
from omen.v1 import ledger_service_pb2 as pb
from omen.v1 import signal_service_pb2 as signal_pb
from omen.v1.ledger_record_pb2 import IndexRange, LedgerRecord, SegmentRanges
from tests.ledger.faults import flip_byte, segment_of
from tests.omen_server.running import Omen, closed_port, event, omen, records_of, refusal


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


async def fill(directory: Path, *counts: int) -> list[Record]:
    """A segment with so many records each, of today's partition; each start of an OMEN begins a segment."""
    number = 0
    for count in counts:
        async with omen(directory, closed_port()) as server:
            await asyncio.gather(*(server.to_ledger(number + index) for index in range(count)))
        number += count
    return records_of(directory)


def damage(directory: Path, record: Record) -> None:
    segment = segment_of(directory, record.position.segment_ordinal, record.position.partition)
    flip_byte(segment, segment.read_bytes().index(record.payload) + 10)


async def replayed(call: Any) -> tuple[list[list[LedgerRecord]], ErrorDetails | None]:
    """The portions that came, and what ended the stream."""
    portions: list[list[LedgerRecord]] = []
    try:
        async for message in call:
            portions.append(list(message.records))
    except grpc.aio.AioRpcError as error:
        return portions, ErrorDetails.from_trailing_metadata(error.trailing_metadata())
    return portions, None


def bytes_of(records: Sequence[LedgerRecord]) -> list[bytes]:
    return [record.event for record in records]


async def pages(server: Omen, size: int) -> AsyncIterator[pb.ListPartitionsResponse]:
    token = ""
    while True:
        request = pb.ListPartitionsRequest(page_size=size, page_token=token)
        page = await server.ledger.ListPartitions(request)
        yield page
        if not (token := page.next_page_token):
            return


async def of_days(server: Omen, *days_ago: int) -> None:
    for days in days_ago:
        at = timestamp(datetime.now(UTC) - timedelta(days=days))
        await server.emit(event(days, emitted_at=at), wait_for=signal_pb.WAIT_FOR_LEDGER)


async def test_partitions_are_listed_by_name_page_after_page(ledger: Path) -> None:
    async with omen(ledger, closed_port()) as server:
        await of_days(server, 0, 3, 2)
        everything = await server.ledger.ListPartitions(pb.ListPartitionsRequest())
        one_by_one = [page async for page in pages(server, 1)]
        in_twos = [page async for page in pages(server, 2)]
    names = [each.partition for each in everything.partitions]
    assert len(names) == 3
    assert names == sorted(names)
    assert [each.is_late for each in everything.partitions] == [True, True, False]
    assert [[each.partition for each in page.partitions] for page in one_by_one] == [[name] for name in names]
    assert [[each.partition for each in page.partitions] for page in in_twos] == [names[:2], names[2:]]
    assert everything.next_page_token == ""


async def test_a_summary_counts_what_the_partition_holds_and_says_when_it_is_due(ledger: Path) -> None:
    held = await fill(ledger, 3, 2)
    async with omen(ledger, closed_port()) as server:
        [summary] = (await server.ledger.ListPartitions(pb.ListPartitionsRequest())).partitions
        details = await server.ledger.GetPartition(pb.GetPartitionRequest(partition=summary.partition))
    assert summary.record_count == 5
    assert summary.highwater_sequence == held[-1].position.sequence == (2 << 32) | 2
    assert (summary.is_sealed, summary.is_pruned, summary.damaged_record_count) == (False, False, 0)
    day = datetime.fromisoformat(summary.partition).replace(tzinfo=UTC)
    assert summary.due_at.ToDatetime(UTC) == day + timedelta(days=1, hours=6)
    assert details.summary == summary
    assert [(each.ordinal, each.record_count) for each in details.segments] == [(1, 3), (2, 2)]
    assert [each.segment_id for each in details.segments] == [held[0].position.segment_id, held[-1].position.segment_id]
    assert details.damaged_sequences == []


@pytest.mark.parametrize("size", [-1, 1001])
async def test_a_page_size_outside_of_0_to_1000_is_refused(ledger: Path, size: int) -> None:
    async with omen(ledger, closed_port()) as server:
        error = await refusal(server.ledger.ListPartitions(pb.ListPartitionsRequest(page_size=size)))
    assert (error.reason, [each.field for each in error.violations]) == (Reason.INVALID_SIGNAL, ["page_size"])


async def test_a_page_token_nobody_gave_is_refused(ledger: Path) -> None:
    async with omen(ledger, closed_port()) as server:
        error = await refusal(server.ledger.ListPartitions(pb.ListPartitionsRequest(page_token="abc")))
    assert error.reason == Reason.INVALID_PAGE_TOKEN


@pytest.mark.parametrize("name", ["", "2020-01-01", "../ledger", "2026-13-99"])
async def test_a_partition_that_is_not_there_is_not_found(ledger: Path, name: str) -> None:
    async with omen(ledger, closed_port()) as server:
        await server.to_ledger(1)
        got = await refusal(server.ledger.GetPartition(pb.GetPartitionRequest(partition=name)))
        _, replay = await replayed(server.replay(name))
    assert replay
    assert got.reason == replay.reason == Reason.PARTITION_NOT_FOUND


async def test_a_replay_sends_every_record_in_order_in_portions_of_at_most_256(ledger: Path) -> None:
    held = await fill(ledger, 600, 10)
    async with omen(ledger, closed_port()) as server:
        portions, error = await replayed(server.replay(held[0].position.partition))
        ledger_id = (await server.ledger.ListPartitions(pb.ListPartitionsRequest())).ledger_id
    records = [record for portion in portions for record in portion]
    assert error is None
    assert bytes_of(records) == [record.payload for record in held]
    assert [record.position.sequence for record in records] == [record.position.sequence for record in held]
    assert [record.written_at.ToMicroseconds() for record in records] == [record.written_at for record in held]
    assert {record.position.ledger_id for record in records} == {ledger_id}
    assert max(map(len, portions)) == BATCH_ITEMS_MAX


async def test_a_portion_holds_at_most_1_mib(ledger: Path) -> None:
    async with omen(ledger, closed_port()) as server:
        for number in range(60):
            made = event(number)
            made.canonical_observation = b"c" * 60_000
            made.ClearField("input_event_hash")
            await server.emit(made, wait_for=signal_pb.WAIT_FOR_LEDGER)
        [partition] = (await server.ledger.ListPartitions(pb.ListPartitionsRequest())).partitions
        portions, error = await replayed(server.replay(partition.partition))
    assert error is None
    assert sum(map(len, portions)) == 60
    sizes = [sum(len(record.event) for record in portion) for portion in portions]
    assert BATCH_BYTES_MAX // 2 < max(sizes) <= BATCH_BYTES_MAX


@pytest.mark.parametrize(("ordinal", "index", "expected"), [(1, 3, 2), (2, 1, 5), (1, 100, 5), (3, 1, 10), (0, 0, 0)])
async def test_a_replay_from_a_sequence_begins_there(ledger: Path, ordinal: int, index: int, expected: int) -> None:
    held = await fill(ledger, 5, 5)
    async with omen(ledger, closed_port()) as server:
        call = server.replay(held[0].position.partition, from_sequence=ordinal << 32 | index)
        portions, error = await replayed(call)
    assert error is None
    assert bytes_of([record for portion in portions for record in portion]) == [
        record.payload for record in held[expected:]
    ]


async def test_a_count_given_for_a_sequence_is_refused(ledger: Path) -> None:
    held = await fill(ledger, 5)
    async with omen(ledger, closed_port()) as server:
        portions, error = await replayed(server.replay(held[0].position.partition, from_sequence=3))
    assert error
    assert (portions, error.violations[0].field) == ([], "from_sequence")


def ranges(record: Record, *runs: tuple[int, int]) -> SegmentRanges:
    """Of the segment of a record."""
    wanted = [IndexRange(first=first, last=last) for first, last in runs]
    return SegmentRanges(segment_id=record.position.segment_id, ranges=wanted)


async def test_a_replay_of_ranges_sends_those_records_in_the_order_of_the_ledger_each_once(ledger: Path) -> None:
    held = await fill(ledger, 5, 5)
    wanted = [ranges(held[-1], (5, 5), (1, 2)), ranges(held[0], (2, 3), (3, 4))]
    async with omen(ledger, closed_port()) as server:
        portions, error = await replayed(server.replay(held[0].position.partition, ranges=wanted))
    assert error is None
    sent = bytes_of([record for portion in portions for record in portion])
    assert sent == [held[place].payload for place in (1, 2, 3, 5, 6, 9)]


@pytest.mark.parametrize("runs", [[(0, 1)], [(3, 2)], [(1, 6)], [(6, 6)]])
async def test_a_bad_range_is_named_by_its_field(ledger: Path, runs: list[tuple[int, int]]) -> None:
    held = await fill(ledger, 5)
    wanted = [ranges(held[0], (1, 1), *runs)]
    async with omen(ledger, closed_port()) as server:
        portions, error = await replayed(server.replay(held[0].position.partition, ranges=wanted))
    assert error
    assert (portions, error.reason) == ([], Reason.INVALID_SIGNAL)
    assert [violation.field for violation in error.violations] == ["ranges[0].ranges[1]"]


async def test_a_segment_of_another_partition_is_named_by_its_field(ledger: Path) -> None:
    held = await fill(ledger, 2)
    wanted = [ranges(held[0], (1, 1)), SegmentRanges(segment_id=b"x" * 16, ranges=[IndexRange(first=1, last=1)])]
    async with omen(ledger, closed_port()) as server:
        _, error = await replayed(server.replay(held[0].position.partition, ranges=wanted))
    assert error
    assert [violation.field for violation in error.violations] == ["ranges[1].segment_id"]


async def test_ranges_and_a_sequence_together_are_refused(ledger: Path) -> None:
    held = await fill(ledger, 2)
    async with omen(ledger, closed_port()) as server:
        call = server.replay(held[0].position.partition, ranges=[ranges(held[0], (1, 1))], from_sequence=1)
        _, error = await replayed(call)
    assert error
    assert [violation.field for violation in error.violations] == ["from_sequence"]


async def test_more_than_256_kib_of_ranges_are_refused(ledger: Path) -> None:
    held = await fill(ledger, 2)
    wanted = [ranges(held[0], *[(1, 1)] * 50_000)]
    async with omen(ledger, closed_port()) as server:
        _, error = await replayed(server.replay(held[0].position.partition, ranges=wanted))
    assert error
    assert [violation.field for violation in error.violations] == ["ranges"]


async def test_damaged_records_that_are_asked_for_end_in_data_loss_with_their_sequences_after_all_others(
    ledger: Path,
) -> None:
    held = await fill(ledger, 9)
    for place in (1, 4, 5, 8):
        damage(ledger, held[place])
    async with omen(ledger, closed_port()) as server:
        partition = held[0].position.partition
        portions, error = await replayed(server.replay(partition, ranges=[ranges(held[0], (1, 9))]))
        details = await server.ledger.GetPartition(pb.GetPartitionRequest(partition=partition))
    assert bytes_of([record for portion in portions for record in portion]) == [
        held[place].payload for place in (0, 2, 3, 6, 7)
    ]
    assert error
    assert (error.code, error.reason) == (grpc.StatusCode.DATA_LOSS.value[0], Reason.LEDGER_DAMAGED)
    first = 1 << 32
    assert error.metadata["sequences"] == f"{first + 2},{first + 5}-{first + 6},{first + 9}"
    assert [(run.first - first, run.last - first) for run in details.damaged_sequences] == [(2, 2), (5, 6), (9, 9)]
    assert details.summary.damaged_record_count == 4


async def test_a_replay_of_everything_or_of_sound_ranges_steps_over_damage(ledger: Path) -> None:
    held = await fill(ledger, 5)
    damage(ledger, held[2])
    async with omen(ledger, closed_port()) as server:
        partition = held[0].position.partition
        whole, error = await replayed(server.replay(partition))
        sound, sound_error = await replayed(server.replay(partition, ranges=[ranges(held[0], (1, 2), (4, 5))]))
    assert (error, sound_error) == (None, None)
    assert whole == sound
    assert bytes_of(whole[0]) == [held[place].payload for place in (0, 1, 3, 4)]
