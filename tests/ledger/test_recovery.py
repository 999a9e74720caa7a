"""The decision alone, as a pure function: every combination of its inputs falls into exactly one row of a table. Then
the table of FORMAT.md, cell by cell, with real files.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, combinations, pairwise, product
from pathlib import Path

import pytest

from ledger import Ledger, LedgerReader, LedgerSettings, SegmentState
from ledger.opening.recovery import Action, Decision, Evidence, Outcome, decide
from tests.ledger.conftest import OpenLedger
from tests.ledger.decoder import decode
from tests.ledger.faults import (
    FIVE,
    TODAY,
    Answers,
    FaultyDisk,
    append_each,
    at_noon,
    crash_image,
    cut_tail,
    flip_byte,
    frame_starts,
    overwrite,
    reopened,
    segment_of,
    served,
)

PLACES = range(5)  # byte offsets; four spans between them, of which any may be bad
COUNTS = range(4)


def first_bad(evidence: Evidence) -> int:
    return evidence.gaps[0][0] if evidence.gaps else max(PLACES) + 1


def is_durable_and_bad(evidence: Evidence) -> bool:
    """Byte by byte, the way nobody would compute it."""
    bad = {offset for start, end, _ in evidence.gaps for offset in range(start, end)}
    there = set(range(evidence.file_bytes)) - bad
    return not set(range(evidence.durable_end)) <= there or evidence.known_count < (evidence.limit_record_count or 0)


@dataclass(frozen=True)
class Row:
    """`extent` is where the segment ends from then on, and how many records it is known to have held."""

    is_met: Callable[[Evidence], bool]
    outcome: Outcome
    action: Action
    extent: Callable[[Evidence], tuple[int, int]]


def unproved(evidence: Evidence) -> tuple[int, int]:
    """Beyond the proof nothing is kept from the next bad byte on; without one, all that was read is."""
    beyond = [(offset, known) for offset, _, known in evidence.gaps if offset >= evidence.durable_end]
    return beyond[0] if beyond else (max(evidence.limit, evidence.durable_end), evidence.known_count)


ROWS = {
    "a durable byte is bad or missing; a pin, SEAL or FOOTER says where it ends": Row(
        lambda e: is_durable_and_bad(e) and e.limit_record_count is not None,
        Outcome.DAMAGED,
        Action.LEAVE,
        lambda e: (e.limit, max(e.known_count, e.limit_record_count or 0)),
    ),
    "a durable byte is bad or missing; nobody says where it ends": Row(
        lambda e: is_durable_and_bad(e) and e.limit_record_count is None, Outcome.DAMAGED, Action.LEAVE, unproved
    ),
    "bad bytes, none of them proved durable": Row(
        lambda e: not is_durable_and_bad(e) and bool(e.gaps),
        Outcome.TORN_TAIL,
        Action.TRUNCATE_AND_FREEZE,
        lambda e: (e.gaps[0][0], e.gaps[0][2]),
    ),
    "every byte accounted for, and it ends before the file does": Row(
        lambda e: (
            not is_durable_and_bad(e) and not e.gaps and e.limit_record_count is not None and e.limit < e.file_bytes
        ),
        Outcome.CLEAN,
        Action.LEAVE,
        lambda e: (e.limit, e.known_count),
    ),
    "every byte accounted for, and no FOOTER behind them": Row(
        lambda e: (
            not is_durable_and_bad(e) and not e.gaps and (e.limit_record_count is None or e.limit >= e.file_bytes)
        ),
        Outcome.CLEAN,
        Action.FREEZE,
        lambda e: (e.limit, e.known_count),
    ),
}


def every_evidence() -> list[Evidence]:
    """What weigh() can come to: gaps begin below the limit and the file's end; a word for the end is proof up to it."""
    spans = list(pairwise(PLACES))
    some_gaps = list(chain.from_iterable(combinations(spans, n) for n in range(len(spans) + 1)))
    return [
        Evidence(file_bytes, tuple((start, end, start) for start, end in gaps), known, durable, limit, word)
        for file_bytes, gaps, known, durable, limit, word in product(
            PLACES, some_gaps, COUNTS, PLACES, PLACES, (None, *COUNTS)
        )
        if all(start < min(limit, file_bytes) for start, _ in gaps)
        and (limit == file_bytes if word is None else durable >= limit)
    ]


