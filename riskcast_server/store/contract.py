"""What every store does, whatever its technology: one row per signal, and what of each ledger is settled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from contract.coverage import Coverage
from riskcast.v1.reconcile_service_pb2 import ReconcileState
from riskcast_server.settlement import Entry, Outcome, Row


class StoreRefused(Exception):
    """The store must not be used as it is; the message is one line for the operator."""


class StoreUnknown(StoreRefused):
    """The database URL names no store that this program knows."""


@dataclass(frozen=True, slots=True)
class PartitionCount:
    """`ledger_id` and `partition` are "" for signals that came from no ledger."""

    ledger_id: str
    partition: str
    signal_count: int


@dataclass(frozen=True, slots=True)
class SegmentCoverage:
    segment_id: bytes
    ordinal: int
    settled: Coverage


@dataclass(frozen=True, slots=True)
class Failure:
    """A record that is neither stored nor a duplicate: it was rejected, or is in conflict and not emitted again."""

    segment_id: bytes
    record_index: int
    reason: str


class Store(Protocol):
    """Every verb raises ContractError STORE_UNAVAILABLE, with a retry delay, when the store cannot answer now."""

    async def settle(self, entries: Sequence[Entry], ingested_at: int) -> list[Outcome]:
        """Decides and writes the entries in one transaction: rows, settlements and coverage together, or nothing.

        On return it is durable. One outcome per entry, in order. `ingested_at`: microseconds since the epoch.
        """

    async def maybe_signal(self, signal_id: str) -> Row | None:
        """The row of that id, with the event's bytes as they came."""

    async def count_signals(self, ledger_id: str = "", partition: str = "") -> list[PartitionCount]:
        """Rows counted now, by ledger and partition ascending; "" does not filter."""

    async def coverage(self, ledger_id: str, segment_ids: Sequence[bytes]) -> dict[bytes, Coverage]:
        """What is settled of each segment asked about; checked by counting, rebuilt where the count disagrees."""

    async def settled_count(self, ledger_id: str) -> int:
        """How many records of the ledger are settled, counted from rows and settlements, not from the cache."""

    async def partitions(self) -> set[tuple[str, str]]:
        """Every (ledger_id, partition) of which something is settled, as cached."""

    async def partition_coverage(self, ledger_id: str, partition: str) -> list[SegmentCoverage]:
        """The segments of a partition that are known here, as cached."""

    async def count_rows_at(self, ledger_id: str, places: Mapping[bytes, Coverage]) -> int:
        """How many rows claim one of the places, given as record indexes by segment_id."""

    async def failures(self, ledger_id: str, segment_ids: Sequence[bytes]) -> list[Failure]:
        """Rejected records of the segments, and conflicts whose event has no row under its wide id either.

        By segment, then record index. The place of one may have a row: that of another signal.
        """

    async def save_state(self, state: ReconcileState) -> None:
        """Replaces the state of the same ledger and partition."""
