"""P5: appends through the ledger, 64 in flight, 1 KiB each, against bare write + fdatasync of the same bytes."""

import os
import random
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from ledger import Ledger, LedgerError, Position

PAYLOAD_BYTES = 1024
IN_FLIGHT = 64


class Appending:
    """Keeps IN_FLIGHT appends under way: each acknowledgement sends the next."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder = folder
        self._count = count
        self._runs = 0

    def __call__(self) -> float:
        self._runs += 1
        payload = random.Random(self._runs).randbytes(PAYLOAD_BYTES)
        room = threading.Semaphore(IN_FLIGHT)
        failures: list[LedgerError] = []

        def on_commit(results: Sequence[tuple[object, Position | LedgerError]]) -> None:
            failures.extend(result for _, result in results if isinstance(result, LedgerError))
            room.release(len(results)) if results else None

        with Ledger.open(self._folder / f"ledger-{self._runs}", on_commit=on_commit) as ledger:
            now = datetime.now(UTC)
            began = time.perf_counter()
            for _ in range(self._count):
                room.acquire()
                ledger.append(payload, now, None)
            for _ in range(IN_FLIGHT):
                room.acquire()
            took_s = time.perf_counter() - began
        if failures:
            raise failures[0]
        return self._count / took_s


class RawSync:
    """One write and one fdatasync per payload: what a ledger without group commit could reach."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder = folder
        self._count = count

    def __call__(self) -> float:
        payload = bytes(PAYLOAD_BYTES)
        descriptor = os.open(self._folder / "raw", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        try:
            began = time.perf_counter()
            for _ in range(self._count):
                os.write(descriptor, payload)
                os.fdatasync(descriptor)
            return self._count / (time.perf_counter() - began)
        finally:
            os.close(descriptor)
