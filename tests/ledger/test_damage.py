"""Rot in what was durable: named exactly, stepped over, never changed; and what only looks like ours."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ledger import (
    Damage,
    Disk,
    FormatUnsupported,
    Ledger,
    LedgerReader,
    LedgerSettings,
    SegmentState,
)
from ledger.files.head import read_head
from ledger.format import TYPE_RECORD, encode_frame, seed_of
from ledger.positions import SEGMENT_ID_UNKNOWN
from tests.ledger.conftest import OpenLedger
from tests.ledger.faults import (
    FIVE,
    TODAY,
    Answers,
    append_each,
    at_noon,
    flip_byte,
    frame_starts,
    overwrite,
    reopened,
    segment_of,
    served,
    zero_tail,
)


def test_the_same_bad_bytes_are_a_torn_tail_without_a_mark_and_damage_with_one(crashed: Path, marked: Path) -> None:
    for directory in (crashed, marked):
        flip_byte(segment_of(directory), frame_starts(directory)[4] + 48)
    torn, damaged = reopened(crashed).segments[0], reopened(marked).segments[0]
    assert (torn.state, torn.record_count, torn.damaged) == (SegmentState.FROZEN, 4, ())
    assert (damaged.state, damaged.record_count, damaged.damaged) == (SegmentState.DAMAGED, 5, ((5, 5),))


def test_damage_in_the_middle_changes_no_byte_and_appends_go_on_in_a_new_segment(
    marked: Path, open_ledger: OpenLedger
) -> None:
    flip_byte(segment_of(marked), frame_starts(marked)[1])
    before = segment_of(marked).read_bytes()
    answers = Answers()
    ledger = open_ledger(answers, marked)
    assert ledger.partition(TODAY).damaged
    append_each(ledger, answers, [b"six"])
    ledger.close()
    assert segment_of(marked).read_bytes() == before
    for view in (open_ledger(Answers(), marked).reader(), LedgerReader(marked)):
        first = view.partition(TODAY).segments[0]
        assert (first.state, first.record_count, first.damaged) == (SegmentState.DAMAGED, 5, ((2, 2),))
        assert [record.payload for record in view.records(TODAY)] == [b"one", *FIVE[2:], b"six"]


def with_successor(directory: Path) -> Path:
    """Takes the FOOTER away again after a successor has pinned the segment: only the pin is left to speak of it."""
    whole = segment_of(directory).read_bytes()
    with Ledger.open(
        directory, on_commit=(answers := Answers()), settings=LedgerSettings(free_bytes_min=0), now=at_noon
    ) as ledger:
        append_each(ledger, answers, [b"six"])
    segment_of(directory).write_bytes(whole)
    return directory


def head_copies(directory: Path) -> tuple[int, int]:
    first = 8
    return first, first + (frame_starts(directory)[0] - first) // 2


@pytest.mark.parametrize("hit", [(0,), (1,), (0, 1)], ids=["first", "second", "both"])
def test_a_damaged_header_copy_costs_no_record_when_a_successor_knows_the_segment(
    crashed: Path, hit: tuple[int, ...]
) -> None:
    copies = head_copies(crashed)
    with_successor(crashed)
    for copy in hit:
        flip_byte(segment_of(crashed), copies[copy] + 60)
    info = reopened(crashed).segments[0]
    assert (info.state, info.record_count, info.damaged) == (SegmentState.DAMAGED, 5, ())
    assert served(crashed) == [*FIVE, b"six"]


@pytest.mark.parametrize("hit", [(0,), (1,)], ids=["first", "second"])
def test_one_damaged_header_copy_without_a_successor_costs_no_record(crashed: Path, hit: tuple[int, ...]) -> None:
    for copy in hit:
        flip_byte(segment_of(crashed), head_copies(crashed)[copy] + 60)
    info = reopened(crashed).segments[0]
    assert (info.state, info.record_count, info.damaged) == (SegmentState.DAMAGED, 5, ())


def test_both_header_copies_damaged_are_replaced_by_the_footer(crashed: Path) -> None:
    copies = head_copies(crashed)
    reopened(crashed)  # appends the FOOTER
    for copy in copies:
        flip_byte(segment_of(crashed), copy + 60)
    info = reopened(crashed).segments[0]
    assert (info.state, info.record_count, info.damaged) == (SegmentState.DAMAGED, 5, ())
    assert served(crashed) == FIVE


def test_both_header_copies_damaged_and_nobody_else_who_knows_is_damage_and_changes_nothing(crashed: Path) -> None:
    for copy in head_copies(crashed):
        flip_byte(segment_of(crashed), copy + 60)
    before = segment_of(crashed).read_bytes()
    info = reopened(crashed).segments[0]
    assert (info.state, info.record_count) == (SegmentState.DAMAGED, 0)
    assert segment_of(crashed).read_bytes() == before


def test_bad_magic_is_damage_and_not_a_foreign_file(crashed: Path) -> None:
    overwrite(segment_of(crashed), 0, b"not ours")
    info = reopened(crashed).segments[0]
    assert (info.state, info.record_count, info.damaged) == (SegmentState.DAMAGED, 5, ())


def test_a_frame_of_another_file_is_never_accepted(crashed: Path) -> None:
    foreign = encode_frame(
        TYPE_RECORD,
        b"six",
        seed=seed_of(b"another segment!"),
        durable_offset=0,
        written_at=0,
        sequence=1 << 32 | 6,
    )
    with segment_of(crashed).open("ab") as file:
        file.write(foreign)
    assert reopened(crashed).segments[0].record_count == 5
    assert served(crashed) == FIVE


def test_an_old_frame_of_the_same_file_is_never_accepted_twice(crashed: Path) -> None:
    start, end = frame_starts(crashed)[1:3]
    with segment_of(crashed).open("ab") as file:
        file.write(segment_of(crashed).read_bytes()[start:end])
    assert reopened(crashed).segments[0].record_count == 5
    assert served(crashed) == FIVE


def test_a_segment_of_another_ledger_under_our_name_serves_nothing(
    crashed: Path, tmp_path: Path, open_ledger: OpenLedger
) -> None:
    answers = Answers()
    append_each(open_ledger(answers, tmp_path / "other"), answers, [b"foreign"])
    with_successor(crashed)
    shutil.copy(segment_of(tmp_path / "other"), segment_of(crashed))
    first = reopened(crashed).segments[0]
    assert (first.state, first.record_count, first.damaged) == (SegmentState.DAMAGED, 5, ((1, 5),))
    assert served(crashed) == [b"six"]


def test_a_huge_length_is_not_trusted(marked: Path) -> None:
    overwrite(segment_of(marked), frame_starts(marked)[2] + 8, b"\xff\xff\xff\x7f")
    info = reopened(marked).segments[0]
    assert (info.record_count, info.damaged) == (5, ((3, 3),))


def test_a_lost_segment_file_is_listed_with_all_its_records_damaged(crashed: Path) -> None:
    with_successor(crashed)
    segment_of(crashed).unlink()
    for segments in (reopened(crashed).segments, LedgerReader(crashed).partition(TODAY).segments):
        assert [(info.state, info.damaged) for info in segments] == [
            (SegmentState.DAMAGED, ((1, 5),)),
            (SegmentState.FROZEN, ()),
        ]
    assert served(crashed) == [b"six"]


def test_a_segment_cut_shorter_than_its_successor_pins_is_damaged(crashed: Path) -> None:
    start = frame_starts(crashed)[3]
    with_successor(crashed)
    segment_of(crashed).write_bytes(segment_of(crashed).read_bytes()[:start])
    info = reopened(crashed).segments[0]
    assert (info.state, info.record_count, info.damaged) == (SegmentState.DAMAGED, 5, ((4, 5),))
    assert served(crashed) == [*FIVE[:3], b"six"]


def test_frames_beyond_what_a_successor_pins_do_not_exist(crashed: Path) -> None:
    whole = segment_of(crashed).read_bytes()
    end = frame_starts(crashed)[3]
    segment_of(crashed).write_bytes(whole[:end])
    with_successor(crashed)
    segment_of(crashed).write_bytes(whole)
    info = reopened(crashed).segments[0]
    assert (info.state, info.record_count, info.byte_length) == (SegmentState.FROZEN, 3, end)
    assert served(crashed) == [*FIVE[:3], b"six"]
    assert segment_of(crashed).read_bytes() == whole


def test_a_zeroed_durable_tail_is_damage(marked: Path) -> None:
    with_successor(marked)
    zero_tail(segment_of(marked), len(segment_of(marked).read_bytes()) - frame_starts(marked)[2])
    info = reopened(marked).segments[0]
    assert (info.state, info.damaged) == (SegmentState.DAMAGED, ((3, 5),))


@pytest.mark.parametrize(("kind", "is_refused"), [(0x03, False), (0x7F, False), (0x82, True), (0xFF, True)])
def test_unknown_frames_are_skipped_or_refused_by_their_type(crashed: Path, kind: int, is_refused: bool) -> None:
    data = segment_of(crashed).read_bytes()
    header = json.loads(data[56 : 56 + int.from_bytes(data[16:20], "little")])
    seed = seed_of(bytes.fromhex(header["segment_id"]))
    with segment_of(crashed).open("ab") as file:
        file.write(encode_frame(kind, b"from the future", seed=seed, durable_offset=0, written_at=0))
    if is_refused:
        with pytest.raises(FormatUnsupported, match="must not be skipped"):
            reopened(crashed)
    else:
        assert reopened(crashed).segments[0].record_count == 5


def test_damage_to_a_header_copy_of_a_frozen_segment_is_known_at_opening(crashed: Path) -> None:
    reopened(crashed)  # appends the FOOTER
    flip_byte(segment_of(crashed), head_copies(crashed)[1] + 60)
    assert reopened(crashed).segments[0].state is SegmentState.DAMAGED


def test_a_segment_of_another_ledger_without_a_successor_serves_nothing(
    crashed: Path, tmp_path: Path, open_ledger: OpenLedger
) -> None:
    answers = Answers()
    append_each(open_ledger(answers, tmp_path / "other"), answers, [b"foreign"])
    shutil.copy(segment_of(tmp_path / "other"), segment_of(crashed))
    assert reopened(crashed).segments[0].state is SegmentState.DAMAGED
    assert served(crashed) == []


def test_a_segment_of_a_forked_copy_of_this_ledger_serves_nothing(crashed: Path, tmp_path: Path) -> None:
    fork = shutil.copytree(crashed, tmp_path / "fork")
    segment_of(fork).unlink()
    with_successor(crashed)
    shutil.copy(segment_of(with_own_first(fork)), segment_of(crashed))
    first = reopened(crashed).segments[0]
    assert (first.state, first.damaged) == (SegmentState.DAMAGED, ((1, 5),))
    assert served(crashed) == [b"six"]


def with_own_first(directory: Path) -> Path:
    """Appends the same five payloads under the same ledger id and ordinal, in a file with another segment id."""
    settings = LedgerSettings(free_bytes_min=0)
    with Ledger.open(directory, on_commit=(answers := Answers()), settings=settings, now=at_noon) as ledger:
        append_each(ledger, answers, FIVE)
    return directory


def test_a_frame_that_claims_durability_beyond_itself_is_never_accepted(crashed: Path) -> None:
    data = segment_of(crashed).read_bytes()
    header = json.loads(data[56 : 56 + int.from_bytes(data[16:20], "little")])
    lie = encode_frame(
        TYPE_RECORD,
        b"six",
        seed=seed_of(bytes.fromhex(header["segment_id"])),
        durable_offset=len(data) + 1,
        written_at=0,
        sequence=1 << 32 | 6,
    )
    with segment_of(crashed).open("ab") as file:
        file.write(lie)
    info = reopened(crashed).segments[0]
    assert (info.state, info.record_count) == (SegmentState.FROZEN, 5)


@pytest.mark.parametrize("place", [(TODAY, 2), ("2026-01-28-late", 1)])
def test_a_stray_copy_of_a_segment_is_not_taken_for_what_it_was_copied_from(
    crashed: Path, open_ledger: OpenLedger, place: tuple[str, int]
) -> None:
    own = reopened(crashed).segments[0].segment_id  # appends the FOOTER
    (crashed / place[0]).mkdir(exist_ok=True)
    shutil.copy(segment_of(crashed), segment_of(crashed, place[1], place[0]))
    for reader in (open_ledger(Answers(), crashed).reader(), LedgerReader(crashed)):
        segments = [segment for partition in reader.partitions() for segment in partition.segments]
        by_id = {segment.segment_id: (segment.state, segment.record_count) for segment in segments}
        assert by_id == {own: (SegmentState.FROZEN, 5), SEGMENT_ID_UNKNOWN: (SegmentState.DAMAGED, 0)}
    assert served(crashed) == FIVE


def test_what_is_appended_after_a_stray_file_gets_an_ordinal_of_its_own_and_pins_no_false_identity(
    crashed: Path, open_ledger: OpenLedger
) -> None:
    reopened(crashed)  # appends the FOOTER
    shutil.copy(segment_of(crashed), segment_of(crashed, 2))
    answers = Answers()
    ledger = open_ledger(answers, crashed)
    assert append_each(ledger, answers, [b"six"])[0].sequence == 3 << 32 | 1
    ledger.close()
    header = read_head(Disk(), segment_of(crashed, 3)).header
    assert header
    assert header.prev
    assert (header.prev.segment_id, header.prev.record_count) == (SEGMENT_ID_UNKNOWN, 0)
    states = [SegmentState.FROZEN, SegmentState.DAMAGED, SegmentState.FROZEN]
    for reader in (open_ledger(Answers(), crashed).reader(), LedgerReader(crashed)):
        assert [segment.state for segment in reader.partition(TODAY).segments] == states
        assert [record.payload for record in reader.records(TODAY)] == [*FIVE, b"six"]


def flip_both_copies(path: Path) -> None:
    for copy in head_copies(path.parents[1]):
        flip_byte(path, copy + 60)


BEHEADINGS: dict[str, Callable[[Path], None]] = {
    "both copies flipped": flip_both_copies,
    "4 KiB zeroed": lambda path: overwrite(path, 0, bytes(4096)),
    "cut to nothing": lambda path: os.truncate(path, 0),
    "cut in the second copy": lambda path: os.truncate(path, 300),
}


@pytest.mark.parametrize("behead", BEHEADINGS.values(), ids=BEHEADINGS)
def test_a_last_segment_without_its_head_is_told_to_be_damaged_by_everybody(
    crashed: Path, open_ledger: OpenLedger, behead: Callable[[Path], None]
) -> None:
    behead(segment_of(crashed))
    assert LedgerReader(crashed).partition(TODAY).damaged
    answers = Answers()
    ledger = open_ledger(answers, crashed)
    assert ledger.recovered.damaged == ledger.partition(TODAY).segments
    append_each(ledger, answers, [b"six"])
    ledger.close()
    for reader in (open_ledger(Answers(), crashed).reader(), LedgerReader(crashed)):
        assert reader.partition(TODAY).damaged
        assert [record.payload for record in reader.records(TODAY)][-1:] == [b"six"]


def test_a_frame_whose_payload_is_bad_still_proves_what_was_durable_before_it(crashed: Path) -> None:
    for start in frame_starts(crashed)[3:]:
        flip_byte(segment_of(crashed), start + 48)
    before = segment_of(crashed).read_bytes()
    info = reopened(crashed).segments[0]
    assert (info.state, info.record_count, info.damaged) == (SegmentState.DAMAGED, 4, ((4, 4),))
    assert segment_of(crashed).read_bytes() == before


def test_records_at_the_end_of_a_finished_segment_are_named_though_a_header_copy_is_damaged_too(crashed: Path) -> None:
    reopened(crashed)
    flip_byte(segment_of(crashed), 20)
    flip_byte(segment_of(crashed), frame_starts(crashed)[4])
    for partition in (LedgerReader(crashed).partition(TODAY), reopened(crashed)):
        assert partition.segments[0].record_count == 5
        assert partition.segments[0].damaged == ((5, 5),)


def test_good_bytes_that_are_put_back_are_served_though_the_successor_could_not_tell_them(
    crashed: Path, open_ledger: OpenLedger
) -> None:
    reopened(crashed)
    path = segment_of(crashed)
    good = path.read_bytes()
    path.write_bytes(bytes(len(good)))
    answers = Answers()
    with open_ledger(answers, crashed) as ledger:
        append_each(ledger, answers, [b"next"])
    header = read_head(Disk(), segment_of(crashed, 2)).header
    assert header
    assert header.prev
    assert header.prev.segment_id == SEGMENT_ID_UNKNOWN
    path.write_bytes(good)
    assert served(crashed) == [*FIVE, b"next"]
    again = open_ledger(Answers(), crashed)
    assert not again.partition(TODAY).damaged
    assert not any(isinstance(each, Damage) for each in LedgerReader(crashed).verify(TODAY))
    assert path.read_bytes() == good
