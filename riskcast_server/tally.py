"""What a Reconcile run, and each partition in it, has come to so far, and how that is told.

Whatever is told moves the run's standing, so that it can be resumed right after it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from contract.coverage import Coverage
from contract.errors import duration, timestamp
from contract.validation import EPOCH
from omen.v1.ledger_record_pb2 import LedgerRecord
from omen.v1.ledger_service_pb2 import GetPartitionResponse
from riskcast.v1 import reconcile_service_pb2 as pb
from riskcast.v1.ingest_service_pb2 import RECORD_OUTCOME_DUPLICATE, RECORD_OUTCOME_STORED, RecordResult
from riskcast_server import comparison
from riskcast_server.comparison import Conclusion, Findings, Gap
from riskcast_server.ingest import datetime_of
from riskcast_server.resume import Stage, Standing
from riskcast_server.selection import Step
from riskcast_server.settlement import Entry
from riskcast_server.store import Failure, Lease


@dataclass(slots=True)
class Run:
    """One run, from its first message to its last, over as many calls as it takes."""

    request: pb.ReconcileRequest
    standing: Standing
    is_continued: bool = False  # it came by a cursor
    leases: Mapping[str, Lease] = field(default_factory=dict)  # by ledger_id
    in_scope_count: int = 0  # records of all partitions in scope, as their ledgers list them

    @classmethod
    def begun(cls, request: pb.ReconcileRequest, now: datetime) -> "Run":
        return cls(request, Standing(str(uuid4()), microseconds_of(now)))

    @property
    def run_id(self) -> str:
        return self.standing.run_id

    @property
    def is_finished(self) -> bool:
        return self.standing.stage == Stage.RUN_FINISHED

    def started(self) -> pb.ReconcileResponse:
        started_at = timestamp(datetime_of(self.standing.started_at))
        return pb.ReconcileResponse(run_started=pb.RunStarted(run_id=self.run_id, started_at=started_at))

    def finished(self) -> pb.ReconcileResponse:
        self.standing = now = replace(self.standing, stage=Stage.RUN_FINISHED)
        finished = pb.RunFinished(
            run_id=self.run_id,
            status=pb.ReconcileStatus.ValueType(now.worst or pb.RECONCILE_STATUS_SKIPPED),
            partition_count=now.partitions_done,
            replayed_record_count=now.replayed_done,
            failed_record_count=now.failed_done,
        )
        return pb.ReconcileResponse(run_finished=finished)


@dataclass(slots=True)
class Tally:
    """One partition of a run; of a ledger that cannot be reached, the partition without a name."""

    run: Run
    step: Step
    is_resumed: bool
    held: GetPartitionResponse
    gaps: list[Gap] = field(default_factory=list)
    missing: Mapping[bytes, Coverage] = field(default_factory=dict)  # as it was found, by segment_id
    divergence: str = ""
    extra_count: int = 0
    unfetched: str = comparison.NOT_FETCHED  # why what is missing at the end still is
    differing: dict[bytes, Coverage] = field(default_factory=dict)  # by segment_id
    unread: dict[bytes, Coverage] = field(default_factory=dict)  # by segment_id: to be compared and not sent yet
    absent: dict[bytes, Coverage] = field(default_factory=dict)  # by segment_id: compared, and there was no row
    verified_count: int = 0

    @classmethod
    def of(cls, run: Run, step: Step, now: datetime) -> "Tally":
        """Goes on where the run stands, if that is within this step."""
        at = run.standing
        is_resumed = at.stage == Stage.PARTITION_STARTED and (at.ledger, at.partition) == step.place
        if not is_resumed:
            run.standing = at.entered(*step.place, microseconds_of(now))
        return cls(run, step, is_resumed, GetPartitionResponse(summary=step.summary))

    @property
    def ledger_id(self) -> str:
        return self.step.survey.ledger_id

    @property
    def partition(self) -> str:
        return self.step.summary.partition

    def started(self) -> pb.ReconcileResponse:
        nothing = Coverage()
        settled = sum(
            ((gap.settled & gap.all_records) - self.missing.get(gap.segment.segment_id, nothing)).count
            for gap in self.gaps
        )
        missing = count_of(self.missing)
        self._move(stage=Stage.PARTITION_STARTED, settled_before=settled, missing=missing)
        started = pb.PartitionStarted(
            ledger_id=self.ledger_id,
            partition=self.partition,
            ledger_record_count=self.held.summary.record_count,
            settled_record_count=settled,
            missing_record_count=missing,
        )
        return pb.ReconcileResponse(partition_started=started)

    def resume(self, maybe_saved: Mapping[bytes, Coverage] | None) -> None:
        """What is left of what this run found missing before it was cut, and what came to be missing since.

        It may have gone further than its messages were read, also into partitions that are begun anew now. Nothing is
        saved where nothing was missing, or when another run came between.
        """
        now, saved = self.run.standing, maybe_saved or {}
        sequence = now.sequence if self.is_resumed else 0
        left = comparison.behind(comparison.joined(saved, self.missing), sequence, self.gaps)
        if self.is_resumed and (maybe_saved or not now.missing):
            known = comparison.behind(saved, sequence, self.gaps)
            self._move(missing=now.missing + count_of(left) - count_of(known))
        self.missing = left

    def replayed(
        self, entries: Sequence[Entry], records: Sequence[LedgerRecord], results: Sequence[RecordResult]
    ) -> Iterator[pb.ReconcileResponse]:
        """One message per record, then how far this is."""
        for entry, record, result in zip(entries, records, results, strict=True):
            is_kept = result.outcome in (RECORD_OUTCOME_STORED, RECORD_OUTCOME_DUPLICATE)
            now = self.run.standing
            self._move(sequence=record.position.sequence, fetched=now.fetched + 1, replayed=now.replayed + int(is_kept))
            replayed = pb.Replayed(
                signal_id=entry.signal_id, position=record.position, outcome=result.outcome, ack_id=result.ack_id
            )
            yield pb.ReconcileResponse(replayed=replayed)
        yield self.progress()

    def progress(self) -> pb.ReconcileResponse:
        now = self.run.standing
        progress = pb.ReconcileProgress(
            fetched_record_count=now.fetched,
            missing_record_count=now.missing,
            verified_record_count=self.verified_count,
        )
        return pb.ReconcileResponse(progress=progress)

    def verified(self, segment_id: bytes, compared: Coverage, stored: Coverage, differing: Coverage) -> None:
        self.verified_count += (stored - differing).count
        self.unread[segment_id] -= compared
        for noted, found in ((self.differing, differing), (self.absent, compared - stored)):
            if found.intervals:
                noted[segment_id] = noted.get(segment_id, Coverage()) | found

    def finished(self, conclusion: Conclusion, now: datetime) -> pb.PartitionFinished:
        at = self.run.standing
        finished = pb.PartitionFinished(
            state=self._state(conclusion, now),
            settled_before_record_count=at.settled_before,
            missing_record_count=at.missing,
            replayed_record_count=at.replayed,
            failed_record_count=conclusion.failed_record_count,
            extra_record_count=self.extra_count,
            duration=duration(max(microseconds_of(now) - at.partition_started_at, 0) / 1e6),
            problems=conclusion.problems,
            verified_record_count=self.verified_count,
        )
        is_compared = conclusion.status != pb.RECONCILE_STATUS_SKIPPED
        self._move(
            stage=Stage.PARTITION_FINISHED,
            worst=comparison.worse(at.worst, conclusion.status) if is_compared else at.worst,
            partitions_done=at.partitions_done + int(is_compared and bool(self.partition)),
            replayed_done=at.replayed_done + at.replayed,
            failed_done=at.failed_done + conclusion.failed_record_count,
        )
        return finished

    def findings(self, failures: Sequence[Failure]) -> Findings:
        return Findings(self.gaps, failures, self.unfetched, self.divergence, self.differing, self.unread)

    def is_to_be_kept(self, conclusion: Conclusion) -> bool:
        """A dry run leaves no state behind; what was skipped keeps that of its last comparison."""
        is_known = bool(self.ledger_id) and not self.run.request.dry_run
        return is_known and conclusion.status != pb.RECONCILE_STATUS_SKIPPED

    def _move(self, **changes: Any) -> None:
        self.run.standing = replace(self.run.standing, **changes)

    def _state(self, conclusion: Conclusion, now: datetime) -> pb.ReconcileState:
        at = self.run.standing
        return pb.ReconcileState(
            ledger_id=self.ledger_id,
            partition=self.partition,
            status=conclusion.status,
            reason=conclusion.reason,
            ledger_record_count=self.held.summary.record_count,
            highwater_sequence=self.held.summary.highwater_sequence,
            manifest_revision=self.held.manifest_revision,
            run_id=self.run.run_id,
            finished_at=timestamp(now),
            missing_record_count=at.missing,
            replayed_record_count=at.replayed,
            failed_record_count=conclusion.failed_record_count,
            extra_record_count=self.extra_count,
        )


def count_of(places: Mapping[bytes, Coverage]) -> int:
    return sum(indexes.count for indexes in places.values())


def microseconds_of(at: datetime) -> int:
    """Since the epoch."""
    return (at - EPOCH) // timedelta(microseconds=1)
