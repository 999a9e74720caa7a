"""The bounded queue between any number of callers and the one flusher thread."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Condition

from ledger.errors import LedgerError, QueueFull


@dataclass(frozen=True, slots=True)
class Pending:
    """One append on its way. `emitted_at` in microseconds; `waiter` is the caller's own and only handed back."""

    payload: bytes
    emitted_at: int
    waiter: object


class AppendQueue:
    """Swapped out whole: while one batch is on its way to the disk the next one gathers. No delay of its own."""

    def __init__(self, records_max: int, bytes_max: int) -> None:
        self._records_max = records_max
        self._bytes_max = bytes_max
        self._changed = Condition()
        self._pending: list[Pending] = []
        self._bytes = 0
        self._refusal: Callable[[], LedgerError] | None = None

    def put(self, pending: Pending) -> None:
        """QueueFull, or what close() was given, at once. An empty queue takes a record of any size."""
        size = len(pending.payload)
        with self._changed:
            if self._refusal:
                raise self._refusal()
            if len(self._pending) >= self._records_max:
                raise QueueFull(f"{self._records_max} records are waiting already")
            if self._pending and self._bytes + size > self._bytes_max:
                raise QueueFull(f"{self._bytes} bytes are waiting already, at most {self._bytes_max}")
            self._pending.append(pending)
            self._bytes += size
            if len(self._pending) == 1:
                self._changed.notify()

    def take(self, timeout_s: float | None) -> list[Pending] | None:
        """All that is waiting, in order; an empty list after `timeout_s`; None once closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._refusal, timeout_s)
            if not self._pending and self._refusal:
                return None
            return self._swap()

    def close(self, refusal: Callable[[], LedgerError]) -> None:
        """Takes nothing more; what is waiting can still be taken. The first refusal stands."""
        with self._changed:
            self._refusal = self._refusal or refusal
            self._changed.notify()

    def fail(self, refusal: Callable[[], LedgerError]) -> list[Pending]:
        """Takes nothing more, for this reason, and gives back what was waiting."""
        with self._changed:
            self._refusal = refusal
            return self._swap()

    def _swap(self) -> list[Pending]:
        taken, self._pending, self._bytes = self._pending, [], 0
        return taken
