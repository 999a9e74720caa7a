"""What every store does, whatever its technology: one row per signal, what of each ledger is settled, and what
Reconcile has to remember."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from contract.coverage import Coverage
from contract.pages import SignalKey as SignalKey
from riskcast.v1.reconcile_service_pb2 import ReconcileState
from riskcast_server.settlement import Entry, Outcome, Row


class StoreRefused(Exception):
    """The store must not be used as it is; the message is one line for the operator."""


class StoreInUse(StoreRefused):
    """Another RiskCast has it."""


class StoreUnknown(StoreRefused):
    """The database URL names no store that this program knows."""


@dataclass(frozen=True, slots=True)
class PartitionCount:
    """`ledger_id` and `partition` are "" for signals that came from no ledger."""

    ledger_id: str
    partition: str
    signal_count: int


@dataclass(frozen=True, slots=True)
class SignalQuery:
    """Every filter that is set must hold. Times are microseconds since the epoch, `emitted_before` excluded.

    A partition is a day: a signal whose position names the partition of another day is not found by it.
    """

    emitted_from: int | None = None
    emitted_before: int | None = None
    category: int = 0
    source_event_id: str = ""
    ledger_id: str = ""
    partition: str = ""


@dataclass(frozen=True, slots=True)
class SegmentCoverage:
    partition: str
    segment_id: bytes
    ordinal: int
    settled: Coverage


@dataclass(frozen=True, slots=True)
class Failure:
    """A record that is neither stored nor a duplicate: it was rejected, or is in conflict and not emitted again."""

    segment_id: bytes
    record_index: int
    reason: str


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to do `name` alone, until it is released or runs out. `fence` rises with every lease of that name."""

    name: str
    holder: str
    fence: int


@dataclass(frozen=True, slots=True)
class StatesQuery:
    """ "" does not filter. With `is_history` every state that is kept, the newest first within a partition."""

    ledger_id: str = ""
    partition: str = ""
    is_history: bool = False


SegmentPlace = tuple[bytes, int]  # segment_id, record_index: of one ledger
NO_PLACE: SegmentPlace = (b"", 0)  # before all of them
StateKey = tuple[str, str, int]  # ledger_id, partition, fence


@dataclass(frozen=True, slots=True)
class Kept:
    """A state and where it stands in the list."""

    key: StateKey
    state: ReconcileState


class Runs(Protocol):
    """What Reconcile remembers. Every verb raises ContractError STORE_UNAVAILABLE when the store cannot answer now."""

    async def lease(self, name: str, holder: str, seconds: float) -> Lease:
        """The lease in force from now on: the holder's own if nobody else's is, with a new fence; else the other's.

        Time is the database's, so that the clocks of replicas do not matter.
        """

    async def renew(self, lease: Lease, seconds: float) -> bool:
        """Whether it is still in force; if so, for so many seconds more. One that ran out unnoticed may be renewed."""

    async def release(self, lease: Lease) -> None:
        """Ends it. Without effect when another is in force."""

    async def save_state(self, lease: Lease, state: ReconcileState) -> None:
        """Adds the state to the history of its partition; of each the last HISTORY_KEPT stay.

        ContractError RECONCILE_RUNNING, with the other's run_id, when the lease is no longer in force.
        """

    async def states(self, query: StatesQuery, after: StateKey | None, limit: int) -> list[Kept]:
        """The last state of every ledger and partition, by ledger, then partition; or the history."""

    async def save_missing(self, lease: Lease, partition: str, missing: Mapping[bytes, Coverage]) -> None:
        """What the run found missing, by segment_id, so that it can be resumed. What earlier runs saved goes.

        ContractError RECONCILE_RUNNING as `save_state`.
        """

    async def maybe_missing(self, ledger_id: str, run_id: str, partition: str) -> dict[bytes, Coverage] | None:
        """What that run saved; None when it saved nothing of the partition, or another run did since."""

    async def accept(self, ledger_id: str, claims: Sequence[SegmentCoverage], reason: str, accepted_at: int) -> None:
        """Remembers that an operator knows of these claims beyond the ledger. Microseconds since the epoch."""

    async def accepted(self, ledger_id: str) -> dict[bytes, Coverage]:
        """All that was accepted, by segment_id."""


HISTORY_KEPT = 30  # states of one partition: a month of daily runs


class Store(Protocol):
    """Every verb raises ContractError STORE_UNAVAILABLE, with a retry delay, when the store cannot answer now."""

    runs: Runs

    async def settle(self, entries: Sequence[Entry], ingested_at: int) -> list[Outcome]:
        """Decides and writes the entries in one transaction: rows, settlements and coverage together, or nothing.

        On return it is durable. One outcome per entry, in order. `ingested_at`: microseconds since the epoch.
        """

    async def maybe_signal(self, signal_id: str) -> Row | None:
        """The row of that id, with the event's bytes as they came."""

    async def list_signals(self, query: SignalQuery, after: SignalKey | None, limit: int) -> list[Row]:
        """At most so many rows behind `after`, by emitted_at, then signal_id."""

    async def count_signals(self, ledger_id: str = "", partition: str = "") -> list[PartitionCount]:
        """Rows counted now, by ledger and partition ascending; "" does not filter."""

    async def coverage(
        self, ledger_id: str, segment_ids: Sequence[bytes], *, counted_max: int | None = None
    ) -> dict[bytes, Coverage]:
        """What is settled of each segment asked about; left out where nothing is.

        Checked by counting, and rebuilt where the count disagrees. With `counted_max` only of so many settled records,
        and at least of one segment: those come first that were not counted for longest. The rest is as cached.
        """

    async def settled_count(self, ledger_id: str) -> int:
        """How many records of the ledger are settled, as cached: every hello asks, and must not cost more with time."""

    async def partitions(self) -> set[tuple[str, str]]:
        """Every (ledger_id, partition) of which something is settled, as cached."""

    async def partition_coverage(self, ledger_id: str, partition: str) -> list[SegmentCoverage]:
        """The segments of a partition that are known here, as cached, by ordinal."""

    async def count_rows_at(self, ledger_id: str, places: Mapping[bytes, Coverage]) -> int:
        """How many rows stand at one of the places, given as record indexes by segment_id."""

    async def rows_settling(self, ledger_id: str, segment_id: bytes, first: int, last: int) -> dict[int, Row]:
        """By record index, the row that settles it: its own, the one it repeats, or that of a conflict's wide id."""

    async def failures(self, ledger_id: str, segment_ids: Sequence[bytes]) -> list[Failure]:
        """Rejected records of the segments, and conflicts whose event has no row under its wide id either.

        By segment, then record index. The place of one may have a row: that of another signal.
        """

    async def rejected(self, ledger_id: str, after: SegmentPlace, limit: int) -> list[SegmentPlace]:
        """The records that are settled as rejected, the first so many behind that one, by segment, then record index.

        Every hello asks, and what else is settled must not make it dearer.
        """
