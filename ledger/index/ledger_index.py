"""Which signal stands where: an index beside the ledger, in SQLite, derived from it and made anew whenever in doubt.

Nothing waits for it when a record is appended. What a payload says is the caller's to know: `extract` tells. A signal
that was appended several times answers its first append: within a partition the lowest sequence, across partitions the
lowest written_at, then the name; whatever the order in which they were indexed.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import astuple, dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from ledger.errors import IndexUnavailable, LedgerError
from ledger.index.file import INDEX_FILE, Unfit, created, identity, is_unfit, opened, opened_for_reading
from ledger.index.progress import Place, Progress, contradiction, count_of, is_covered, reconsidered
from ledger.index.query import FIND, PROGRESS, IndexQuery, Key, Parameters, selection
from ledger.index.rows import IndexFields, Row, insert, is_storable, name_of, number_of, row_of
from ledger.positions import (
    PartitionInfo,
    Position,
    Record,
    SegmentInfo,
    SegmentState,
    sequence_of,
)
from ledger.reader import LedgerReader
from ledger.reading.cursor import SegmentCursor

_READ_BYTES_MAX = 2 * 1024 * 1024  # of payload held at a time; one record may be larger than that


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One signal of a list, as its first append. `emitted_at` in microseconds since the epoch, UTC."""

    emitted_at: int
    signal_id: str
    position: Position

    @property
    def key(self) -> Key:
        """What to go on after."""
        return self.emitted_at, self.signal_id


@dataclass(frozen=True, slots=True)
class Advanced:
    """What one pass did. `anew_because` says why the file was made anew before it; "" when it was not."""

    record_count: int
    anew_because: str


@dataclass(slots=True)
class _Batch:
    """What one transaction is to say."""

    rows: list[Row] = field(default_factory=list)
    progress: dict[Place, Progress] = field(default_factory=dict)
    pruned: list[str] = field(default_factory=list)
    record_count: int = 0
    unreadable: Exception | None = None  # the last segment that could not be read now


