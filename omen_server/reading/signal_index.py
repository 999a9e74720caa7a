"""The index of the ledger kept up to date beside the event loop, on a thread of its own.

Appends never wait for it. While they come in it makes a pass at most every quarter of a second, so that the interpreter
belongs to them; somebody who waits for it is served at once. When SQLite refuses, that is logged and tried again:
nothing of what OMEN promises depends on index.db.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from threading import Condition, Thread

import structlog

from ledger import IndexUnavailable, LedgerError, LedgerIndex, PartitionInfo
from ledger.index.file import ABSENT
from omen_server.journal import Durable, Journal
from omen_server.records import index_fields
from serving.tasks import beside

# Each pass writes every page that it touches once: of more records, fewer pages each. It takes a quarter of a second.
PASS_RECORDS_MAX = 16_384
REST_S = 0.25  # between passes while records come in: so that some gather, and a list is not far behind
MANY = 1024  # records of a pass
REST_AFTER_MANY_S = 1.0  # whoever emits so many needs the processor, and a list of them is behind anyhow
RETRY_S = 1.0  # locks and full disks do not pass within milliseconds

log = structlog.get_logger(__name__)


class SignalIndex:
    """Made by `open_signal_index`. Belongs to the event loop; `ledger_index` may be asked by any thread."""

    def __init__(self, journal: Journal, ledger_index: LedgerIndex) -> None:
        self.ledger_index = ledger_index
        self._journal = journal
        self._loop = asyncio.get_running_loop()
        self._died: asyncio.Future[None] = self._loop.create_future()
        self._changed = Condition()  # guards what follows
        self._has_news = True
        self._has_more = False
        self._is_far_behind = False
        self._is_stopping = False
        self._waiting: list[tuple[Sequence[PartitionInfo], asyncio.Future[None]]] = []
        self._may_pass_at = 0.0
        self._failure = ""
        self._thread = Thread(target=self._run, name="signal-index", daemon=True)

    async def caught_up(self, timeout_s: float) -> bool:
        """Waits until everything is indexed that is durable now; whether that came true in time."""
        mark = await self._journal.partitions()
        if self.ledger_index.covers(mark):
            return True
        reached: asyncio.Future[None] = self._loop.create_future()
        waiting = mark, reached
        with self._changed:
            self._waiting.append(waiting)
            self._changed.notify()
        try:
            async with asyncio.timeout(timeout_s):
                await reached
        except TimeoutError:
            return False
        finally:
            with self._changed:
                self._waiting = [other for other in self._waiting if other is not waiting]
        return True

    async def holds(self, signal_id: str) -> bool:
        """Whether it is known to be in the ledger."""
        with suppress(IndexUnavailable):
            return await asyncio.to_thread(self.ledger_index.find, signal_id) is not None
        return False

    def wake(self, durable: Durable) -> None:
        """More has become durable."""
        if not self._has_news:  # otherwise the thread knows, and looks again after its rest
            with self._changed:
                self._has_news = True
                self._changed.notify()

    def distrust(self, because: str) -> None:
        """An answer was found to be wrong: nothing is answered until the file has been made anew."""
        self.ledger_index.distrust(because)
        with self._changed:
            self._has_news = True
            self._changed.notify()

    async def died(self) -> None:
        """Ends only by raising what ended the thread, which is a bug."""
        await self._died

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Waits for the pass that is under way. Not on the event loop."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._until_work():
                self._pass()
        except BaseException as error:  # noqa: BLE001 - whatever it was, the process must hear of it
            self._loop.call_soon_threadsafe(self._died.set_exception, error)
        finally:
            self.ledger_index.close()

    def _until_work(self) -> bool:
        """Waits for something to do, and then until it may be done. False when it is time to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopping or self._has_news or self._has_more or self._waiting)
            if self._has_news and not self._is_far_behind:  # with none for now, nobody is slowed down
                rest_s = self._may_pass_at - time.monotonic()
                self._changed.wait_for(lambda: self._is_stopping or self._waiting, max(rest_s, 0))
            self._has_news = False
            return not self._is_stopping

    def _pass(self) -> None:
        try:
            advanced = self.ledger_index.advance(PASS_RECORDS_MAX)
        except (LedgerError, OSError) as error:
            self._note_failure(str(error))
            with self._changed:
                self._has_more = True
                self._changed.wait_for(lambda: self._is_stopping, RETRY_S)
            return
        self._note_failure("")
        if advanced.anew_because not in ("", ABSENT):  # the first start of a ledger is no news
            log.warning("index_made_anew", because=advanced.anew_because)
        self._has_more = self.ledger_index.is_behind()
        self._is_far_behind = advanced.record_count == PASS_RECORDS_MAX  # more than rests leave time for
        self._may_pass_at = time.monotonic() + (REST_AFTER_MANY_S if advanced.record_count >= MANY else REST_S)
        self._release()

    def _note_failure(self, error: str) -> None:
        """Told when it begins, changes or ends, not at every retry."""
        if error and error != self._failure:
            log.error("index_not_written", error=error)
        elif self._failure and not error:
            log.info("index_written_again")
        self._failure = error

    def _release(self) -> None:
        """Tells those who waited for what is indexed now."""
        with self._changed:
            waiting, self._waiting = self._waiting, []
            for mark, reached in waiting:
                if self.ledger_index.covers(mark):
                    self._loop.call_soon_threadsafe(settle, reached)
                else:
                    self._waiting.append((mark, reached))


def settle(future: asyncio.Future[None]) -> None:
    """Whoever waited may have left."""
    if not future.done():
        future.set_result(None)


@asynccontextmanager
async def open_signal_index(directory: Path, journal: Journal) -> AsyncIterator[SignalIndex]:
    """Follows the journal until the block ends. The index may be far behind at first; asking says so."""
    reader = await journal.read(lambda ledger: ledger.reader())
    index = SignalIndex(journal, LedgerIndex(directory, reader, index_fields))
    journal.follow(index.wake)
    async with beside(index.died()):
        index.start()
        try:
            yield index
        finally:
            await asyncio.to_thread(index.stop)
