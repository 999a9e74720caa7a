"""The index: finds what the ledger holds, lists it in order, and says how far it has come."""

import hashlib
import shutil
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger import (
    IndexFields,
    IndexQuery,
    IndexUnavailable,
    Ledger,
    LedgerError,
    LedgerIndex,
    LedgerReader,
    LedgerSettings,
    Position,
    SealState,
)
from ledger.index.query import FIND, selection
from ledger.seal import encode_seal, maybe_decoded
from tests.ledger.conftest import OpenLedger
from tests.ledger.faults import NOON, Answers, FaultyDisk, UnsyncedDisk, append_each, at_noon, flip_byte, segment_of
from tests.ledger.indexing import appended, caught_up, everything, extract, firsts, ids, index_of, payload

LATER = NOON + timedelta(seconds=1)


def test_a_signal_is_found_as_soon_as_it_is_indexed_and_not_before(open_ledger: OpenLedger, directory: Path) -> None:
    answers = Answers()
    ledger = open_ledger(answers)
    with index_of(directory, ledger.reader()) as index:
        caught_up(index)
        assert index.indexed_through() is None
        [position] = append_each(ledger, answers, [payload("S-1")])
        assert index.find("S-1") is None
        assert index.is_behind()
        caught_up(index)
        assert index.find("S-1") == position == index.indexed_through()
        assert index.find("S-2") is None


def test_nothing_is_answered_before_the_file_was_looked_at(open_ledger: OpenLedger, directory: Path) -> None:
    appended(open_ledger, directory, *ids(1))
    with index_of(directory) as index:
        caught_up(index)
    with index_of(directory) as index:
        assert index.is_behind()
        assert not index.covers([])
        with pytest.raises(IndexUnavailable):
            index.find("S-0001")
        index.advance(1)
        assert index.find("S-0001")
    with pytest.raises(IndexUnavailable):
        index.find("S-0001")


def test_what_is_missing_is_counted_and_all_of_it_until_the_file_was_looked_at(
    open_ledger: OpenLedger, directory: Path
) -> None:
    appended(open_ledger, directory, *ids(10), segment_records_max=4)
    infos = LedgerReader(directory).partitions()
    with index_of(directory) as index:
        missing = [index.missing_count(infos)]
        while index.advance(3).record_count:
            missing.append(index.missing_count(infos))
        assert missing == [10, 7, 4, 1, 0]
        index.distrust("it was wrong")
        assert index.missing_count(infos) == 10


def test_a_pass_indexes_as_much_as_it_is_told_and_the_next_goes_on(open_ledger: OpenLedger, directory: Path) -> None:
    appended(open_ledger, directory, *ids(10), segment_records_max=4)
    with index_of(directory) as index:
        assert [index.advance(3).record_count for _ in range(5)] == [3, 3, 3, 1, 0]
        assert len(everything(index)) == 10
    with index_of(directory) as index:
        assert index.advance(3).record_count == 0
        assert not index.is_behind()


def test_it_says_how_far_it_has_come_in_the_order_of_the_ledger(open_ledger: OpenLedger, directory: Path) -> None:
    answers = Answers()
    ledger = open_ledger(answers, segment_records_max=2)
    positions = append_each(ledger, answers, ids(5))
    positions += append_each(ledger, answers, ids(2, start=6), NOON - timedelta(days=1))
    positions.sort(key=lambda position: (position.partition, position.sequence))
    with index_of(directory, ledger.reader()) as index:
        for position in positions:
            index.advance(1)
            assert index.indexed_through() == position
        assert not index.is_behind()
        append_each(ledger, answers, ids(1, start=8), NOON - timedelta(days=1))
        through = index.indexed_through()
        assert through
        assert (through.partition, through.sequence) == ("2026-01-28-late", positions[1].sequence)


def test_lists_are_in_the_order_of_emitted_at_and_then_of_the_id(open_ledger: OpenLedger, directory: Path) -> None:
    answers = Answers()
    ledger = open_ledger(answers)
    append_each(ledger, answers, [payload("S-3"), payload("S-1")], LATER)
    append_each(ledger, answers, [payload("S-2"), payload("S-4")], NOON)
    with index_of(directory, ledger.reader()) as index:
        caught_up(index)
        assert [entry.signal_id for entry in everything(index, page=1)] == ["S-2", "S-4", "S-1", "S-3"]
        assert everything(index) == firsts(ledger.reader())


def microseconds(moment: datetime) -> int:
    return round(moment.timestamp()) * 1_000_000


