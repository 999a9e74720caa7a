"""What a Reconcile request asks for, as pure functions: is it sound, which ledgers, which partitions in which order."""

import enum
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from contract.errors import ContractError, Reason, Violation, invalid_signal
from contract.limits import LEDGER_FILTER_ITEMS_MAX, PAGE_FILTER_ITEMS_MAX, SINCE_DAYS_MAX
from contract.validation import PARTITION, UUID
from omen.v1.ledger_service_pb2 import PartitionSummary
from riskcast.v1.reconcile_service_pb2 import ReconcileRequest
from riskcast_server.ledger_client import Survey
from riskcast_server.resume import Stage, Standing


class Kind(enum.Enum):
    COMPARE = "compare"
    SKIP = "skip"  # it still takes records: said, not compared
    LOST = "lost"  # something of it is settled here, and its ledger does not list it
    UNREACHABLE = "unreachable"  # a whole ledger


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that a run tells of. A whole ledger has a summary without a name."""

    kind: Kind
    survey: Survey
    summary: PartitionSummary

    @property
    def place(self) -> tuple[int, str]:
        """In this order steps are taken, also by a run that goes on after others have come between."""
        return self.survey.number, self.summary.partition


def check(request: ReconcileRequest) -> None:
    """Raises ContractError INVALID_SIGNAL naming every field that is wrong."""
    violations = [
        *_of_items("ledger_ids", request.ledger_ids, UUID, LEDGER_FILTER_ITEMS_MAX),
        *_of_items("partitions", request.partitions, PARTITION, PAGE_FILTER_ITEMS_MAX),
    ]
    if not 0 <= request.since_days <= SINCE_DAYS_MAX:
        violations.append(Violation("since_days", f"must be 0 to {SINCE_DAYS_MAX}"))
    if violations:
        raise invalid_signal(violations)


def chosen(surveys: Sequence[Survey], request: ReconcileRequest) -> list[Survey]:
    """The ledgers asked for. One that could not be reached and was never known may be any of them.

    Raises INVALID_SIGNAL for a ledger, PARTITION_NOT_FOUND for a partition that surely is in none.
    """
    unknown = any(not survey.ledger_id for survey in surveys)
    missing = set(request.ledger_ids) - {survey.ledger_id for survey in surveys}
    if missing and not unknown:
        raise invalid_signal([Violation("ledger_ids", f"{min(missing)} is of no OMEN that is configured")])
    wanted = [each for each in surveys if not request.ledger_ids or each.ledger_id in {*request.ledger_ids, ""}]
    listed = {name for survey in wanted for name in (*survey.names, *survey.lost)}
    absent = set(request.partitions) - listed
    if absent and not any(survey.failure for survey in wanted):
        metadata = {"partition": min(absent)}
        raise ContractError(Reason.PARTITION_NOT_FOUND, "no ledger has this partition", metadata=metadata)
    return wanted


def lost(survey: Survey, settled: Collection[tuple[str, str]]) -> list[str]:
    """Partitions of which something is settled here, by (ledger_id, partition), and which the ledger does not list.

    By name. `settled` must have been read before the ledger was asked.
    """
    if survey.failure:
        return []
    return sorted({name for ledger_id, name in settled if ledger_id == survey.ledger_id} - set(survey.names))


def steps(surveys: Iterable[Survey], request: ReconcileRequest, now: datetime) -> list[Step]:
    """All that the run tells of, in its order. `now` is UTC."""
    found: list[Step] = []
    for survey in surveys:
        if survey.failure:
            found.append(Step(Kind.UNREACHABLE, survey, PartitionSummary()))
        for summary in survey.partitions:
            if not _is_filtered_out(summary.partition, request, now):
                kind = Kind.COMPARE if _is_in_scope(summary, request, now) else Kind.SKIP
                found.append(Step(kind, survey, summary))
        for name in survey.lost:
            if not _is_filtered_out(name, request, now):
                found.append(Step(Kind.LOST, survey, PartitionSummary(partition=name)))
    return sorted(found, key=lambda step: step.place)


def steps_left(planned: Iterable[Step], standing: Standing) -> list[Step]:
    """Those that are not told to their end. A ledger that cannot be reached now is told of wherever the run stood."""
    at = standing.ledger, standing.partition
    match standing.stage:
        case Stage.RUN_STARTED:
            return list(planned)
        case Stage.RUN_FINISHED:
            return []
        case Stage.PARTITION_FINISHED:
            return [step for step in planned if step.place > at or _has_failed_since(step, at)]
        case _:
            return [step for step in planned if step.place >= at or _has_failed_since(step, at)]


def _has_failed_since(step: Step, at: tuple[int, str]) -> bool:
    return step.kind is Kind.UNREACHABLE and step.survey.number == at[0] and bool(at[1])


def _is_filtered_out(partition: str, request: ReconcileRequest, now: datetime) -> bool:
    if request.partitions and partition not in request.partitions:
        return True
    return bool(request.since_days) and _day(partition) <= now.date() - timedelta(days=request.since_days)


def _is_in_scope(summary: PartitionSummary, request: ReconcileRequest, now: datetime) -> bool:
    """Sealed, past due, late and damaged partitions; open ones when named or with include_open."""
    is_due = summary.HasField("due_at") and summary.due_at.ToDatetime(tzinfo=UTC) <= now
    by_default = summary.is_sealed or is_due or summary.is_late or summary.is_damaged
    return by_default or bool(request.partitions) or request.include_open


def _day(partition: str) -> date:
    return date.fromisoformat(partition.removesuffix("-late"))


def _of_items(field: str, values: Sequence[str], form: str, most: int) -> list[Violation]:
    if len(values) > most:
        return [Violation(field, f"must have at most {most} items, has {len(values)}")]
    return [
        Violation(f"{field}[{index}]", "must be in the form of a ledger's own")
        for index, value in enumerate(values)
        if not re.fullmatch(form, value)
    ]
