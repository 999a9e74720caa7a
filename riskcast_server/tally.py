"""What a Reconcile run, and each partition in it, has come to so far, and how that is told."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import uuid4

from contract.errors import duration, timestamp
from omen.v1.ledger_record_pb2 import LedgerRecord
from omen.v1.ledger_service_pb2 import GetPartitionResponse
from riskcast.v1 import reconcile_service_pb2 as pb
from riskcast.v1.ingest_service_pb2 import RECORD_OUTCOME_DUPLICATE, RECORD_OUTCOME_STORED, RecordResult
from riskcast_server import comparison
from riskcast_server.comparison import Conclusion, Gap
from riskcast_server.ledger_client import Survey
from riskcast_server.settlement import Entry
from riskcast_server.store import Lease


@dataclass(slots=True)
class Run:
    """One call of Reconcile."""

    request: pb.ReconcileRequest
    started_at: datetime
    run_id: str = field(default_factory=lambda: str(uuid4()))
    leases: dict[str, Lease] = field(default_factory=dict)  # by ledger_id
    partitions: list[pb.PartitionFinished] = field(default_factory=list)

    def started(self) -> pb.RunStarted:
        return pb.RunStarted(run_id=self.run_id, started_at=timestamp(self.started_at))

    def finished(self) -> pb.RunFinished:
        compared = [each for each in self.partitions if each.state.status != pb.RECONCILE_STATUS_SKIPPED]
        return pb.RunFinished(
            run_id=self.run_id,
            status=comparison.run_status(each.state.status for each in compared),
            partition_count=sum(1 for each in compared if each.state.partition),
            replayed_record_count=sum(each.replayed_record_count for each in compared),
            failed_record_count=sum(each.failed_record_count for each in compared),
        )


@dataclass(slots=True)
class Tally:
    """One partition of a run; of a ledger that cannot be reached, the partition without a name."""

    run: Run
    survey: Survey
    started_at: datetime
    held: GetPartitionResponse = field(default_factory=GetPartitionResponse)
    gaps: list[Gap] = field(default_factory=list)  # as they were found
    divergence: str = ""
    extra_count: int = 0
    unfetched: str = comparison.NOT_FETCHED  # why what is missing at the end still is
    fetched_count: int = 0
    replayed_count: int = 0

    @property
    def missing_count(self) -> int:
        return sum(gap.missing.count for gap in self.gaps)

    @property
    def settled_count(self) -> int:
        return sum((gap.settled & gap.all_records).count for gap in self.gaps)

    def started(self) -> pb.PartitionStarted:
        return pb.PartitionStarted(
            ledger_id=self.survey.ledger_id,
            partition=self.held.summary.partition,
            ledger_record_count=self.held.summary.record_count,
            settled_record_count=self.settled_count,
            missing_record_count=self.missing_count,
        )

    def replayed(
        self, entries: Sequence[Entry], records: Sequence[LedgerRecord], results: Sequence[RecordResult]
    ) -> Iterator[pb.ReconcileResponse]:
        """One message per record, then how far this is."""
        for entry, record, result in zip(entries, records, results, strict=True):
            self.replayed_count += result.outcome in (RECORD_OUTCOME_STORED, RECORD_OUTCOME_DUPLICATE)
            replayed = pb.Replayed(
                signal_id=entry.signal_id, position=record.position, outcome=result.outcome, ack_id=result.ack_id
            )
            yield pb.ReconcileResponse(replayed=replayed)
        self.fetched_count += len(records)
        progress = pb.ReconcileProgress(
            fetched_record_count=self.fetched_count, missing_record_count=self.missing_count
        )
        yield pb.ReconcileResponse(progress=progress)

    def finished(self, conclusion: Conclusion, now: datetime) -> pb.PartitionFinished:
        """Also notes it in the run."""
        finished = pb.PartitionFinished(
            state=self._state(conclusion, now),
            settled_before_record_count=self.settled_count,
            missing_record_count=self.missing_count,
            replayed_record_count=self.replayed_count,
            failed_record_count=conclusion.failed_record_count,
            extra_record_count=self.extra_count,
            duration=duration((now - self.started_at).total_seconds()),
            problems=conclusion.problems,
        )
        self.run.partitions.append(finished)
        return finished

    def is_to_be_kept(self, conclusion: Conclusion) -> bool:
        """A dry run leaves nothing behind; what was skipped keeps the state of its last comparison."""
        is_known = bool(self.survey.ledger_id) and not self.run.request.dry_run
        return is_known and conclusion.status != pb.RECONCILE_STATUS_SKIPPED

    def _state(self, conclusion: Conclusion, now: datetime) -> pb.ReconcileState:
        return pb.ReconcileState(
            ledger_id=self.survey.ledger_id,
            partition=self.held.summary.partition,
            status=conclusion.status,
            reason=conclusion.reason,
            ledger_record_count=self.held.summary.record_count,
            highwater_sequence=self.held.summary.highwater_sequence,
            manifest_revision=self.held.manifest_revision,
            run_id=self.run.run_id,
            finished_at=timestamp(now),
        )
