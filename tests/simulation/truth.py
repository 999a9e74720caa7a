"""What RiskCast's file says, read beside RiskCast and without its code: what is committed, and nothing else."""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riskcast_server.store.sqlite.file import log_of
from tests.simulation.book import Place
from tests.simulation.catalogue import said

Settled = set[Place]

# By the rule itself: a place with a row; a refusal; a repeat or a conflict whose signal has a row.
SETTLED = """
SELECT ledger_id, segment_id, record_index FROM signals WHERE arrival_path <> 1
UNION ALL
SELECT ledger_id, segment_id, record_index FROM settlements WHERE outcome = 'rejected'
    OR (signal_id, input_event_hash) IN (SELECT signal_id, input_event_hash FROM signals)
"""


@dataclass(frozen=True, slots=True)
class StoredRow:
    signal_id: str
    input_event_hash: str
    ack_id: str
    event: bytes


class Truth:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._names = str(path), str(log_of(path))
        self._files: tuple[int, int]
        self._open()

    def close(self) -> None:
        self._connection.close()

    def ask(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        found = self._current().execute(sql, values).fetchall()
        if 0 in self._files:
            self._files = self._files_now()  # the log is opened, or made, when something is read
        return found

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """Somebody else's transaction. sqlite3.OperationalError at once while RiskCast is in one."""
        connection = self._current()
        connection.execute("BEGIN IMMEDIATE")
        yield connection
        connection.execute("COMMIT")

    def copy_to(self, path: Path) -> None:
        target = sqlite3.connect(path)
        self._current().backup(target)
        target.close()

    def _open(self) -> None:
        self._connection = sqlite3.connect(self._path, isolation_level=None, timeout=0)
        self._files = self._files_now()

    def _current(self) -> sqlite3.Connection:
        """On the files that have the names now: somebody may have put others in place, and whoever closes the old ones
        takes a log away by its name."""
        if self._files != self._files_now():
            self._connection.close()
            self._open()
        return self._connection

    def _files_now(self) -> tuple[int, int]:
        file, log = self._names
        return _inode_of(file), _inode_of(log)

    def maybe_row(self, signal_id: str) -> StoredRow | None:
        sql = "SELECT signal_id, input_event_hash, ack_id, event FROM signals WHERE signal_id = ?"
        found = self.ask(sql, (signal_id,))
        return StoredRow(*found[0]) if found else None

    def rows(self) -> list[StoredRow]:
        return [StoredRow(*row) for row in self.ask("SELECT signal_id, input_event_hash, ack_id, event FROM signals")]

    def unstored(self, payloads: Iterable[bytes]) -> list[bytes]:
        """Those whose event has no row, or only another one of the same id has."""
        stored = set(self.ask("SELECT signal_id, input_event_hash FROM signals"))
        return [
            each for each in payloads if not any((i, said(each).input_event_hash) in stored for i in said(each).ids)
        ]

    def rows_at(self, ledger_id: str, partition: str) -> Settled:
        """The places of which rows claim that this ledger delivered or replayed them."""
        sql = "SELECT ledger_id, segment_id, record_index FROM signals WHERE arrival_path <> 1 AND ledger_id = ?"
        return set(self.ask(f"{sql} AND partition = ?", (ledger_id, partition)))

    def settled(self) -> Settled:
        return set(self.ask(SETTLED))

    def open_conflicts(self) -> Settled:
        sql = "SELECT ledger_id, segment_id, record_index FROM settlements WHERE outcome = 'conflict'"
        return set(self.ask(sql))

    def cached(self) -> Settled:
        """What coverage says."""
        places: Settled = set()
        for ledger_id, segment_id, intervals in self.ask("SELECT ledger_id, segment_id, intervals FROM coverage"):
            for run in filter(None, intervals.split(",")):
                first, _, last = run.partition("-")
                places |= {(ledger_id, segment_id, index) for index in range(int(first), int(last or first) + 1)}
        return places


def _inode_of(name: str) -> int:
    """0 while there is no such file."""
    try:
        return os.stat(name).st_ino
    except FileNotFoundError:
        return 0
