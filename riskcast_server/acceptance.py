"""An operator accepts that a ledger lacks what is settled here: it was restored from an older copy, or forked."""

from collections.abc import Sequence

import structlog

from contract.errors import ContractError, Reason, Violation, invalid_signal
from omen.v1.ledger_service_pb2 import Segment
from riskcast_server import comparison
from riskcast_server.ledger_client import LedgerBroke, Survey
from riskcast_server.store import SegmentCoverage, Store

log = structlog.get_logger(__name__)


def asked_for(surveys: Sequence[Survey], ledger_id: str) -> Survey:
    """Raises ContractError INVALID_SIGNAL, or LEDGER_UNAVAILABLE when it may be one that cannot be reached."""
    for survey in surveys:
        if survey.ledger_id == ledger_id and not survey.failure:
            return survey
    if any(survey.ledger_id in (ledger_id, "") for survey in surveys):
        raise unavailable()
    raise invalid_signal([Violation("ledger_id", "is of no OMEN that is configured")])


async def accept_divergence(store: Store, survey: Survey, reason: str, accepted_at: int) -> list[SegmentCoverage]:
    """All that is settled here of the ledger and beyond it now, accepted before or by this.

    Raises ContractError LEDGER_UNAVAILABLE when the ledger cannot be asked, and STORE_UNAVAILABLE.
    """
    found: list[SegmentCoverage] = []
    try:
        for name in sorted(name for ledger_id, name in await store.partitions() if ledger_id == survey.ledger_id):
            found += await _beyond(store, survey, name)
    except LedgerBroke as error:
        raise unavailable() from error
    accepted = await store.runs.accepted(survey.ledger_id)
    if new := comparison.unaccepted(found, accepted):
        await store.runs.accept(survey.ledger_id, new, reason, accepted_at)
        log.warning("divergence_accepted", ledger_id=survey.ledger_id, records=record_count(new), reason=reason)
    return found


def unavailable() -> ContractError:
    message = "the ledger cannot be asked what it has"
    return ContractError(Reason.LEDGER_UNAVAILABLE, message, retry_delay_s=1)


def record_count(claims: Sequence[SegmentCoverage]) -> int:
    return sum(each.settled.count for each in claims)


async def beyond_ledger(
    store: Store, ledger_id: str, claims: Sequence[SegmentCoverage], segments: Sequence[Segment]
) -> list[SegmentCoverage]:
    """What is settled here and the ledger does not have. A cache alone accuses nobody: it is counted first.

    `claims` must have been read before the ledger was asked: it grows meanwhile.
    """
    beyond = comparison.beyond(claims, segments)
    counted = await store.coverage(ledger_id, [each.segment_id for each in beyond]) if beyond else {}
    return comparison.confirmed(beyond, counted)


async def _beyond(store: Store, survey: Survey, partition: str) -> list[SegmentCoverage]:
    claims = await store.partition_coverage(survey.ledger_id, partition)  # before the ledger is asked
    is_listed = partition in survey.names
    segments = (await survey.ledger.partition(partition)).segments if is_listed else []
    return await beyond_ledger(store, survey.ledger_id, claims, segments)
