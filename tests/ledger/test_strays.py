"""Names in a ledger directory that should not be there, and names that should: what is missing is named, what is
strange is left alone, and neither costs more than there are files.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ledger import LedgerReader, PartitionInfo, SegmentState
from ledger.files.bookends import Pin
from ledger.files.head import read_head
from ledger.files.layout import segment_ordinals, segment_path
from ledger.files.scan import Frame, Walk
from ledger.files.segment import create_segment
from ledger.files.source import Source
from ledger.format import seed_of
from ledger.opening.takeover import Opening
from ledger.positions import ORDINAL_MAX, SEGMENT_ID_UNKNOWN
from tests.ledger.conftest import OpenLedger
from tests.ledger.faults import (
    FIVE,
    TODAY,
    Answers,
    FaultyDisk,
    UnsyncedDisk,
    append_each,
    crash_image,
    overwrite,
    reopened,
    segment_of,
    served,
)

DAMAGED, FROZEN = SegmentState.DAMAGED, SegmentState.FROZEN
DISK = UnsyncedDisk()


@pytest.fixture
def five_segments(open_ledger: OpenLedger, directory: Path) -> Path:
    """One record in each, closed."""
    answers = Answers()
    ledger = open_ledger(answers, segment_records_max=1, idle_mark_s=3600)
    append_each(ledger, answers, FIVE)
    ledger.close()
    return directory


def both_views(directory: Path, open_ledger: OpenLedger) -> list[PartitionInfo]:
    with open_ledger(Answers(), directory) as ledger:
        return [ledger.partition(TODAY), LedgerReader(directory).partition(TODAY)]


@pytest.mark.parametrize("lost", [(1,), (3,), (2, 3), (1, 2, 3, 4)])
def test_missing_segments_are_named_with_all_they_held(
    five_segments: Path, open_ledger: OpenLedger, lost: tuple[int, ...]
) -> None:
    """A successor's pin says how much; of those whose successor is missing too, only that they were there."""
    for ordinal in lost:
        segment_of(five_segments, ordinal).unlink()
    for info in both_views(five_segments, open_ledger):
        assert [segment.ordinal for segment in info.segments if segment.state is DAMAGED] == list(lost)
        for segment in info.segments:
            is_pinned = segment.ordinal in lost and segment.ordinal + 1 not in lost
            assert segment.damaged == (((1, 1),) if is_pinned else ())
    assert served(five_segments) == [payload for ordinal, payload in enumerate(FIVE, 1) if ordinal not in lost]


def test_of_a_missing_last_segment_nothing_here_speaks_and_the_others_are_whole(five_segments: Path) -> None:
    segment_of(five_segments, 5).unlink()
    info = reopened(five_segments)
    assert (len(info.segments), info.damaged) == (4, False)
    assert served(five_segments) == FIVE[:4]


def copy_first(path: Path) -> None:
    shutil.copy(segment_of(path.parents[1]), path)


def copy_without_head(path: Path) -> None:
    copy_first(path)
    overwrite(path, 0, bytes(568))


STRAYS: dict[str, Callable[[Path], object]] = {
    "empty": Path.touch,
    "zeros": lambda path: path.write_bytes(bytes(4096)),
    "a copy": copy_first,
    "a copy without its head": copy_without_head,
}


@pytest.mark.parametrize("make", STRAYS.values(), ids=STRAYS)
@pytest.mark.parametrize("ordinal", [99_999_999, 123_456_789, ORDINAL_MAX])
def test_a_stray_file_far_beyond_the_last_ordinal_costs_nothing_and_is_left_alone(
    five_segments: Path, open_ledger: OpenLedger, make: Callable[[Path], object], ordinal: int
) -> None:
    stray = segment_of(five_segments, ordinal)
    make(stray)
    before = stray.read_bytes()
    for info in both_views(five_segments, open_ledger):
        assert (len(info.segments), info.damaged) == (5, False)
    answers = Answers()
    with open_ledger(answers, five_segments) as ledger:
        assert append_each(ledger, answers, [b"six"])[0].segment_ordinal == 6
    assert served(five_segments) == [*FIVE, b"six"]
    assert stray.read_bytes() == before


@pytest.mark.parametrize("make", STRAYS.values(), ids=STRAYS)
def test_a_stray_file_nearby_may_have_been_a_segment_so_its_ordinal_is_never_used_again(
    five_segments: Path, open_ledger: OpenLedger, make: Callable[[Path], object]
) -> None:
    stray = segment_of(five_segments, 8)
    make(stray)
    before = stray.read_bytes()
    for info in both_views(five_segments, open_ledger):
        assert [(segment.ordinal, segment.segment_id) for segment in info.segments if segment.state is DAMAGED] == [
            (ordinal, SEGMENT_ID_UNKNOWN) for ordinal in (6, 7, 8)
        ]
    answers = Answers()
    with open_ledger(answers, five_segments) as ledger:
        assert append_each(ledger, answers, [b"nine"])[0].segment_ordinal == 9
    assert served(five_segments) == [*FIVE, b"nine"]
    assert stray.read_bytes() == before


