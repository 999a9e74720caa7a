"""What storage does to a file that was whole: cut short, repeated, moved, swollen. All is named, in bounded memory."""

import os
import random
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import pairwise, permutations
from pathlib import Path

import pytest

from ledger import Ledger, LedgerReader, LedgerSettings, SegmentState
from ledger.files.bookends import encode_mark
from ledger.format import TYPE_COMMIT_MARK, encode_frame, seed_of
from ledger.reading.cursor import View
from ledger.writing.catalog import Catalog
from tests.ledger.conftest import OpenLedger
from tests.ledger.faults import (
    FIVE,
    NOON,
    TODAY,
    Answers,
    FaultyDisk,
    append_each,
    at_noon,
    crash_image,
    frame_starts,
    one_batch,
    overwrite,
    reopened,
    segment_of,
    served,
)

DAMAGED, FROZEN = SegmentState.DAMAGED, SegmentState.FROZEN
BLOCK = 4096
MIB = 1024 * 1024


def cuts(path: Path) -> Iterator[int]:
    """Cuts the file at every byte, from the whole of it down to nothing, and tells where."""
    data = path.read_bytes()
    for size in range(len(data), -1, -1):
        path.write_bytes(data[:size])
        yield size
        for torn in path.parent.glob("*.torn"):
            torn.unlink()


