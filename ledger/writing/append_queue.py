"""The bounded queue between any number of callers and the one flusher thread, and the errands between two batches."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition
from typing import Any, Generic, TypeVar

from ledger.errors import LedgerError, QueueFull

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pending:
    """One append on its way. `emitted_at` in microseconds; `waiter` is the caller's own and only handed back."""

    payload: bytes
    emitted_at: int
    waiter: object


@dataclass(frozen=True, slots=True)
class Errand(Generic[T]):
    """Work for the flusher thread that is no append, and what its waiter gets: the result or a LedgerError."""

    work: Callable[[], T]
    outcome: "Future[T]" = field(default_factory=Future)

    def run(self) -> None:
        """Hands out the outcome. Any error but a LedgerError is raised: then whoever runs it has to call fail()."""
        try:
            result = self.work()
        except LedgerError as refusal:
            self.outcome.set_exception(refusal)
        else:
            self.outcome.set_result(result)

    def fail(self, error: LedgerError) -> None:
        self.outcome.set_exception(error)


@dataclass(frozen=True, slots=True)
class Turn:
    """What the flusher thread is to do next: nothing, when it has waited long enough for something."""

    batch: list[Pending]
    errand: Errand[Any] | None


class AppendQueue:
    """Swapped out whole: while one batch is on its way to the disk the next one gathers. No delay of its own."""

    def __init__(self, records_max: int, bytes_max: int) -> None:
        self._records_max = records_max
        self._bytes_max = bytes_max
        self._changed = Condition()
        self._pending: list[Pending] = []
        self._bytes = 0
        self._errands: deque[Errand[Any]] = deque()
        self._refusal: Callable[[], LedgerError] | None = None

    def put(self, group: Sequence[Pending]) -> None:
        """All of them, or none: QueueFull, or what close() was given, at once. An empty queue takes any group."""
        size = sum(len(pending.payload) for pending in group)
        with self._changed:
            if self._refusal:
                raise self._refusal()
            if self._pending and len(self._pending) + len(group) > self._records_max:
                raise QueueFull(f"{len(self._pending)} records are waiting already, at most {self._records_max}")
            if self._pending and self._bytes + size > self._bytes_max:
                raise QueueFull(f"{self._bytes} bytes are waiting already, at most {self._bytes_max}")
            if not self._pending:
                self._changed.notify()
            self._pending += group
            self._bytes += size

    def put_errand(self, errand: Errand[Any]) -> None:
        """What close() was given, at once."""
        with self._changed:
            if self._refusal:
                raise self._refusal()
            self._errands.append(errand)
            self._changed.notify()

    def take(self, timeout_s: float | None) -> Turn | None:
        """All waiting records, in order, and one errand; neither after `timeout_s`; None once closed and empty.

        One errand, so that many of them hold up no batch.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._errands or self._refusal, timeout_s)
            if not self._pending and not self._errands and self._refusal:
                return None
            errand = self._errands.popleft() if self._errands else None
            return Turn(self._swap(), errand)

    def close(self, refusal: Callable[[], LedgerError]) -> None:
        """Takes nothing more; what is waiting can still be taken. The first refusal stands."""
        with self._changed:
            self._refusal = self._refusal or refusal
            self._changed.notify()

    def fail(self, refusal: Callable[[], LedgerError]) -> list[Pending]:
        """Takes nothing more, for this reason, and gives back what was waiting. Errands are told at once."""
        with self._changed:
            self._refusal = refusal
            while self._errands:
                self._errands.popleft().fail(refusal())
            return self._swap()

    def _swap(self) -> list[Pending]:
        taken, self._pending, self._bytes = self._pending, [], 0
        return taken
