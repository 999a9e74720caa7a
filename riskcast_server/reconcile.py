"""Reconcile: RiskCast's own check. It asks each ledger what it holds, and fetches exactly what is not settled here.

Every partition in scope is compared in every run, whatever its last state says: to find costs as much as there are
segments, to heal as much as is missing.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import groupby
from typing import TypeAlias
from uuid import uuid4

import structlog

from contract.coverage import Coverage
from contract.errors import ContractError, Reason
from omen.v1.ledger_record_pb2 import LedgerRecord
from riskcast.v1 import reconcile_service_pb2 as pb
from riskcast.v1.signal_service_pb2 import ARRIVAL_PATH_REPLAY
from riskcast_server import comparison
from riskcast_server.acceptance import accept_divergence, asked_for, beyond_ledger
from riskcast_server.committer import Clock
from riskcast_server.comparison import Conclusion
from riskcast_server.ingest import Door, Receipt
from riskcast_server.leases import held
from riskcast_server.ledger_client import UNEXPECTED_ANSWER, LedgerBroke, LedgerClient, Survey
from riskcast_server.metrics import ReconcileMetrics
from riskcast_server.pace import Pace
from riskcast_server.resume import maybe_standing, query_of
from riskcast_server.selection import Kind, check, chosen, lost, steps, steps_left
from riskcast_server.settlement import Row
from riskcast_server.store import SegmentCoverage, Store
from riskcast_server.tally import Run, Tally, microseconds_of

Messages: TypeAlias = AsyncGenerator[pb.ReconcileResponse, None]

log = structlog.get_logger(__name__)

REPLAY_S = 300.0  # how long one replay may take at the pace that is set: half of what its call is given
QUEUE_FULL_TRIES = 100  # live ingest goes first: with the delay it asks for, some 20 s


class Reconciler:
    """Runs on demand, one run per ledger at a time."""

    def __init__(
        self,
        store: Store,
        door: Door,
        ledgers: Sequence[LedgerClient],
        now: Clock,
        pace: Pace | None = None,
        metrics: ReconcileMetrics | None = None,
    ) -> None:
        self._store = store
        self._door = door
        self._ledgers = ledgers
        self._now = now
        self._pace = pace or Pace(0)
        self._metrics = metrics or ReconcileMetrics()

    async def run(self, request: pb.ReconcileRequest) -> Messages:
        """Raises ContractError INVALID_SIGNAL, INVALID_PAGE_TOKEN, PARTITION_NOT_FOUND or RECONCILE_RUNNING before the
        first message, STORE_UNAVAILABLE, and RECONCILE_RUNNING when another run took over, at any time."""
        check(request)
        query = query_of(request, tuple(ledger.target for ledger in self._ledgers))
        standing = maybe_standing(query, request.cursor)
        surveys = chosen(await self.surveys(), request)
        run = Run(request, standing, is_continued=True) if standing else Run.begun(request, self._now())
        meter = self._metrics.run(is_dry=request.dry_run)
        names = {survey.ledger_id for survey in surveys} - {""}
        async with held(self._store.runs, names, run.run_id, self._metrics.lease_lost) as holding, meter:
            run.leases = holding.leases
            planned = steps(surveys, request, self._now())
            run.in_scope_count = sum(each.summary.record_count for each in planned if each.kind is Kind.COMPARE)
            if not standing:
                with holding.waiting():
                    yield told(query, run, run.started())
            for step in steps_left(planned, run.standing):
                async with aclosing(self._step(Tally.of(run, step, self._now()))) as messages:
                    async for message in messages:
                        with holding.waiting():
                            yield told(query, run, message)
        if not run.is_finished:  # no lease is held any more: whoever reads this may run the next at once
            message = run.finished()
            meter.finished(message.run_finished.status)
            yield told(query, run, message)

    async def surveys(self) -> list[Survey]:
        """What each ledger lists now, in the order in which they are configured."""
        settled = await self._store.partitions()  # before the ledgers are asked: it grows
        surveys = await asyncio.gather(*(ledger.survey() for ledger in self._ledgers))
        return [replace(each, lost=lost(each, settled), number=number) for number, each in enumerate(surveys)]

    async def accept(self, ledger_id: str, reason: str) -> dict[str, int]:
        """Records settled here and beyond the ledger, all accepted now, by partition.

        Raises ContractError INVALID_SIGNAL, RECONCILE_RUNNING, LEDGER_UNAVAILABLE or STORE_UNAVAILABLE.
        """
        survey = asked_for(await self.surveys(), ledger_id)
        async with held(self._store.runs, [ledger_id], str(uuid4())):
            accepted = await accept_divergence(self._store, survey, reason, microseconds_of(self._now()))
        counts: defaultdict[str, int] = defaultdict(int)
        for each in accepted:
            counts[each.partition] += each.settled.count
        return dict(counts)

    async def _step(self, tally: Tally) -> Messages:
        match tally.step.kind:
            case Kind.COMPARE:
                async with aclosing(self._partition(tally)) as messages:
                    async for message in messages:
                        yield message
            case Kind.SKIP:
                yield await self._finish(tally, comparison.skipped())
            case Kind.LOST:
                yield await self._lost(tally)
            case Kind.UNREACHABLE:
                yield await self._finish(tally, comparison.failed(tally.step.survey.failure))

    async def _partition(self, tally: Tally) -> Messages:
        """A ledger that breaks off, or sends what the door does not take, is FAILED; a store that fails is an error."""
        try:
            await self._look(tally)
            if not tally.is_resumed:
                await self._remember(tally)
                yield tally.started()
            if not tally.run.request.dry_run:
                async with aclosing(self._replay(tally)) as messages:
                    async for message in messages:
                        yield message
            if tally.run.request.verify_content and not tally.held.summary.is_pruned:
                async with aclosing(self._verify(tally)) as messages:
                    async for message in messages:
                        yield message
            conclusion = await self._conclude(tally)
        except LedgerBroke as error:
            conclusion = comparison.failed(str(error))
        except ContractError as error:
            if error.reason in (Reason.STORE_UNAVAILABLE, Reason.RECONCILE_RUNNING):
                raise
            conclusion = comparison.failed(f"{error.reason}: {error.message}")
        yield await self._finish(tally, conclusion)

    async def _lost(self, tally: Tally) -> pb.ReconcileResponse:
        """The ledger does not know the partition at all: everything that is settled of it is beyond the ledger."""
        claims = await self._store.partition_coverage(tally.ledger_id, tally.partition)
        await self._compare(tally, claims)
        return await self._finish(tally, comparison.conclude(tally.findings([])))

    async def _look(self, tally: Tally) -> None:
        ledger_id, name = tally.ledger_id, tally.partition
        claims = await self._store.partition_coverage(ledger_id, name)  # before the ledger is asked: it grows
        tally.held = ledger_holds = await tally.step.survey.ledger.partition(name)
        counted_max = comparison.maybe_counted_max(ledger_holds.summary.record_count, tally.run.in_scope_count)
        segment_ids = [segment.segment_id for segment in ledger_holds.segments]
        settled = await self._store.coverage(ledger_id, segment_ids, counted_max=counted_max)
        tally.gaps = comparison.gaps(ledger_holds, settled)
        await self._compare(tally, claims)
        tally.missing = comparison.missing(tally.gaps)
        if tally.run.is_continued:
            tally.resume(await self._store.runs.maybe_missing(ledger_id, tally.run.run_id, name))

    async def _remember(self, tally: Tally) -> None:
        lease = tally.run.leases.get(tally.ledger_id)
        if lease and tally.missing and not tally.run.request.dry_run:
            await self._store.runs.save_missing(lease, tally.partition, tally.missing)

    async def _compare(self, tally: Tally, claims: Sequence[SegmentCoverage]) -> None:
        """What is settled here and the ledger does not have."""
        beyond = await beyond_ledger(self._store, tally.ledger_id, claims, tally.held.segments)
        accepted = await self._store.runs.accepted(tally.ledger_id) if beyond else {}
        unaccepted = comparison.unaccepted(beyond, accepted)
        tally.divergence = comparison.divergence(unaccepted, tally.held.segments)
        places = {each.segment_id: each.settled for each in beyond}
        tally.extra_count = await self._store.count_rows_at(tally.ledger_id, places)

    async def _replay(self, tally: Tally) -> Messages:
        """Fetches what is missing. What the ledger cannot give for good stays missing, under its reason."""
        for ranges in comparison.replay_ranges(tally.missing, self._pace.records_within(REPLAY_S)):
            try:
                async with aclosing(tally.step.survey.ledger.replay(tally.partition, ranges)) as batches:
                    async for records in batches:
                        receipt = await self._admitted(tally, records)
                        results = await receipt.results()
                        self._metrics.replayed(results)
                        for message in tally.replayed(receipt.entries, records, results):
                            yield message
            except LedgerBroke as error:
                if error.reason not in comparison.GONE_FOR_GOOD:
                    raise
                tally.unfetched = error.reason

    async def _admitted(self, tally: Tally, records: Sequence[LedgerRecord]) -> Receipt:
        """Live ingest goes first: a full queue is waited for."""
        await self._pace.take(len(records))
        for _ in range(QUEUE_FULL_TRIES):
            try:
                return self._door.receive(records, tally.ledger_id, ARRIVAL_PATH_REPLAY, tally.run.run_id)
            except ContractError as error:
                if error.reason is not Reason.QUEUE_FULL:
                    raise
                await asyncio.sleep(error.retry_delay_s or 0)
        raise ContractError(Reason.QUEUE_FULL, "live ingest leaves no room", retry_delay_s=1)

    async def _verify(self, tally: Tally) -> Messages:
        """Fetches once more what is settled, and compares it. Damage that the ledger finds on the way is told."""
        await self._look_again(tally)
        ledger = tally.step.survey.ledger
        tally.unread = {gap.segment.segment_id: gap.readable for gap in tally.gaps}
        for ranges in comparison.replay_ranges(dict(tally.unread), self._pace.records_within(REPLAY_S)):
            try:
                async with aclosing(ledger.replay(tally.partition, ranges)) as batches:
                    async for records in batches:
                        await self._pace.take(len(records))
                        await self._compare_content(tally, records)
                        yield tally.progress()
            except LedgerBroke as error:
                if error.reason not in comparison.GONE_FOR_GOOD:
                    raise
                tally.held = comparison.with_damage(tally.held, await ledger.partition(tally.partition))

    async def _compare_content(self, tally: Tally, records: Sequence[LedgerRecord]) -> None:
        for segment_id, of_segment in groupby(records, key=lambda record: record.position.segment_id):
            if segment_id not in tally.unread:
                raise LedgerBroke(UNEXPECTED_ANSWER, "the ledger sends records that it was not asked for")
            by_index = {record.position.sequence & comparison.INDEX_MAX: record for record in of_segment}
            compared = Coverage.of(by_index)
            rows: dict[int, Row] = {}
            for run in compared.intervals:
                rows |= await self._store.rows_settling(tally.ledger_id, segment_id, *run)
            differing = Coverage.of(index for index, row in rows.items() if comparison.differs(by_index[index], row))
            tally.verified(segment_id, compared, Coverage.of(rows), differing)

    async def _look_again(self, tally: Tally) -> None:
        """Where something was missing: from what the store holds now, not from what went by.

        It was counted when the run began, and is counted again where a record turned out to have no row.
        """
        settled = {gap.segment.segment_id: gap.settled for gap in tally.gaps} | dict.fromkeys(tally.missing, Coverage())
        if tally.missing:
            settled |= await self._store.coverage(tally.ledger_id, list(tally.missing), counted_max=0)
        if tally.absent:
            settled |= dict.fromkeys(tally.absent, Coverage())
            settled |= await self._store.coverage(tally.ledger_id, list(tally.absent))
        tally.gaps = comparison.gaps(tally.held, settled)

    async def _conclude(self, tally: Tally) -> Conclusion:
        await self._look_again(tally)
        failures = await self._store.failures(tally.ledger_id, [gap.segment.segment_id for gap in tally.gaps])
        return comparison.conclude(tally.findings(failures))

    async def _finish(self, tally: Tally, conclusion: Conclusion) -> pb.ReconcileResponse:
        finished = tally.finished(conclusion, self._now())
        if conclusion.status in (pb.RECONCILE_STATUS_PARTIAL, pb.RECONCILE_STATUS_FAILED):
            log.warning(
                "partition_not_reconciled",
                ledger_id=tally.ledger_id,
                partition=tally.partition,
                run_id=tally.run.run_id,
                reason=conclusion.reason,
            )
        if tally.is_to_be_kept(conclusion):
            await self._store.runs.save_state(tally.run.leases[tally.ledger_id], finished.state)
        return pb.ReconcileResponse(partition_finished=finished)


def told(query: str, run: Run, message: pb.ReconcileResponse) -> pb.ReconcileResponse:
    """With the cursor to go on right after it."""
    message.cursor = run.standing.cursor(query)
    return message
