"""index.db is expendable: whatever is wrong with it, it is made anew; whatever refuses for now is tried again."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from threading import Thread

import pytest

from ledger import (
    IndexUnavailable,
    LedgerIndex,
    LedgerReader,
)
from tests.ledger.conftest import OpenLedger
from tests.ledger.faults import Answers, append_each
from tests.ledger.indexing import appended, caught_up, everything, firsts, ids, index_of

Garbling = Callable[[Path], object]
FLAWS: dict[str, Garbling] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(b"garbage " * 4096),
    "its first page garbled": lambda path: overwritten(path, 0, 4096),
    "truncated in the middle": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "truncated to its first page": lambda path: path.write_bytes(path.read_bytes()[:4096]),
    "another schema": lambda path: changed(path, "DROP INDEX by_time"),
    "another ledger's": lambda path: changed(path, "UPDATE about SET ledger_id = 'another'"),
    "another version": lambda path: changed(path, "UPDATE about SET version = version + 1"),
    "nothing about itself": lambda path: changed(path, "DELETE FROM about"),
    "more records than there are": lambda path: changed(path, "UPDATE segments SET indexed_count = 99"),
    "a segment there is not": lambda path: changed(
        path, "INSERT INTO segments SELECT partition, 9, segment_id, 1, 0, 0, 0 FROM segments LIMIT 1"
    ),
    "another segment": lambda path: changed(
        path, "UPDATE segments SET segment_id = x'00112233445566778899aabbccddeeff'"
    ),
    "a pruning that was undone": lambda path: changed(path, "UPDATE segments SET is_pruned = 1"),
}


def overwritten(path: Path, start: int, stop: int) -> None:
    data = bytearray(path.read_bytes())
    data[start:stop] = b"\xa5" * (min(stop, len(data)) - start)
    path.write_bytes(data)


def changed(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(sql)
        connection.commit()


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_file_that_is_not_its_index_is_made_anew(open_ledger: OpenLedger, directory: Path, flaw: str) -> None:
    appended(open_ledger, directory, *ids(50), segment_records_max=20)
    with index_of(directory) as index:
        caught_up(index)
        expected = everything(index)
    FLAWS[flaw](directory / "index.db")
    with index_of(directory) as index:
        assert index.advance(10).anew_because
        assert everything(caught_up(index)) == expected == firsts(LedgerReader(directory))
        assert index.advance(10).anew_because == ""


def test_a_garbled_page_is_noticed_when_it_is_read_and_the_file_made_anew(
    open_ledger: OpenLedger, directory: Path
) -> None:
    appended(open_ledger, directory, *ids(300))
    with index_of(directory) as index:
        caught_up(index)
    overwritten(directory / "index.db", 4096, 1 << 30)
    with index_of(directory) as index:
        for _ in range(2):
            try:
                index.advance(1000)
                everything(index)
                break
            except IndexUnavailable:
                assert index.is_behind()
        assert everything(caught_up(index), page=100) == firsts(LedgerReader(directory))


def test_a_file_removed_or_replaced_while_it_is_in_use_is_made_anew(open_ledger: OpenLedger, directory: Path) -> None:
    answers = Answers()
    ledger = open_ledger(answers)
    append_each(ledger, answers, ids(5))
    with index_of(directory, ledger.reader()) as index:
        caught_up(index)
        (directory / "index.db").unlink()
        assert index.advance(10).anew_because
        caught_up(index)
        (directory / "index.db").rename(directory / "aside")
        shutil.copy(directory / "aside", directory / "index.db")
        assert index.advance(10).anew_because
        assert everything(caught_up(index)) == firsts(ledger.reader())
        assert (directory / "index.db").exists()


def test_what_was_found_to_be_wrong_is_not_asked_again_but_made_anew(open_ledger: OpenLedger, directory: Path) -> None:
    appended(open_ledger, directory, *ids(5))
    with index_of(directory) as index:
        caught_up(index)
        index.distrust("it named another record")
        assert index.is_behind()
        with pytest.raises(IndexUnavailable):
            index.find("S-0001")
        assert index.advance(10).anew_because == "it named another record"
        assert index.find("S-0001")


def test_a_locked_file_is_unavailable_for_writing_still_answers_and_goes_on_afterwards(
    open_ledger: OpenLedger, directory: Path
) -> None:
    answers = Answers()
    ledger = open_ledger(answers)
    append_each(ledger, answers, ids(1))
    with index_of(directory, ledger.reader()) as index:
        caught_up(index)
        append_each(ledger, answers, ids(2, start=2))
        with closing(sqlite3.connect(directory / "index.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for _ in range(2):
                with pytest.raises(IndexUnavailable, match="locked"):
                    index.advance(10)
            assert index.find("S-0001")
            assert index.find("S-0002") is None
            assert index.is_behind()
        assert index.advance(10).anew_because == ""
        assert everything(caught_up(index)) == firsts(ledger.reader())


def test_a_full_disk_is_unavailable_and_nothing_is_half_done(open_ledger: OpenLedger, directory: Path) -> None:
    answers = Answers()
    ledger = open_ledger(answers)
    append_each(ledger, answers, ids(1))
    with index_of(directory, ledger.reader()) as index:
        caught_up(index)
        append_each(ledger, answers, ids(300, start=2))
        assert index._writing
        [(pages,)] = index._writing.execute("PRAGMA page_count").fetchall()
        index._writing.execute(f"PRAGMA max_page_count = {pages}").fetchall()
        with pytest.raises(IndexUnavailable, match="full"):
            index.advance(1000)
        assert len(everything(index)) == 1
        index._writing.execute("PRAGMA max_page_count = 1000000").fetchall()
        assert everything(caught_up(index), page=100) == firsts(ledger.reader())


def test_a_directory_that_takes_no_file_is_unavailable_and_then_taken(open_ledger: OpenLedger, directory: Path) -> None:
    appended(open_ledger, directory, *ids(1))
    (directory / "index.db").mkdir()
    with index_of(directory) as index:
        with pytest.raises(IndexUnavailable):
            index.advance(10)
        (directory / "index.db").rmdir()
        assert everything(caught_up(index)) == firsts(LedgerReader(directory))


def test_readers_see_whole_passes_while_it_is_written(open_ledger: OpenLedger, directory: Path) -> None:
    appended(open_ledger, directory, *ids(600))
    problems: list[object] = []

    def read(index: LedgerIndex) -> None:
        try:
            while index.is_behind():
                through = index.indexed_through()
                seen = len(everything(index, page=1000))
                if seen < (through.record_index if through else 0) or seen % 30:
                    problems.append((through, seen))
        except Exception as error:  # noqa: BLE001 - shown by the assertion below
            problems.append(error)

    with index_of(directory, LedgerReader(directory)) as index:
        index.advance(30)
        infos = LedgerReader(directory).partitions()
        index._reader.partitions = lambda: infos  # type: ignore[method-assign]  # a reader of files is for one thread
        threads = [Thread(target=read, args=(index,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        caught_up(index, records_max=30)
        for thread in threads:
            thread.join(10)
    assert problems == []
