"""P5: appends through the ledger, 64 in flight, 1 KiB each, against bare write + fdatasync of the same bytes.

And what one append takes when nothing else is under way, against the same.
"""

import os
import random
import statistics
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count as numbers
from pathlib import Path

from ledger import Ledger, LedgerError, Position
from ledger.format import frame_bytes

PAYLOAD_BYTES = 1024
IN_FLIGHT = 64
_FILL_IN_FLIGHT = 4096


class Appender:
    """Keeps `in_flight` appends under way: each acknowledgement makes room for the next."""

    def __init__(self, directory: Path, in_flight: int) -> None:
        self._in_flight = in_flight
        self._room = threading.Semaphore(in_flight)
        self._failures: list[LedgerError] = []
        self._payload = random.Random(in_flight).randbytes(PAYLOAD_BYTES)
        self.ledger = Ledger.open(directory, on_commit=self._answered)

    def append(self, count: int) -> None:
        """Returns when all are acknowledged."""
        now = datetime.now(UTC)
        for _ in range(count):
            self._room.acquire()
            self.ledger.append(self._payload, now, None)
        for _ in range(self._in_flight):
            self._room.acquire()
        self._room.release(self._in_flight)
        if self._failures:
            raise self._failures[0]

    def _answered(self, results: Sequence[tuple[object, Position | LedgerError]]) -> None:
        self._failures.extend(result for _, result in results if isinstance(result, LedgerError))
        if results:
            self._room.release(len(results))


def fill(directory: Path, count: int) -> Ledger:
    """A ledger with `count` records, all acknowledged."""
    appender = Appender(directory, _FILL_IN_FLIGHT)
    appender.append(count)
    return appender.ledger


class Appending:
    """Records a second."""

    def __init__(self, folder: Path, count: int) -> None:
        self._directories = (folder / f"appending-{number}" for number in numbers())
        self._count = count

    def __call__(self) -> float:
        appender = Appender(next(self._directories), IN_FLIGHT)
        with appender.ledger:
            began = time.perf_counter()
            appender.append(self._count)
            return self._count / (time.perf_counter() - began)


class RawSync:
    """One write and one fdatasync per payload, a second: what a ledger without group commit could reach."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder = folder
        self._count = count

    def __call__(self) -> float:
        return self._count / sum(raw_seconds(self._folder / "raw", self._count, PAYLOAD_BYTES))


class OneByOne:
    """Microseconds from append() until the caller goes on, p50, one in flight."""

    def __init__(self, folder: Path, count: int) -> None:
        self._appender = Appender(folder / "one-by-one", 1)
        self._count = count

    def __call__(self) -> float:
        taken_s = []
        for _ in range(self._count):
            began = time.perf_counter()
            self._appender.append(1)
            taken_s.append(time.perf_counter() - began)
        return statistics.median(taken_s) * 1e6

    def __enter__(self) -> "OneByOne":
        return self

    def __exit__(self, *reason: object) -> None:
        self._appender.ledger.close()


class RawOneByOne:
    """Microseconds for one write and one fdatasync of what the ledger writes for such a record, p50."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder = folder
        self._count = count

    def __call__(self) -> float:
        return statistics.median(raw_seconds(self._folder / "raw", self._count, frame_bytes(PAYLOAD_BYTES))) * 1e6


def raw_seconds(path: Path, count: int, size: int) -> list[float]:
    data = bytes(size)
    taken_s = []
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        for _ in range(count):
            began = time.perf_counter()
            os.write(descriptor, data)
            os.fdatasync(descriptor)
            taken_s.append(time.perf_counter() - began)
    finally:
        os.close(descriptor)
    return taken_s
