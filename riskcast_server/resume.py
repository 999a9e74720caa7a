"""Where a run stands after each of its messages, so that a run that was cut goes on right after the last one seen."""

import enum
import json
import re
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from contract.errors import ContractError, Reason
from contract.pages import key_of_token, page_token
from contract.validation import PARTITION, UUID
from riskcast.v1 import reconcile_service_pb2 as pb

SEQUENCE_MAX = 2**64 - 1
COUNT_MAX = 2**31 - 1
NUMBER_MAX = 2**53 - 1  # as microseconds the year 2255: every time can be computed with; no count comes near


class Stage(enum.IntEnum):
    """What was told last."""

    RUN_STARTED = 0
    PARTITION_STARTED = 1  # or what came after it within the partition: `sequence` says up to where
    PARTITION_FINISHED = 2
    RUN_FINISHED = 3


@dataclass(frozen=True, slots=True)
class Standing:
    """All that going on needs and nobody else keeps. Times are microseconds since the epoch.

    `ledger` is the number of the ledger among those that are configured; `partition` is "" for a whole one. `sequence`
    is that of the last record told as replayed, 0 before the first. The counts below it are of the partition, those
    below `worst` (a ReconcileStatus) of the partitions before it.
    """

    run_id: str
    started_at: int
    stage: int = Stage.RUN_STARTED
    ledger: int = 0
    partition: str = ""
    partition_started_at: int = 0
    sequence: int = 0
    settled_before: int = 0
    missing: int = 0
    fetched: int = 0
    replayed: int = 0
    worst: int = pb.RECONCILE_STATUS_UNSPECIFIED
    partitions_done: int = 0
    replayed_done: int = 0
    failed_done: int = 0

    def cursor(self, query: str) -> str:
        return page_token(query, json.dumps([getattr(self, each.name) for each in fields(self)], separators=(",", ":")))

    def entered(self, ledger: int, partition: str, now: int) -> Self:
        """A partition is begun: nothing is known of it yet."""
        nothing = dict.fromkeys(("sequence", "settled_before", "missing", "fetched", "replayed"), 0)
        changes: dict[str, Any] = {"ledger": ledger, "partition": partition, "partition_started_at": now, **nothing}
        return replace(self, **changes)


def query_of(request: pb.ReconcileRequest, targets: tuple[str, ...]) -> str:
    """A cursor is good for these filters and these ledgers, and for no others."""
    filters = pb.ReconcileRequest()
    filters.CopyFrom(request)
    filters.ClearField("cursor")
    return f"Reconcile {filters.SerializeToString(deterministic=True).hex()} {' '.join(targets)}"


def maybe_standing(query: str, cursor: str) -> Standing | None:
    """None for a new run. Raises ContractError INVALID_PAGE_TOKEN for a cursor that no message of such a run has."""
    if not cursor:
        return None
    try:
        names = [each.name for each in fields(Standing)]
        standing = Standing(**dict(zip(names, json.loads(key_of_token(query, cursor)), strict=True)))
    except (ValueError, TypeError, RecursionError) as error:
        raise _refused() from error
    if not _is_sound(standing):
        raise _refused()
    return standing


def _is_sound(standing: Standing) -> bool:
    """Whoever sends a cursor may have made it."""
    forms = {"run_id": UUID, "partition": f"(?:{PARTITION})?"}
    mosts = {
        "sequence": SEQUENCE_MAX,
        "stage": max(Stage),
        "worst": max(pb.ReconcileStatus.values()),
        "partitions_done": COUNT_MAX,
    }
    return all(
        isinstance(value, str) and bool(re.fullmatch(forms[name], value))
        if name in forms
        else type(value) is int and 0 <= value <= mosts.get(name, NUMBER_MAX)
        for name, value in asdict(standing).items()
    )


def _refused() -> ContractError:
    return ContractError(Reason.INVALID_PAGE_TOKEN, "the cursor is not one of this run's")