def test_a_segment_that_says_itself_which_it_is_counts_however_many_before_it_are_gone(
    five_segments: Path, open_ledger: OpenLedger
) -> None:
    ledger_id = LedgerReader(five_segments).ledger_id
    far = 1200
    pin = Pin(far - 1, bytes([7]) * 16, 2, 1000)
    path = segment_of(five_segments, far)
    live = create_segment(DISK, path, ledger_id=ledger_id, partition=TODAY, prev=pin, created_at=0)
    live.append([(b"far", 0)], 0)
    live.freeze(0)
    for hit in (b"", bytes(568)):  # known by its HEADER; then by its FOOTER and RECORDs
        overwrite(path, 0, hit)
        for info in both_views(five_segments, open_ledger):
            assert len(info.segments) == far
            assert info.segments[-1].segment_id == live.info.segment_id
            assert {segment.state for segment in info.segments[5:-1]} == {DAMAGED}
        assert served(five_segments) == [*FIVE, b"far"]


@pytest.mark.parametrize("ordinal", [99_999_999, 100_000_000, ORDINAL_MAX])
def test_ordinals_of_any_length_keep_their_order_and_their_frames(tmp_path: Path, ordinal: int) -> None:
    (tmp_path / TODAY).mkdir()
    path = segment_path(tmp_path, TODAY, ordinal)
    pin = Pin(ordinal - 1, bytes(16), 0, 0)
    live = create_segment(DISK, path, ledger_id="x", partition=TODAY, prev=pin, created_at=0)
    sequence = live.append([(b"far", 0), (b"farther", 0)], 0)
    live.freeze(0)
    assert segment_ordinals(DISK, tmp_path / TODAY) == [ordinal]
    walk = Walk(Source(DISK, path), seed_of(live.info.segment_id), ordinal, read_head(DISK, path).end)
    frames = [met for met in iter(lambda: walk.step(live.byte_length), None) if isinstance(met, Frame)]
    assert [(frame.header.sequence, frame.payload) for frame in frames if frame.record_index] == [
        (sequence, b"far"),
        (sequence + 1, b"farther"),
    ]
    assert sequence == ordinal << 32 | 1 < 1 << 63


UNKNOWN = [
    "segment-1.log",  # too short for a name of ours
    "segment-000000001.log",  # the first ordinal, written another way
    "segment-00000000.log",
    "segment-" + "\N{ARABIC-INDIC DIGIT ONE}" * 8 + ".log",
    "segment-4294967296.log",  # more than a sequence holds
    "segment-00000002.log.bak",
    "Segment-00000002.log",
    "notes.txt",
    ".hidden",
]
MAKE: dict[str, Callable[[Path], object]] = {
    "file": lambda path: path.write_bytes(b"not ours"),
    "directory": Path.mkdir,
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "pipe": os.mkfifo,
}


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_names_that_are_not_ours_are_ignored_and_never_removed(
    crashed: Path, open_ledger: OpenLedger, make: Callable[[Path], object]
) -> None:
    strange = [directory / name for name in UNKNOWN for directory in (crashed, crashed / TODAY)]
    for path in strange:
        make(path)
    for info in both_views(crashed, open_ledger):
        assert (len(info.segments), info.damaged, info.record_count) == (1, False, 5)
    answers = Answers()
    with open_ledger(answers, crashed) as ledger:
        assert append_each(ledger, answers, [b"six"])[0].segment_ordinal == 2
    assert served(crashed) == [*FIVE, b"six"]
    assert all(path.is_symlink() or path.exists() for path in strange)


@pytest.mark.parametrize("ordinal", [1, 2, 7])
def test_a_copy_without_its_head_is_not_taken_for_the_segment_of_its_name(
    five_segments: Path, open_ledger: OpenLedger, ordinal: int
) -> None:
    """Its FOOTER gives an identity; the frames that the FOOTER points at carry the ordinal it was copied from."""
    for later in range(ordinal, 6):
        segment_of(five_segments, later).unlink(missing_ok=True)
    other = crash_image(five_segments, five_segments.with_name("other"))
    answers = Answers()
    with open_ledger(answers, other, segment_records_max=1) as ledger:
        append_each(ledger, answers, [b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"h"])
    source = segment_of(other, 8)
    footer_id = segment_id_of(source)
    shutil.copy(source, segment_of(five_segments, ordinal))
    overwrite(segment_of(five_segments, ordinal), 0, bytes(700))
    for info in both_views(five_segments, open_ledger):
        assert footer_id not in {segment.segment_id for segment in info.segments}
        assert info.segments[-1].state is DAMAGED
    assert served(five_segments) == FIVE[: ordinal - 1]


def segment_id_of(path: Path) -> bytes:
    header = read_head(DISK, path).header
    assert header
    return header.segment_id


def test_opening_reads_no_more_for_a_stray_file_than_its_ends(five_segments: Path) -> None:
    class CountingDisk(FaultyDisk):
        def read(self, path: Path, offset: int, size: int) -> bytes:
            self.events.append(("read", path.name))
            return super().read(path, offset, size)

        def exists(self, path: Path) -> bool:
            self.events.append(("exists", path.name))
            return super().exists(path)

    counts = []
    for strays in range(2):
        for stray in range(strays):
            segment_of(five_segments, 99_999_999 + stray).touch()
        disk = CountingDisk()
        Opening(disk, five_segments, LedgerReader(five_segments).ledger_id, 0, 0).partitions()
        counts.append(len(disk.events))
    assert counts[1] - counts[0] < 10