def test_every_evidence_leads_to_exactly_one_row_of_the_table() -> None:
    met: Counter[str] = Counter()
    for evidence in every_evidence():
        names = [name for name, row in ROWS.items() if row.is_met(evidence)]
        assert len(names) == 1, (evidence, names)
        row = ROWS[names[0]]
        assert decide(evidence) == Decision(row.outcome, row.action, *row.extent(evidence)), (names[0], evidence)
        met[names[0]] += 1
    assert set(met) == set(ROWS)
    assert met.total() > 3000


def test_what_is_not_damaged_loses_nothing_that_was_proved_durable() -> None:
    for evidence in every_evidence():
        decision = decide(evidence)
        assert decision.byte_length >= evidence.durable_end or decision.action is Action.LEAVE, evidence
        if decision.outcome is not Outcome.DAMAGED:
            assert decision.byte_length <= first_bad(evidence), evidence


def bad_header(directory: Path) -> None:
    flip_byte(segment_of(directory), 8 + 60)


def bad_record(number: int) -> Callable[[Path], None]:
    return lambda directory: flip_byte(segment_of(directory), frame_starts(directory)[number - 1] + 48)


def bad_mark(directory: Path) -> None:
    [mark, *_] = [frame for frame in decode(segment_of(directory)) if frame.type == "COMMIT_MARK"]
    flip_byte(segment_of(directory), mark.offset + 48)


def bad_end(directory: Path) -> None:
    flip_byte(segment_of(directory), segment_of(directory).stat().st_size - 1)


def cut_short(count: int) -> Callable[[Path], None]:
    return lambda directory: cut_tail(segment_of(directory), count)


def nothing(directory: Path) -> None: ...


# (row, column) of FORMAT.md's second table -> (which files, what is done to them); None where it "cannot be".
CELLS: dict[tuple[int, int], tuple[str, Callable[[Path], None]] | None] = {
    (0, 0): ("crashed", nothing),
    (0, 1): ("marked", nothing),
    (0, 2): ("pinned", nothing),
    (1, 0): ("crashed", bad_header),
    (1, 1): ("marked", bad_header),
    (1, 2): ("pinned", bad_header),
    (2, 0): ("crashed", bad_record(5)),
    (2, 1): ("marked", bad_record(2)),
    (2, 2): ("unfrozen", bad_record(5)),
    (3, 0): ("marked", bad_mark),
    (3, 1): ("resumed", bad_mark),
    (3, 2): ("stopped", bad_mark),
    (4, 0): ("stopped", bad_end),
    (4, 1): None,
    (4, 2): ("pinned", bad_end),
    (5, 0): ("crashed", cut_short(1)),
    (5, 1): None,
    (5, 2): ("pinned", lambda directory: cut_tail(segment_of(directory), segment_of(directory).stat().st_size - 700)),
}


@pytest.fixture
def resumed(tmp_path: Path, open_ledger: OpenLedger) -> Path:
    """A sixth record behind the mark of the five."""
    disk = FaultyDisk()
    answers = Answers(disk.events)
    ledger = open_ledger(answers, tmp_path / "to resume", disk, idle_mark_s=0.05)
    append_each(ledger, answers, FIVE)
    disk.wait_for(lambda events: events[-3][0] == "ack")
    append_each(ledger, answers, [b"six"])
    return crash_image(tmp_path / "to resume", tmp_path / "resumed")


@pytest.fixture
def stopped(open_ledger: OpenLedger, directory: Path) -> Path:
    """Closed by its writer: a mark and the FOOTER."""
    answers = Answers()
    with open_ledger(answers, idle_mark_s=3600) as ledger:
        append_each(ledger, answers, FIVE)
    return directory


@pytest.fixture
def pinned(crashed: Path) -> Path:
    """Frozen by the next writer, and pinned by what that one wrote."""
    answers = Answers()
    settings = LedgerSettings(free_bytes_min=0)
    with Ledger.open(crashed, on_commit=answers, settings=settings, now=at_noon) as ledger:
        append_each(ledger, answers, [b"six"])
    return crashed


@pytest.fixture
def unfrozen(pinned: Path) -> Path:
    """Without the FOOTER that would be trusted unread."""
    path = segment_of(pinned)
    path.write_bytes(path.read_bytes()[: path.read_bytes().rindex(b'{"segment_id"') - 48])
    return pinned


