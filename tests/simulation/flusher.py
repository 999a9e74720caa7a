"""The thread of a ledger, without the thread: what it would do next is done a while later, in one piece.

All that the ledger itself does is unchanged; only `Thread`, and the `Condition` by which the two talk, are replaced.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self, cast
from unittest.mock import patch

from ledger import Ledger, LedgerUnavailable, writer
from ledger.writing import append_queue, commit
from tests.simulation.world import World

SYNCS_PER_S = (500, 500, 40)  # some disks are slow


class Told:
    """A condition in which nobody ever waits."""

    def __init__(self) -> None:
        self.on_notify: Callable[[], None] = lambda: None
        self._is_notified = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_notified:
            self._is_notified = False
            self.on_notify()

    def notify(self) -> None:
        self._is_notified = True

    def wait_for(self, predicate: Callable[[], object], timeout_s: float | None = None) -> object:
        return predicate()


class Flusher:
    """`on_death` is called when the disk dies under it: then nobody is told anything."""

    def __init__(self, world: World, target: Callable[[], None], **_: Any) -> None:
        self._world = world
        self._ledger = cast("Ledger", cast("Any", target).__self__)
        self._syncs_per_s = world.chance.choice(SYNCS_PER_S)
        self._maybe_next: asyncio.TimerHandle | None = None
        self._is_over = False
        self.on_death: Callable[[], None] = lambda: None

    def start(self) -> None:
        cast("Told", self._ledger._queue._changed).on_notify = self._notified

    def join(self) -> None:
        while not self._is_over:
            self._turn()

    def kill(self) -> None:
        self._is_over = True
        if self._maybe_next:
            self._maybe_next.cancel()

    def _notified(self) -> None:
        """An errand is waited for by somebody who does nothing else meanwhile."""
        if self._is_over:
            self._ledger._queue.fail(lambda: LedgerUnavailable("there is no thread any more"))
        elif self._ledger._queue._errands:
            self._turn()
        else:
            self._wake(self._world.chance.expovariate(self._syncs_per_s))

    def _wake(self, after_s: float) -> None:
        loop = asyncio.get_running_loop()
        if self._maybe_next and not self._maybe_next.cancelled() and self._maybe_next.when() <= loop.time() + after_s:
            return
        if self._maybe_next:
            self._maybe_next.cancel()
        self._maybe_next = loop.call_later(after_s, self._turn)

    def _turn(self) -> None:
        """One round of Ledger._run."""
        self._maybe_next = None
        ledger = self._ledger
        if self._is_over:
            return
        try:
            turn = ledger._queue.take(0)
            if turn is None:
                self._is_over = True
                ledger._committer.freeze_all(ledger._stamp())
                return
            ledger._take(turn)
        except BaseException as error:  # noqa: BLE001 - as there
            self._is_over = True
            if cast("Any", ledger._disk).is_dead:
                if ledger._errand:  # whoever waits for it would be gone too
                    ledger._errand.fail(LedgerUnavailable("there is no thread any more"))
                self.on_death()
            else:
                ledger._fail(error)
            return
        patience_s = ledger._committer.patience_s()
        if patience_s is not None:
            self._wake(patience_s)


@contextmanager
def threadless(world: World) -> Iterator[None]:
    """Ledgers that are opened within have no thread, and the world's time."""

    def thread(target: Callable[[], None], **_: Any) -> Flusher:
        return Flusher(world, target)

    with (
        patch.object(writer, "Thread", thread),
        patch.object(append_queue, "Condition", Told),
        patch.object(commit, "monotonic", lambda: asyncio.get_running_loop().time()),
    ):
        yield
