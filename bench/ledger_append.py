"""P5: appends through the ledger, 64 in flight, 1 KiB each, against bare write + fdatasync of the same bytes.

And what one append takes when nothing else is under way, against the same.
"""

import itertools
import os
import random
import statistics
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.rounds import Figure, Scale, measure
from ledger import Ledger, LedgerError, LedgerSettings, Position
from ledger.format import frame_bytes

PAYLOAD_BYTES = 1024
IN_FLIGHT = 64
IN_FLIGHT_TO_FILL = 4096


def figures(scale: Scale) -> list[Figure]:
    return [throughput(scale), latency(scale)]


def throughput(scale: Scale) -> Figure:
    ours, theirs = scale.of(20_000), scale.of(2_000)
    return Figure(
        "ledger append, 64 in flight",
        "records/s",
        f"{ours:,} payloads of 1 KiB, 1 process, one fdatasync a batch; against {theirs:,}, one fdatasync each",
        measure(Appending(scale.folder, ours), scale.rounds, RawSync(scale.folder, theirs)),
        compared_with="write + fdatasync of the same",
        at_least=8.0,
    )


def latency(scale: Scale) -> Figure:
    count = scale.of(1_000)
    with OneByOne(scale.folder, count) as one_by_one:
        return Figure(
            "ledger append, 1 in flight, p50",
            "µs",
            f"{count:,} payloads of 1 KiB (frames of 1,072 bytes), 1 process, one fdatasync each, both sides",
            measure(one_by_one, scale.rounds, RawOneByOne(scale.folder, count)),
            compared_with="write + fdatasync of the same",
            at_most=2.0,
        )


class Appender:
    """Keeps `in_flight` appends under way: each acknowledgement makes room for the next."""

    def __init__(self, directory: Path, in_flight: int, settings: LedgerSettings | None = None) -> None:
        self._in_flight = in_flight
        self._room = threading.Semaphore(in_flight)
        self._failures: list[LedgerError] = []
        self.ledger = Ledger.open(directory, on_commit=self._answered, settings=settings or LedgerSettings())

    def append(self, payloads: Iterable[bytes], emitted_at: datetime) -> None:
        """Returns when all are acknowledged."""
        for payload in payloads:
            self._room.acquire()
            self.ledger.append(payload, emitted_at, None)
        for _ in range(self._in_flight):
            self._room.acquire()
        self._room.release(self._in_flight)
        if self._failures:
            raise self._failures[0]

    def _answered(self, results: Sequence[tuple[object, Position | LedgerError]], written_at: int) -> None:
        self._failures.extend(result for _, result in results if isinstance(result, LedgerError))
        if results:
            self._room.release(len(results))


def fill(directory: Path, count: int) -> Ledger:
    """A ledger with `count` records, all acknowledged."""
    appender = Appender(directory, IN_FLIGHT_TO_FILL)
    appender.append(payloads(count), datetime.now(UTC))
    return appender.ledger


def payloads(count: int) -> Iterator[bytes]:
    return itertools.repeat(random.Random(count).randbytes(PAYLOAD_BYTES), count)


class Appending:
    """Records a second."""

    def __init__(self, folder: Path, count: int) -> None:
        self._directories = (folder / f"appending-{number}" for number in itertools.count())
        self._count = count

    def __call__(self) -> float:
        appender = Appender(next(self._directories), IN_FLIGHT)
        with appender.ledger:
            began = time.perf_counter()
            appender.append(payloads(self._count), datetime.now(UTC))
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
        now = datetime.now(UTC)
        for payload in payloads(self._count):
            began = time.perf_counter()
            self._appender.append((payload,), now)
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
