"""A real writer to be killed: `python -m tests.ledger.writer_process DIRECTORY PREFIX`.

Appends for ever, 64 in flight, payloads PREFIX-1, PREFIX-2, …; writes each number on stdout, as a line, when the ledger
has acknowledged it. Exits 3 with one line when the ledger is locked.
"""

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from threading import Semaphore

from ledger import Ledger, LedgerError, LedgerLocked, LedgerSettings, Position


def payload(prefix: str, number: int) -> bytes:
    return f"{prefix}-{number}-".encode() + bytes(number % 700)


def main(directory: Path, prefix: str) -> None:
    in_flight = Semaphore(64)

    def acknowledge(results: Sequence[tuple[object, Position | LedgerError]], written_at: int) -> None:
        lines = [f"{waiter}\n" for waiter, answer in results if isinstance(answer, Position)]
        os.write(sys.stdout.fileno(), "".join(lines).encode())
        in_flight.release(len(results))

    settings = LedgerSettings(free_bytes_min=0, segment_records_max=500, idle_mark_s=0.01)
    try:
        ledger = Ledger.open(directory, on_commit=acknowledge, settings=settings)
    except LedgerLocked as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(3) from error
    for number in count(1):
        in_flight.acquire()
        ledger.append(payload(prefix, number), datetime.now(UTC), number)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