class LedgerIndex:
    """index.db of one ledger directory. For the process that has the ledger's lock: two would fight over the file.

    advance() and close() belong to one thread; everything else may be called by any, and waits for neither. The reader
    is asked by all of them: the writer's own takes that, one from outside only when all are the same thread.
    """

    def __init__(self, directory: Path, reader: LedgerReader, extract: Callable[[bytes], IndexFields | None]) -> None:
        """Touches no file: the first advance() opens. `extract` answers None, or raises ValueError, for a payload that
        is none of its own."""
        self._path = directory / INDEX_FILE
        self._reader = reader
        self._extract = extract
        self._writing: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._progress: dict[Place, Progress] = {}
        self._cursors: dict[Place, SegmentCursor] = {}
        self._asking = Lock()  # guards the two below
        self._asked: sqlite3.Connection | None = None
        self._is_open = False
        self._unfit_because = ""

    @property
    def passed_over_count(self) -> int:
        """Readable records that `extract` made nothing of."""
        return sum(progress.passed_over_count for progress in list(self._progress.values()))

    @property
    def damaged_count(self) -> int:
        """Records that could not be read when they were to be indexed: nobody knows which signals they are."""
        return sum(progress.damaged_count for progress in list(self._progress.values()))

    def advance(self, records_max: int) -> Advanced:
        """Indexes what has become durable since, at most so many records, in one transaction.

        A file that is missing, damaged, of another ledger or ahead of this one is made anew first. IndexUnavailable
        when SQLite or the disk refuses for now: nothing is half done, and the next call goes on.
        """
        with self._translated():
            infos = self._reader.partitions()
            because = self._maybe_flaw(infos)
            if because:
                self._begin_anew()
            batch = self._gathered(infos, records_max)
            self._write(batch)
        if batch.unreadable and not batch.record_count:
            raise IndexUnavailable(f"the ledger cannot be read now: {batch.unreadable}") from batch.unreadable
        return Advanced(batch.record_count, because)

    def find(self, signal_id: str) -> Position | None:
        """The first append of a signal. None: it is not in what is indexed so far. IndexUnavailable."""
        for partition, sequence, segment_id in self._ask(FIND, (signal_id,)):
            return Position(name_of(partition), segment_id, sequence)
        return None

    def select(self, query: IndexQuery, after: Key | None, limit: int) -> list[IndexEntry]:
        """Signals in the order of (emitted_at, signal_id), those behind `after` alone. IndexUnavailable."""
        [(answer,)] = self._ask(*selection(query, after, limit))
        return sorted(map(_entry, json.loads(answer)), key=lambda entry: entry.key)

    def indexed_through(self) -> Position | None:
        """The furthest position, by partition name and then sequence, up to which everything is indexed.

        None when nothing is. What select() and find() answer afterwards covers at least that.
        """
        progress = self._progress
        through = None
        for info in self._reader.partitions():
            for segment in info.segments:
                done = progress.get((info.name, segment.ordinal))
                if done and done.indexed_count:
                    sequence = sequence_of(segment.ordinal, done.indexed_count)
                    through = Position(info.name, done.segment_id, sequence)
                if not is_covered(done, info, segment):
                    return through
        return through

    def is_behind(self) -> bool:
        """Whether anything is durable in the ledger that is not indexed."""
        return not self.covers(self._reader.partitions())

    def covers(self, infos: Sequence[PartitionInfo]) -> bool:
        """Whether everything is indexed that was durable when the ledger said this of itself."""
        if not self._is_open or self._unfit_because:  # what a file claims is looked at before it is opened
            return False
        progress = self._progress
        return all(
            is_covered(progress.get((info.name, segment.ordinal)), info, segment)
            for info in infos
            for segment in info.segments
        )

    def missing_count(self, infos: Sequence[PartitionInfo]) -> int:
        """How many records are not indexed of those that were durable when the ledger said this of itself."""
        progress = self._progress if self._is_open and not self._unfit_because else {}
        return sum(
            segment.record_count - min(done.indexed_count if done else 0, segment.record_count)
            for info in infos
            if not info.is_pruned
            for segment in info.segments
            for done in (progress.get((info.name, segment.ordinal)),)
        )

    def distrust(self, because: str) -> None:
        """An answer was found to be wrong: the next advance() makes the file anew. Until then nothing is answered."""
        self._unfit_because = because

    def close(self) -> None:
        """Afterwards nothing is answered. advance() would open it again."""
        self._stop_answering()
        if self._writing:
            self._writing.close()
            self._writing = None

    def _maybe_flaw(self, infos: Sequence[PartitionInfo]) -> str:
        """Why the file has to be made anew; "" when it is as it should be, and open."""
        if self._unfit_because:
            return self._unfit_because
        if self._writing and identity(self._path) != self._file:
            return "it was removed or replaced"
        try:
            if not self._writing:
                self._open()
        except Unfit as unfit:
            return str(unfit)
        if flaw := contradiction(self._progress, infos):
            return flaw
        if not self._is_open:  # damage is known for as long as a process lives: restored is what the next one reads
            self._progress = reconsidered(self._progress, infos)
        self._start_answering()
        return ""

    def _open(self) -> None:
        connection = opened(self._path, self._reader.ledger_id)
        try:
            told = connection.execute(PROGRESS).fetchall()
        except sqlite3.Error:
            connection.close()
            raise
        self._progress = {
            (name_of(partition), ordinal): Progress(segment_id, *counts)
            for partition, ordinal, segment_id, *counts in told
        }
        self._writing = connection
        self._file = identity(self._path)

    def _begin_anew(self) -> None:
        self.close()
        self._cursors = {}
        self._progress = {}
        self._writing = created(self._path, self._reader.ledger_id)
        self._file = identity(self._path)
        self._unfit_because = ""
        self._start_answering()

    def _start_answering(self) -> None:
        with self._asking:
            self._is_open = True

    def _stop_answering(self) -> None:
        with self._asking:
            self._is_open = False
            if self._asked:
                self._asked.close()
                self._asked = None

    def _gathered(self, infos: Sequence[PartitionInfo], records_max: int) -> _Batch:
        batch = _Batch()
        live: set[Place] = set()
        for info in infos:
            for segment in info.segments:
                place = info.name, segment.ordinal
                done = self._progress.get(place) or Progress(segment.segment_id)
                if segment.state is not SegmentState.FROZEN:
                    live.add(place)
                if is_covered(done, info, segment):
                    continue
                if info.is_pruned:
                    batch.pruned.append(info.name)
                    batch.progress[place] = Progress(done.segment_id, segment.record_count, is_pruned=1)
                elif batch.record_count < records_max:
                    self._index(segment, done, records_max - batch.record_count, batch)
                    live.add(place)
        self._cursors = {place: cursor for place, cursor in self._cursors.items() if place in live}
        return batch

    def _index(self, segment: SegmentInfo, done: Progress, records_max: int, batch: _Batch) -> None:
        """At most so many records of a segment, a few MiB at a time: only their rows are kept."""
        while records_max > 0 and done.indexed_count < segment.record_count:
            before, done = done, self._read(segment, done, records_max, batch)
            if done is before:
                return
            records_max -= done.indexed_count - before.indexed_count

    def _read(self, segment: SegmentInfo, done: Progress, records_max: int, batch: _Batch) -> Progress:
        """How far the segment is indexed afterwards; `done` where it cannot be read now."""
        place = segment.partition, segment.ordinal
        cursor = self._cursors.pop(place, None)
        try:
            if cursor is None:
                cursor = self._reader.segment_cursor(*place, done.indexed_count + 1)
            records = cursor.read(records_max, _READ_BYTES_MAX)
        except (OSError, LedgerError, KeyError) as error:
            batch.unreadable = error
            return done
        if cursor.is_away and count_of(segment.damaged, segment.record_count) < segment.record_count:
            batch.unreadable = FileNotFoundError(f"segment {segment.ordinal} of {segment.partition} is away")
            return done
        self._cursors[place] = cursor
        rows = [row for record in records if (row := self._maybe_row(record))]
        # No more records, and some were durable before it was asked for them: they are damaged.
        indexed = records[-1].position.record_index if records else segment.record_count
        after = batch.progress[place] = Progress(
            done.segment_id,
            indexed,
            done.passed_over_count + len(records) - len(rows),
            done.damaged_count + indexed - done.indexed_count - len(records),
        )
        batch.rows += rows
        batch.record_count += indexed - done.indexed_count
        return after

    def _maybe_row(self, record: Record) -> Row | None:
        try:
            fields = self._extract(record.payload)
        except ValueError:
            return None
        return row_of(record, fields) if fields and is_storable(fields) else None

    def _write(self, batch: _Batch) -> None:
        connection = self._writing
        if connection is None or not batch.progress:
            return
        try:
            connection.execute("BEGIN IMMEDIATE")
            for partition in dict.fromkeys(batch.pruned):
                connection.execute("DELETE FROM signals WHERE partition = ?", (number_of(partition),))
            insert(connection, batch.rows)
            connection.executemany(
                "INSERT OR REPLACE INTO segments VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(number_of(name), ordinal, *astuple(to)) for (name, ordinal), to in batch.progress.items()],
            )
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # it may never have begun, or be rolled back already
                connection.execute("ROLLBACK")
            self._cursors = {}  # they have gone on without what they read
            raise
        self._progress |= batch.progress

    def _ask(self, sql: str, values: Parameters) -> list[tuple[Any, ...]]:
        with self._translated(), self._asking:
            if not self._is_open or self._unfit_because:
                raise IndexUnavailable("the index is being opened or made anew")
            if self._asked is None:
                self._asked = opened_for_reading(self._path)
            with closing(self._asked.execute(sql, values)) as cursor:
                return cursor.fetchall()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if is_unfit(error):
                self._unfit_because = str(error)
            raise IndexUnavailable(f"the index cannot be used now: {error}") from error
        except OSError as error:
            raise IndexUnavailable(f"the index cannot be used now: {error}") from error


def _entry(told: tuple[int, str, int, int, str]) -> IndexEntry:
    emitted_at, signal_id, partition, sequence, segment_id = told
    return IndexEntry(emitted_at, signal_id, Position(name_of(partition), bytes.fromhex(segment_id), sequence))
