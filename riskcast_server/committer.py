"""Group commit: what arrives while one transaction commits makes up the next one. Nothing is delayed on purpose.

The work belongs to the committer, not to the handler that brought it: a caller who leaves changes nothing for others.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from contract.errors import ContractError, Reason
from contract.validation import EPOCH
from riskcast_server.metrics import IngestMetrics
from riskcast_server.settlement import Entry, Outcome
from riskcast_server.store import Store

Clock = Callable[[], datetime]  # aware

BATCH_RECORDS_MAX = 2048  # beyond it a row costs no less, and the first caller waits longer
QUEUE_RECORDS_MAX = 16_384  # half a second of commits
QUEUE_BYTES_MAX = 64 * 1024 * 1024  # events of the largest size would fill a small machine long before the count does
QUEUE_FULL_RETRY_S = 0.2
GONE_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class _Submission:
    entries: Sequence[Entry]
    outcomes: asyncio.Future[list[Outcome]]

    @property
    def bytes_total(self) -> int:
        return sum(len(entry.event) for entry in self.entries)


@asynccontextmanager
async def committing(store: Store, now: Clock, metrics: IngestMetrics | None = None) -> AsyncIterator["Committer"]:
    """Runs a committer. Leaving commits what is queued; raises what ended the committer, if anything did."""
    committer = Committer(store, now, metrics)
    task = asyncio.create_task(committer.run(), name="committer")
    try:
        yield committer
    finally:
        committer.close()
        await task


class Committer:
    """The one that writes signals: one transaction at a time."""

    def __init__(self, store: Store, now: Clock, metrics: IngestMetrics | None = None) -> None:
        self._store = store
        self._now = now
        self._metrics = metrics or IngestMetrics()
        self._queue: deque[_Submission] = deque()
        self.queued_records = 0
        self.queued_bytes = 0
        self._woken = asyncio.Event()
        self._closed = False
        self.ended = asyncio.Event()
        self.refused = asyncio.Event()  # set when the store refuses a commit; whoever heeds it clears it

    def submit(self, entries: Sequence[Entry]) -> asyncio.Future[list[Outcome]]:
        """Queues the entries, to be settled in one transaction; resolved after its commit, one outcome per entry.

        Raises ContractError QUEUE_FULL, or STORE_UNAVAILABLE when there is no committer any more; then nothing was
        queued. The future fails with STORE_UNAVAILABLE when the outcome is unknown.
        """
        if self._closed or self.ended.is_set():
            raise _gone()
        submission = _Submission(entries, asyncio.get_running_loop().create_future())
        size = submission.bytes_total
        if self.queued_records + len(entries) > QUEUE_RECORDS_MAX or self.queued_bytes + size > QUEUE_BYTES_MAX:
            raise ContractError(Reason.QUEUE_FULL, "too many records wait", retry_delay_s=QUEUE_FULL_RETRY_S)
        self._queue.append(submission)
        self.queued_records += len(entries)
        self.queued_bytes += size
        self._woken.set()
        return submission.outcomes

    def close(self) -> None:
        """Takes nothing more; `run` ends when the queue is empty."""
        self._closed = True
        self._woken.set()

    async def run(self) -> None:
        """Commits until closed. Whatever else ends it fails everyone who waits, now and later."""
        batch: list[_Submission] = []
        try:
            while await self._work():
                batch = self._take()
                await self._commit(batch)
        finally:
            self.ended.set()
            for submission in (*batch, *self._queue):
                _fail(submission, _gone())

    async def _work(self) -> bool:
        """Waits until there is some; False when closed and empty."""
        while not self._queue and not self._closed:
            self._woken.clear()
            await self._woken.wait()
        return bool(self._queue)

    def _take(self) -> list[_Submission]:
        batch = [self._queue.popleft()]
        records = len(batch[0].entries)
        while self._queue and records + len(self._queue[0].entries) <= BATCH_RECORDS_MAX:
            batch.append(self._queue.popleft())
            records += len(batch[-1].entries)
        self.queued_records -= records
        self.queued_bytes -= sum(submission.bytes_total for submission in batch)
        return batch

    async def _commit(self, batch: list[_Submission]) -> None:
        entries = [entry for submission in batch for entry in submission.entries]
        ingested_at = (self._now() - EPOCH) // timedelta(microseconds=1)
        began_s = time.perf_counter()
        try:
            outcomes = await self._store.settle(entries, ingested_at)
        except ContractError as error:
            self.refused.set()
            self._metrics.not_committed()
            for submission in batch:
                _fail(submission, error)
            return
        self._metrics.committed(entries, outcomes, time.perf_counter() - began_s)
        in_order = iter(outcomes)
        for submission in batch:
            of_submission = [next(in_order) for _ in submission.entries]
            if not submission.outcomes.done():  # its caller may have left
                submission.outcomes.set_result(of_submission)


def _fail(submission: _Submission, error: ContractError) -> None:
    if not submission.outcomes.done():
        submission.outcomes.set_exception(error)


def _gone() -> ContractError:
    message = "RiskCast commits nothing more; what became of this is unknown"
    return ContractError(Reason.STORE_UNAVAILABLE, message, retry_delay_s=GONE_RETRY_S)
