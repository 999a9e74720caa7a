"""Rot: up to 512 bytes flipped anywhere in acknowledged data. The damage is named exactly, and the rest is served."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from ledger import LedgerReader, PartitionInfo, SegmentInfo, SegmentState
from ledger.files.layout import read_ledger_id
from ledger.format import HEADER_BYTES
from ledger.opening.takeover import Opening
from ledger.writing.catalog import Catalog
from tests.ledger.decoder import Frame, decode
from tests.ledger.faults import NOON, UnsyncedDisk, segment_of
from tests.ledger.power_scenarios import ALWAYS_MARKED, Run
from tests.ledger.recording import image_of
from tests.power.operations import Image

LEDGERS = 25
CASES_PER_LEDGER = 40
BYTES_MAX = 512
DAYS = [NOON, NOON + timedelta(days=1), NOON + timedelta(days=2)]

Key = tuple[str, int]  # partition, ordinal


@dataclass(frozen=True)
class Segment:
    """What the undamaged bytes say. `end`: how far they are known to be durable, where FOOTER or last mark begins.

    `end_of_run`: how far a run of flipped bytes may go. Without its header a FOOTER is none, and still proves `end`.
    """

    frames: list[Frame]
    is_followed: bool

    @property
    def is_frozen(self) -> bool:
        return self.frames[-1].type == "FOOTER"

    @property
    def end(self) -> int:
        return self.frames[-1].offset

    @property
    def end_of_run(self) -> int:
        return self.end + HEADER_BYTES if self.is_frozen else self.end

    @property
    def records(self) -> dict[int, bytes]:
        """By their index."""
        return {frame.sequence & 0xFFFFFFFF: frame.payload for frame in self.frames if frame.type == "RECORD"}

    def expected(self, flipped: set[int]) -> "Expected":
        hit = [
            frame
            for frame, following in zip(self.frames[:-1], self.frames[1:], strict=True)
            if any(frame.offset <= offset < following.offset for offset in flipped)
        ]
        lost = {frame.sequence & 0xFFFFFFFF for frame in hit if frame.type == "RECORD"}
        has_footer = self.is_frozen and max(flipped, default=0) < self.end
        if [frame.type for frame in hit][:2] == ["HEADER", "HEADER"] and not (has_footer or self.is_followed):
            return Expected(True, set(), {})  # nobody is left who knows the segment id: not one frame can be trusted
        return Expected(bool(flipped), lost, {at: held for at, held in self.records.items() if at not in lost})


@dataclass(frozen=True)
class Expected:
    is_damaged: bool
    named: set[int]
    served: dict[int, bytes]

    def check(self, info: SegmentInfo) -> None:
        assert (info.state is SegmentState.DAMAGED) == self.is_damaged
        assert {index for first, last in info.damaged for index in range(first, last + 1)} == self.named


@dataclass(frozen=True)
class Grown:
    """A ledger of several days: segments with FOOTERs, and some days with a live segment that ends in an idle mark."""

    image: Image
    segments: dict[Key, Segment]


def grown(root: Path, chance: Random) -> Grown:
    root.mkdir()
    run = Run(root, chance)
    ledger = run.opened(segment_records_max=chance.choice([3, 5]))
    for _ in range(chance.randrange(3, 7)):
        run.append(ledger, run.batch(*DAYS))
    ledger.close()
    ledger = run.opened(idle_mark_s=ALWAYS_MARKED, segment_records_max=chance.choice([5, 9]))
    for _ in range(chance.randrange(2, 5)):
        run.append(ledger, run.batch(*DAYS[:2]))
    run.recorder.die()
    ledger.close()
    frames = {(path.parent.name, int(path.stem[-8:])): decode(path) for path in root.rglob("segment-*.log")}
    segments = {key: Segment(each, (key[0], key[1] + 1) in frames) for key, each in frames.items()}
    image = image_of(root)
    shutil.rmtree(root)
    return Grown(image, segments)


def rot(chance: Random, segments: dict[Key, Segment]) -> dict[Key, set[int]]:
    """Which bytes to flip: a run of them, some here and there in one segment, or some everywhere."""
    amount = chance.choice([1, chance.randrange(1, 17), chance.randrange(1, BYTES_MAX + 1)])
    keys = sorted(segments)
    key = chance.choice(keys)
    end = segments[key].end
    match chance.randrange(3):
        case 0:
            start = chance.randrange(end)
            return {key: set(range(start, min(start + amount, segments[key].end_of_run)))}
        case 1:
            return {key: {chance.randrange(end) for _ in range(amount)}}
    flipped: dict[Key, set[int]] = {}
    for key in chance.choices(keys, k=amount):
        flipped.setdefault(key, set()).add(chance.randrange(segments[key].end))
    return flipped


@contextmanager
def rotten(image: Image, where: Path, chance: Random, flipped: dict[Key, set[int]]) -> Iterator[Path]:
    directory = image.laid_out(where) / "ledger"
    for (partition, ordinal), offsets in flipped.items():
        path = segment_of(directory, ordinal, partition)
        data = bytearray(path.read_bytes())
        for offset in offsets:
            data[offset] ^= chance.randrange(1, 256)
        path.write_bytes(data)
    yield directory
    shutil.rmtree(where)


def check_reading(reader: LedgerReader, expected: dict[Key, Expected]) -> None:
    served: dict[Key, dict[int, bytes]] = {key: {} for key in expected}
    for info in reader.partitions():
        for record in reader.records(info.name):
            position = record.position
            assert position.record_index not in served[info.name, position.segment_ordinal]
            served[info.name, position.segment_ordinal][position.record_index] = record.payload
    assert served == {key: each.served for key, each in expected.items()}
    for segment in segments_of(reader.partitions()):
        expected[segment.partition, segment.ordinal].check(segment)


def segments_of(partitions: list[PartitionInfo]) -> list[SegmentInfo]:
    return [segment for info in partitions for segment in info.segments]


def check(directory: Path, known: dict[Key, Segment], expected: dict[Key, Expected]) -> None:
    check_reading(LedgerReader(directory), expected)  # from outside, as it lies there
    disk = UnsyncedDisk()
    opened = Opening(disk, directory, read_ledger_id(disk, directory), 0, 0).partitions()
    for segment in segments_of(opened):
        key = segment.partition, segment.ordinal
        if not known[key].is_frozen:
            expected[key].check(segment)
        elif not expected[key].is_damaged:
            assert segment.state is SegmentState.FROZEN
    # A finished segment is trusted by its FOOTER: that it is damaged shows by reading it.
    check_reading(LedgerReader(directory, view=Catalog(opened), disk=disk), expected)


@pytest.mark.parametrize("seed", range(LEDGERS))
def test_whatever_rots_is_named_exactly_and_everything_else_is_served(where: Path, seed: int) -> None:
    chance = Random(seed)
    ledger = grown(where / "grown", chance)
    assert {segment.is_frozen for segment in ledger.segments.values()} == {True, False}
    for case in range(CASES_PER_LEDGER):
        flipped = rot(chance, ledger.segments)
        expected = {key: segment.expected(flipped.get(key, set())) for key, segment in ledger.segments.items()}
        assert any(each.is_damaged for each in expected.values())
        with rotten(ledger.image, where / "image", chance, flipped) as directory:
            try:
                check(directory, ledger.segments, expected)
            except Exception as error:
                error.add_note(f"seed {seed}, case {case}: {flipped}")
                raise


def test_a_thousand_cases_are_tried() -> None:
    assert LEDGERS * CASES_PER_LEDGER >= 1000