FILTERS: dict[str, tuple[IndexQuery, str, set[str]]] = {
    "from is included": (IndexQuery(emitted_from=microseconds(LATER)), "by_time", {"S-3", "S-4"}),
    "before is not": (IndexQuery(emitted_before=microseconds(LATER)), "by_time", {"S-1", "S-2"}),
    "an empty range": (IndexQuery(microseconds(NOON), microseconds(NOON)), "by_time", set()),
    "any of the trace ids": (IndexQuery(trace_ids=("t2", "t3", "none")), "by_trace", {"S-2", "S-3", "S-4"}),
    "a category": (IndexQuery(category=1), "by_category", {"S-1", "S-3"}),
    "a question": (IndexQuery(source_event_id="b"), "by_source_event", {"S-3", "S-4"}),
    "all that is set": (
        IndexQuery(microseconds(NOON), microseconds(LATER), ("t1", "t2"), 2, "a"),
        "by_trace",
        {"S-2"},
    ),
    "a category in a range": (IndexQuery(microseconds(LATER), category=1), "by_category", {"S-3"}),
    "a question in a category": (IndexQuery(category=2, source_event_id="b"), "by_source_event", {"S-4"}),
}


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_keeps_what_it_says_by_an_index_of_its_own(
    open_ledger: OpenLedger, directory: Path, name: str
) -> None:
    query, used, expected = FILTERS[name]
    answers = Answers()
    ledger = open_ledger(answers)
    append_each(ledger, answers, [payload("S-1", "t1", 1, "a"), payload("S-2", "t2", 2, "a")], NOON)
    append_each(ledger, answers, [payload("S-3", "t3", 1, "b"), payload("S-4", "t2", 2, "b")], LATER)
    with index_of(directory, ledger.reader()) as index:
        caught_up(index)
        assert {entry.signal_id for entry in everything(index, query, page=1)} == expected
    for after in (None, (microseconds(NOON), "S-1")):
        plan = plan_of(directory, *selection(query, after, 10))
        searched = [line for line in plan if line.startswith(("SEARCH s ", "SCAN s "))]
        assert len(searched) == 1
        assert f"INDEX {used}" in searched[0]
        assert searched[0].startswith("SEARCH") or query == IndexQuery()
        assert any("SEARCH other USING" in line and "by_signal (signal_id=?" in line for line in plan), plan
        sorts = [line for line in plan if "TEMP B-TREE" in line]
        assert sorts == [] or used == "by_trace"


def plan_of(directory: Path, sql: str, values: tuple[int | str, ...]) -> list[str]:
    with closing(sqlite3.connect(directory / "index.db")) as connection:
        return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]


def test_finding_a_signal_searches_an_index(open_ledger: OpenLedger, directory: Path) -> None:
    appended(open_ledger, directory, *ids(1))
    with index_of(directory) as index:
        caught_up(index)
    plan = plan_of(directory, FIND, ("S-0001",))
    assert any("SEARCH signals USING INDEX by_signal (signal_id=?)" in line for line in plan)
    assert [line for line in plan if line.startswith("SCAN")] == []


def test_the_page_after_a_key_begins_its_search_there(open_ledger: OpenLedger, directory: Path) -> None:
    appended(open_ledger, directory, *ids(1))
    with index_of(directory) as index:
        caught_up(index)
    for query in (IndexQuery(), IndexQuery(emitted_from=0)):
        plan = plan_of(directory, *selection(query, (1, "S"), 10))
        assert any("by_time ((emitted_at,signal_id)>(?,?))" in line for line in plan), plan


def test_what_extract_makes_nothing_of_is_passed_over_and_counted(open_ledger: OpenLedger, directory: Path) -> None:
    odd = [
        b"no JSON",
        b"{}",
        payload("S-1"),
        payload("lone \ud800"),
        payload("nul \0"),
        payload("S-2", category=1 << 63),
    ]
    appended(open_ledger, directory, *odd)
    with index_of(directory) as index:
        caught_up(index)
        assert [entry.signal_id for entry in everything(index)] == ["S-1"]
        assert index.passed_over_count == 5
    with index_of(directory) as index:
        caught_up(index)
        assert index.passed_over_count == 5


def test_damaged_records_are_passed_over_and_do_not_keep_it_behind(open_ledger: OpenLedger, directory: Path) -> None:
    five = ids(5)
    appended(open_ledger, directory, *five)
    data = segment_of(directory).read_bytes()
    for hit in (five[0], five[2], five[4]):
        flip_byte(segment_of(directory), data.index(hit))
    with index_of(directory) as index:
        caught_up(index, records_max=1)
        assert [entry.signal_id for entry in everything(index)] == ["S-0002", "S-0004"]
        assert (index.passed_over_count, index.damaged_count) == (0, 3)
        through = index.indexed_through()
        assert through
        assert through.record_index == 5


def test_a_pass_without_news_reads_no_file_however_many_segments_there_are(
    open_ledger: OpenLedger, directory: Path
) -> None:
    class Counting(FaultyDisk):
        reads = 0

        def read(self, path: Path, offset: int, size: int) -> bytes:
            Counting.reads += 1
            return super().read(path, offset, size)

    answers = Answers()
    ledger = open_ledger(answers, disk=Counting(), segment_records_max=1)
    append_each(ledger, answers, ids(40))
    with index_of(directory, ledger.reader()) as index:
        caught_up(index)
        before = Counting.reads
        assert index.advance(100).record_count == 0
        assert Counting.reads == before
        assert len(index._cursors) <= 1