def format_table() -> list[list[str]]:
    text = (Path(__file__).parents[2] / "ledger" / "FORMAT.md").read_text()
    rows = re.search(r"\| bad bytes begin .*\n\|---.*\n((?:\|.*\n)+)", text)
    assert rows
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in rows[1].splitlines()]


def outcome_of(directory: Path) -> str:
    info = reopened(directory).segments[0]
    if info.state is SegmentState.DAMAGED:
        return "damaged"
    return "torn tail" if list(directory.rglob("*.torn")) else "clean"


@pytest.mark.parametrize("cell", CELLS)
def test_each_cell_of_the_table_in_format_md_is_what_happens(
    cell: tuple[int, int], request: pytest.FixtureRequest
) -> None:
    row, column = cell
    table = format_table()
    assert (len(table), len(table[0])) == (6, 4), "a row or a column is new: put it into CELLS"
    told = table[row][column + 1]
    case = CELLS[cell]
    if case is None:
        assert told.startswith("cannot be")
        return
    directory: Path = request.getfixturevalue(case[0])
    case[1](directory)
    assert outcome_of(directory) in told


@pytest.fixture
def closed(crashed: Path) -> Path:
    """Frozen by the next writer, which wrote nothing more: nobody pins it."""
    reopened(crashed)
    return crashed


def footer_start(path: Path) -> int:
    return path.read_bytes().rindex(b'{"segment_id"') - 48


def rot_of_the_end(directory: Path, first: int = 5, words: bytes = b"") -> None:
    """From the payload of a record into the header of the FOOTER; `words` then stand in the place of its first ones."""
    path = segment_of(directory)
    start, end = frame_starts(directory)[first - 1] + 48, footer_start(path) + 8
    overwrite(path, start, bytes(byte ^ 0x5A for byte in path.read_bytes()[start:end]))
    overwrite(path, end + 40, words)


@pytest.mark.parametrize("first", [3, 5])
def test_what_is_left_of_a_footer_proves_that_everything_before_it_was_durable(closed: Path, first: int) -> None:
    end = footer_start(segment_of(closed))
    rot_of_the_end(closed, first)
    before = segment_of(closed).read_bytes()
    [outside] = LedgerReader(closed).partition(TODAY).segments
    info = reopened(closed).segments[0]
    assert outside == info
    assert (info.state, info.record_count, info.byte_length) == (SegmentState.DAMAGED, 5, end)
    assert info.damaged == ((first, 5),)
    assert segment_of(closed).read_bytes() == before
    assert served(closed) == FIVE[: first - 1]


@pytest.mark.parametrize("told", [4, 9999999999])
def test_a_number_of_records_that_the_bad_bytes_cannot_have_held_is_not_believed(closed: Path, told: int) -> None:
    end = footer_start(segment_of(closed))
    begin = segment_of(closed).read_bytes()[end + 48 :].partition(b'"record_count"')[0]
    rot_of_the_end(closed, 5, b'%b"record_count":%d,"byte_length":%d,' % (begin, told, end))
    info = reopened(closed).segments[0]
    assert (info.state, info.record_count, info.byte_length) == (SegmentState.DAMAGED, 5, end)


def test_the_words_of_another_segments_footer_prove_nothing(closed: Path) -> None:
    words = f'{{"segment_id":"{bytes(16).hex()}","record_count":5,"byte_length":{footer_start(segment_of(closed))},'
    rot_of_the_end(closed, 5, words.encode())
    assert outcome_of(closed) == "torn tail"


def test_words_that_stand_in_another_place_than_they_say_prove_nothing(closed: Path) -> None:
    path = segment_of(closed)
    words = path.read_bytes()[footer_start(path) + 48 :]
    rot_of_the_end(closed, 5, b" " * 8 + words)
    assert outcome_of(closed) == "torn tail"


def test_a_damaged_footer_behind_good_records_is_written_anew(closed: Path) -> None:
    flip_byte(segment_of(closed), footer_start(segment_of(closed)))
    [outside] = LedgerReader(closed).partition(TODAY).segments
    assert (outside.state, outside.record_count) == (SegmentState.FROZEN, 5)
    assert served(closed) == FIVE
    assert outcome_of(closed) == "torn tail"
    assert served(closed) == FIVE
