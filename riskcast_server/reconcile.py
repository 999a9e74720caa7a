"""Reconcile: RiskCast's own check. It asks each ledger what it holds, and fetches exactly what is not settled here.

To find costs as much as there are segments, to heal as much as is missing.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import TypeAlias

from contract.errors import ContractError, Reason
from omen.v1.ledger_service_pb2 import GetPartitionResponse, PartitionSummary
from riskcast.v1 import reconcile_service_pb2 as pb
from riskcast.v1.signal_service_pb2 import ARRIVAL_PATH_REPLAY
from riskcast_server import comparison
from riskcast_server.committer import Clock
from riskcast_server.comparison import Conclusion, Gap
from riskcast_server.ingest import Door
from riskcast_server.ledger_client import LedgerBroke, LedgerClient, Survey
from riskcast_server.selection import Scope, check, chosen, lost, scope
from riskcast_server.store import Store
from riskcast_server.tally import Run, Tally

LEASE_S = 30.0

Messages: TypeAlias = AsyncGenerator[pb.ReconcileResponse, None]


class Reconciler:
    """Runs on demand, one run per ledger at a time."""

    def __init__(self, store: Store, door: Door, ledgers: Sequence[LedgerClient], now: Clock) -> None:
        self._store = store
        self._door = door
        self._ledgers = ledgers
        self._now = now

    async def run(self, request: pb.ReconcileRequest) -> Messages:
        """Raises ContractError INVALID_SIGNAL, PARTITION_NOT_FOUND, RECONCILE_RUNNING or NOT_IMPLEMENTED before the
        first message, STORE_UNAVAILABLE at any time."""
        check(request)
        surveys = chosen(await self._surveys(), request)
        run = Run(request, self._now())
        async with self._leased({survey.ledger_id for survey in surveys if survey.ledger_id}, run):
            number = 0
            async with aclosing(self._messages(run, surveys)) as messages:
                async for message in messages:
                    number += 1
                    message.cursor = f"{run.run_id}/{number}"
                    yield message

    async def _surveys(self) -> list[Survey]:
        settled = await self._store.partitions()  # before the ledgers are asked: it grows
        surveys = await asyncio.gather(*(ledger.survey() for ledger in self._ledgers))
        return [replace(survey, lost=lost(survey, settled)) for survey in surveys]

    @asynccontextmanager
    async def _leased(self, ledger_ids: set[str], run: Run) -> AsyncIterator[None]:
        try:
            for ledger_id in sorted(ledger_ids):
                lease = await self._store.runs.lease(ledger_id, run.run_id, LEASE_S)
                if lease.holder != run.run_id:
                    metadata = {"run_id": lease.holder}
                    raise ContractError(Reason.RECONCILE_RUNNING, "a run of this ledger is on", metadata=metadata)
                run.leases[ledger_id] = lease
            yield
        finally:
            for lease in run.leases.values():
                await self._store.runs.release(lease)

    async def _messages(self, run: Run, surveys: Sequence[Survey]) -> Messages:
        yield pb.ReconcileResponse(run_started=run.started())
        for survey in surveys:
            async with aclosing(self._ledger(run, survey)) as messages:
                async for message in messages:
                    yield message
        yield pb.ReconcileResponse(run_finished=run.finished())

    async def _ledger(self, run: Run, survey: Survey) -> Messages:
        if survey.failure:
            yield await self._finish(Tally(run, survey, self._now()), comparison.failed(survey.failure))
        for summary in survey.partitions:
            tally = Tally(run, survey, self._now())
            tally.held.summary.CopyFrom(summary)
            match scope(summary, run.request, self._now()):
                case Scope.COMPARE:
                    async with aclosing(self._partition(tally)) as messages:
                        async for message in messages:
                            yield message
                case Scope.SKIP:
                    yield await self._finish(tally, comparison.skipped())
        for name in survey.lost:
            summary = PartitionSummary(partition=name)
            if scope(summary, run.request, self._now()) is not Scope.OUT:
                tally = Tally(run, survey, self._now(), GetPartitionResponse(summary=summary))
                yield await self._lost(tally)

    async def _partition(self, tally: Tally) -> Messages:
        """A ledger that breaks off, or sends what the door does not take, is FAILED; a store that fails is an error."""
        try:
            await self._look(tally)
            yield pb.ReconcileResponse(partition_started=tally.started())
            if not tally.run.request.dry_run:
                async with aclosing(self._replay(tally)) as messages:
                    async for message in messages:
                        yield message
            conclusion = await self._conclude(tally)
        except LedgerBroke as error:
            conclusion = comparison.failed(str(error))
        except ContractError as error:
            if error.reason is Reason.STORE_UNAVAILABLE:
                raise
            conclusion = comparison.failed(f"{error.reason}: {error.message}")
        yield await self._finish(tally, conclusion)

    async def _lost(self, tally: Tally) -> pb.ReconcileResponse:
        """The ledger does not know the partition at all: everything that is settled of it is beyond the ledger."""
        ledger_id = tally.survey.ledger_id
        claims = await self._store.partition_coverage(ledger_id, tally.held.summary.partition)
        tally.extra_count = await self._store.count_rows_at(ledger_id, comparison.beyond(claims, []))
        conclusion = comparison.conclude([], [], tally.unfetched, comparison.LEDGER_REGRESSED)
        return await self._finish(tally, conclusion)

    async def _look(self, tally: Tally) -> None:
        ledger_id, name = tally.survey.ledger_id, tally.held.summary.partition
        claims = await self._store.partition_coverage(ledger_id, name)  # before the ledger is asked: it grows
        tally.held = held = await tally.survey.ledger.partition(name)
        tally.gaps = await self._gaps(ledger_id, held)
        beyond = comparison.beyond(claims, held.segments)
        tally.divergence = comparison.divergence(claims, held.segments, beyond)
        tally.extra_count = await self._store.count_rows_at(ledger_id, beyond)

    async def _gaps(self, ledger_id: str, held: GetPartitionResponse) -> list[Gap]:
        settled = await self._store.coverage(ledger_id, [segment.segment_id for segment in held.segments])
        return comparison.gaps(held.segments, held.damaged_sequences, settled)

    async def _replay(self, tally: Tally) -> Messages:
        """Fetches what is missing. What the ledger cannot give for good stays missing, under its reason."""
        ledger, ledger_id = tally.survey.ledger, tally.survey.ledger_id
        for ranges in comparison.replay_ranges(tally.gaps):
            try:
                async with aclosing(ledger.replay(tally.held.summary.partition, ranges)) as batches:
                    async for records in batches:
                        receipt = self._door.receive(records, ledger_id, ARRIVAL_PATH_REPLAY, tally.run.run_id)
                        for message in tally.replayed(receipt.entries, records, await receipt.results()):
                            yield message
            except LedgerBroke as error:
                if error.reason not in comparison.GONE_FOR_GOOD:
                    raise
                tally.unfetched = error.reason

    async def _conclude(self, tally: Tally) -> Conclusion:
        """From what the store holds now, not from what went by."""
        ledger_id = tally.survey.ledger_id
        after = await self._gaps(ledger_id, tally.held)
        failures = await self._store.failures(ledger_id, [gap.segment.segment_id for gap in after])
        return comparison.conclude(after, failures, tally.unfetched, tally.divergence)

    async def _finish(self, tally: Tally, conclusion: Conclusion) -> pb.ReconcileResponse:
        finished = tally.finished(conclusion, self._now())
        if tally.is_to_be_kept(conclusion):
            await self._store.runs.save_state(tally.run.leases[finished.state.ledger_id], finished.state)
        return pb.ReconcileResponse(partition_finished=finished)