def pruned(directory: Path, partition: str) -> None:
    """As pruning leaves a partition: its segments gone, its SEAL saying so."""
    path = directory / partition / "SEAL"
    seal = maybe_decoded(path.read_bytes())
    assert seal
    path.unlink()
    path.write_bytes(encode_seal(replace(seal, state=SealState.PRUNED)))
    for segment in (directory / partition).glob("*.log"):
        segment.unlink()


def test_what_was_pruned_is_forgotten_and_does_not_keep_it_behind(
    open_ledger: OpenLedger, directory: Path, tmp_path: Path
) -> None:
    answers = Answers()
    ledger = open_ledger(answers, now=lambda: NOON - timedelta(days=3))
    append_each(ledger, answers, [payload("S-1"), payload("S-2")], NOON - timedelta(days=3))
    ledger.close()
    ledger = open_ledger(answers)
    kept = append_each(ledger, answers, [payload("S-2", note="again"), payload("S-3")])
    ledger.seal("2026-01-26")
    ledger.close()
    with index_of(directory) as index:
        caught_up(index)
        assert [entry.signal_id for entry in everything(index)] == ["S-1", "S-2", "S-3"]
    shutil.copytree(directory, tmp_path / "before")
    pruned(directory, "2026-01-26")
    for _ in ("the index of before", "one made anew"):
        with index_of(directory) as index:
            caught_up(index)
            assert index.find("S-1") is None
            assert index.find("S-2") == kept[0]
            assert everything(index) == firsts(LedgerReader(directory))
        (directory / "index.db").rename(directory / "of what was pruned")
    shutil.copy(directory / "of what was pruned", tmp_path / "before" / "index.db")
    with index_of(tmp_path / "before") as index:
        assert index.advance(10).anew_because
        assert len(everything(caught_up(index))) == 3


@given(
    batches=st.lists(
        st.tuples(
            st.integers(0, 3),  # the day before today that it is emitted on
            st.lists(st.sampled_from(["S-1", "S-2", "S-3", "S-4"]), min_size=1, max_size=4),
            st.integers(-120, 120),  # how far the clock goes on, or back, in seconds
            st.integers(0, 3),  # how much is indexed afterwards
        ),
        max_size=8,
    ),
    segment_records_max=st.integers(1, 3),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_index_that_followed_and_one_made_anew_answer_the_first_append_alike(
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[tuple[int, list[str], int, int]],
    segment_records_max: int,
) -> None:
    directory = tmp_path_factory.mktemp("ledger")
    clock = [NOON]
    answers = Answers()
    limits = LedgerSettings(free_bytes_min=0, segment_records_max=segment_records_max, main_grace_s=10**6)
    with (
        Ledger.open(directory, on_commit=answers, settings=limits, disk=UnsyncedDisk(), now=lambda: clock[0]) as ledger,
        index_of(directory, ledger.reader()) as index,
    ):
        index.advance(1)
        for number, (days, signal_ids, seconds, records_max) in enumerate(batches):
            clock[0] += timedelta(seconds=seconds)
            payloads = [payload(one, note=f"{number}.{place}") for place, one in enumerate(signal_ids)]
            append_each(ledger, answers, payloads, NOON - timedelta(days=days))
            index.advance(records_max)
        expected = firsts(ledger.reader())
        assert everything(caught_up(index)) == expected
        assert [index.find(entry.signal_id) for entry in expected] == [entry.position for entry in expected]
    for file in directory.glob("index.db*"):
        file.unlink()
    with index_of(directory) as index:
        assert everything(caught_up(index, records_max=2)) == expected


def test_each_of_twenty_thousand_records_is_looked_at_once(where: Path) -> None:
    """What it takes grows as the ledger does: by no more than what is new."""
    total = 20_000
    acknowledged = Event()
    count = 0
    looked_at = Counter[bytes]()

    def on_commit(results: Sequence[tuple[object, Position | LedgerError]], written_at: int) -> None:
        nonlocal count
        count += len(results)
        if count == total:
            acknowledged.set()

    def counted(data: bytes) -> IndexFields | None:
        looked_at[data] += 1
        return extract(data)

    limits = LedgerSettings(free_bytes_min=0, queue_records_max=total, segment_records_max=3000)
    with Ledger.open(where, on_commit=on_commit, settings=limits, now=at_noon) as ledger:
        for number in range(total):
            digest = hashlib.sha256(str(number).encode()).hexdigest()
            ledger.append(payload(digest[:12], digest[:16], number % 9, f"event {number % 5000}"), NOON, number)
        assert acknowledged.wait(60)
        with closing(LedgerIndex(where, ledger.reader(), counted)) as index:
            caught_up(index, records_max=2048)
            assert len(everything(index, page=5000)) == total
    assert (len(looked_at), looked_at.total()) == (total, total)
