"""What a Reconcile request asks for, as pure functions: is it sound, which ledgers, which partitions."""

import enum
import re
from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime, timedelta

from contract.errors import ContractError, Reason, Violation, invalid_signal, not_implemented
from contract.limits import LEDGER_FILTER_ITEMS_MAX, PAGE_FILTER_ITEMS_MAX, SINCE_DAYS_MAX
from contract.validation import PARTITION, UUID
from omen.v1.ledger_service_pb2 import PartitionSummary
from riskcast.v1.reconcile_service_pb2 import ReconcileRequest
from riskcast_server.ledger_client import Survey


class Scope(enum.Enum):
    COMPARE = "compare"
    SKIP = "skip"  # it still takes records: said, not compared
    OUT = "out"  # the request's filters leave it out


def check(request: ReconcileRequest) -> None:
    """Raises ContractError INVALID_SIGNAL naming every field that is wrong, or NOT_IMPLEMENTED naming the first."""
    for field in ("verify_content", "cursor"):
        if getattr(request, field):
            raise not_implemented(field)
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


def scope(summary: PartitionSummary, request: ReconcileRequest, now: datetime) -> Scope:
    """Sealed, past due, late and damaged partitions; open ones when named or with include_open. `now` is UTC."""
    if request.partitions and summary.partition not in request.partitions:
        return Scope.OUT
    if request.since_days and _day(summary.partition) <= now.date() - timedelta(days=request.since_days):
        return Scope.OUT
    is_due = summary.HasField("due_at") and summary.due_at.ToDatetime(tzinfo=UTC) <= now
    by_default = summary.is_sealed or is_due or summary.is_late or summary.is_damaged
    return Scope.COMPARE if by_default or request.partitions or request.include_open else Scope.SKIP


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