def whole_within(directory: Path) -> Callable[[int], int]:
    """How many records lie whole in the first n bytes."""
    ends = [
        start + 48 + -(-len(payload) // 8) * 8 for start, payload in zip(frame_starts(directory), FIVE, strict=True)
    ]
    return lambda size: sum(end <= size for end in ends)


def test_a_frozen_segment_that_nobody_pins_opens_cut_at_every_byte(crashed: Path) -> None:
    """Without its FOOTER nothing proves what was behind the cut: a torn tail, as of any last segment."""
    reopened(crashed)  # appends the FOOTER
    whole = whole_within(crashed)
    head_end = frame_starts(crashed)[0]
    for size in cuts(segment_of(crashed)):
        info = reopened(crashed).segments[0]
        assert (info.record_count, info.damaged) == (whole(size), ()), size
        assert (info.state is DAMAGED) == (size < head_end), size


def test_a_pinned_segment_cut_at_every_byte_names_every_record_it_lost(crashed: Path, open_ledger: OpenLedger) -> None:
    answers = Answers()
    with open_ledger(answers, crashed) as ledger:
        append_each(ledger, answers, [b"six"])
    whole = whole_within(crashed)
    data = segment_of(crashed).read_bytes()
    pinned_end = data.rindex(b'{"segment_id"') - 48
    for size in cuts(segment_of(crashed)):
        for info in (reopened(crashed).segments[0], LedgerReader(crashed).partition(TODAY).segments[0]):
            assert info.record_count == 5, size
            assert info.damaged == (((whole(size) + 1, 5),) if whole(size) < 5 else ()), size
            assert (info.state is DAMAGED) == (size < pinned_end), size
        assert served(crashed) == [*FIVE[: whole(size)], b"six"]
        if size < pinned_end:
            assert segment_of(crashed).read_bytes() == data[:size]


GIVEN = [f"record-{number}-".encode() + bytes([number]) * (number * 37 % 700) for number in range(60)]

INDEXES = range(1, 61)


@pytest.fixture(scope="module")
def many_blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty records in six batches and the idle mark: about six blocks, all of it durable."""
    base = tmp_path_factory.mktemp("blocks")
    disk = FaultyDisk()
    answers = Answers(disk.events)
    settings = LedgerSettings(free_bytes_min=0, idle_mark_s=0.05)
    with Ledger.open(base / "running", on_commit=answers, settings=settings, disk=disk, now=at_noon) as ledger:
        for start in range(0, 60, 10):
            with one_batch(ledger):
                for payload in GIVEN[start : start + 10]:
                    ledger.append(payload, NOON, payload)
            answers.positions(*GIVEN[start : start + 10])
        disk.wait_for(lambda events: [kind for kind, _ in events[-3:]] == ["ack", "write", "fdatasync"])
        return crash_image(base / "running", base / "image")


def intact(data: bytes | bytearray, original: bytes) -> set[int]:
    """Indexes of the records whose frames lie in `data` where they did, byte for byte."""
    starts = [original.index(payload) - 48 for payload in GIVEN] + [len(original) - 56]
    return {index for index, (start, end) in enumerate(pairwise(starts), 1) if data[start:end] == original[start:end]}


def seen(directory: Path, view: View | None = None) -> dict[int, bytes]:
    """By index. Nothing is ever read as another record than it is."""
    records = LedgerReader(directory, view=view).records(TODAY)
    payloads = {record.position.record_index: record.payload for record in records}
    assert payloads == {index: GIVEN[index - 1] for index in payloads}
    return payloads


def assert_all_is_served_or_named(directory: Path) -> set[int]:
    """Sixty records were durable: each is served or listed as damaged. Returns the served ones, by index."""
    before = segment_of(directory).read_bytes()
    partition = reopened(directory)
    info = partition.segments[0]
    assert (info.state, info.record_count) == (DAMAGED, 60)
    payloads = seen(directory, Catalog([partition]))
    assert set(payloads) | {index for first, last in info.damaged for index in range(first, last + 1)} == set(INDEXES)
    assert sum(last - first + 1 for first, last in info.damaged) == 60 - len(payloads)
    assert segment_of(directory).read_bytes() == before
    return set(payloads)


def test_a_block_written_over_another_costs_what_lay_there_and_is_never_read_as_something_else(
    many_blocks: Path, where: Path
) -> None:
    original = segment_of(many_blocks).read_bytes()
    blocks = range(0, len(original) - BLOCK, BLOCK)
    for source, target in permutations(blocks, 2):
        if target == 0:  # nobody else knows the segment's id then
            continue
        image = shutil.copytree(many_blocks, where / "image")
        data = bytearray(original)
        data[target : target + BLOCK] = original[source : source + BLOCK]
        segment_of(image).write_bytes(data)
        whole = intact(data, original)
        if source == target + BLOCK:
            # From so near, headers out of their place may fit: they stand for the same records in their right place.
            blank = bytearray(original)
            blank[source : source + BLOCK] = bytes(BLOCK)
            whole &= intact(blank, original)
        assert assert_all_is_served_or_named(image) >= whole, (source, target)
        assert set(seen(image)) >= whole, (source, target)
        shutil.rmtree(image)


def test_a_block_from_far_behind_costs_nothing_but_what_it_lies_on(open_ledger: OpenLedger, directory: Path) -> None:
    answers = Answers()
    ledger = open_ledger(answers, idle_mark_s=3600)
    given = [f"{number:06d}".encode() + b"x" * 94 for number in range(2000)]
    with one_batch(ledger):
        for payload in given:
            ledger.append(payload, NOON, payload)
    answers.positions(*given)
    ledger.close()
    path = segment_of(directory)
    data = path.read_bytes()
    source, target = len(data) // BLOCK * BLOCK - 4 * BLOCK, 3 * BLOCK
    overwrite(path, target, data[source : source + BLOCK])
    hit = BLOCK // (48 + 104) + 2
    held = served(directory)
    assert len(held) >= len(given) - hit
    assert held == [payload for payload in given if payload in set(held)]
    overwrite(path, data.rindex(b'{"segment_id"') - 48, bytes(8))  # its FOOTER: now the frames alone tell
    info = LedgerReader(directory).partition(TODAY).segments[0]
    assert (info.state, info.record_count) == (DAMAGED, len(given))
    assert served(directory) == held


def test_a_mark_within_a_payload_proves_nothing_when_it_counts_more_records_than_fit_before_it(
    crashed: Path, open_ledger: OpenLedger
) -> None:
    """What a power cut may leave of a record that was never acknowledged: its first sector is gone, the rest is not."""
    info = LedgerReader(crashed).partition(TODAY).segments[0]
    path = segment_of(crashed)
    start = path.stat().st_size
    inner = start + 48 + 1024
    seed = seed_of(info.segment_id)
    mark = encode_frame(TYPE_COMMIT_MARK, encode_mark(50), seed=seed, durable_offset=inner, written_at=0)
    with path.open("ab") as file:
        file.write(bytes(48 + 1024) + mark + bytes(1024))
    ledger = open_ledger(Answers(), crashed)
    assert (ledger.recovered.damaged, len(ledger.recovered.torn_files)) == ((), 1)
    assert ledger.partition(TODAY).record_count == 5
    assert path.with_name(f"segment-00000001.{start}.torn").stat().st_size == len(mark) + 48 + 2048


@pytest.mark.parametrize("size", [BLOCK, 512])
def test_a_block_that_is_there_twice_costs_at_most_the_record_it_cuts_in_two(
    many_blocks: Path, where: Path, size: int
) -> None:
    original = segment_of(many_blocks).read_bytes()
    mark_start = len(original) - 56
    for start in range(0, mark_start - size, size):
        image = shutil.copytree(many_blocks, where / "image")
        block = original[start : start + size]
        segment_of(image).write_bytes(original[:start] + block + original[start:])
        assert len(assert_all_is_served_or_named(image)) >= 59, start
        seen(image)
        shutil.rmtree(image)


def zeros(path: Path) -> None:
    os.truncate(path, path.stat().st_size + 64 * MIB)


def garbage(path: Path) -> None:
    chance = random.Random(64)
    with path.open("ab") as file:
        for _ in range(8):
            file.write(chance.randbytes(MIB))


def nothing_but_zeros(path: Path) -> None:
    os.truncate(path, 0)
    os.truncate(path, 64 * MIB)


def types_without_frames(path: Path) -> None:
    """Each 8 bytes look like the beginning of a RECORD to whoever looks at the type alone."""
    with path.open("ab") as file:
        file.write(b"\x00\x00\x00\x00\x01\x00\x00\x00" * (MIB // 32))


SWOLLEN = [zeros, garbage, nothing_but_zeros, types_without_frames]


@pytest.mark.parametrize("swell", SWOLLEN)
def test_a_swollen_segment_is_opened_and_read_in_bounded_memory(crashed: Path, swell: Callable[[Path], None]) -> None:
    swell(segment_of(crashed))
    tracemalloc.start()
    try:
        list(LedgerReader(crashed).records(TODAY))
        info = reopened(crashed)
        held = served(crashed)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * MIB
    is_gone = swell is nothing_but_zeros
    assert (info.segments[0].state, info.record_count) == ((DAMAGED, 0) if is_gone else (FROZEN, 5))
    assert held == ([] if is_gone else FIVE)
