"""What RiskCast asks of an OMEN: which partitions its ledger has, what is in them, and some of their records."""

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import grpc

from contract.errors import ErrorDetails
from contract.limits import PAGE_SIZE_MAX
from contract.validation import UUID, partition
from omen.v1.ledger_record_pb2 import LedgerRecord, SegmentRanges
from omen.v1.ledger_service_pb2 import (
    GetPartitionRequest,
    GetPartitionResponse,
    ListPartitionsRequest,
    PartitionSummary,
    ReplayRequest,
)
from omen.v1.ledger_service_pb2_grpc import LedgerServiceStub

if TYPE_CHECKING:
    from omen.v1.ledger_service_pb2_grpc import LedgerServiceAsyncStub  # a name of the .pyi alone

Answer = TypeVar("Answer")

UNEXPECTED_ANSWER = "UNEXPECTED_ANSWER"  # no reason of the contract: the ledger does not keep to it

CALL_TIMEOUT_S = 10.0  # answered from memory: slower than this is not answered at all
REPLAY_SILENCE_S = 30.0  # between two messages of a replay, each at most 1 MiB
REPLAY_TIMEOUT_S = 600.0  # for a whole replay; long before, its connection is replaced for age


class LedgerBroke(Exception):
    """The ledger could not be reached, or answered with an error. `reason` is its own, or the name of the status."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Survey:
    """What an OMEN lists; `failure` says why it does not. `ledger_id` is then the last one known, or "".

    `number` is the place of the OMEN among those that are configured. `lost`: partitions that it does not list although
    something of them is settled here.
    """

    ledger: "LedgerClient"
    ledger_id: str
    partitions: Sequence[PartitionSummary] = ()
    failure: str = ""
    lost: Sequence[str] = ()
    number: int = 0

    @property
    def names(self) -> list[str]:
        return [summary.partition for summary in self.partitions]


@dataclass(slots=True, eq=False)
class LedgerClient:
    """One OMEN. Every method but `survey` raises LedgerBroke."""

    target: str
    channel: grpc.aio.Channel
    ledger_id: str = ""  # as it was told last
    _stub: "LedgerServiceAsyncStub" = field(init=False)

    def __post_init__(self) -> None:
        self._stub = LedgerServiceStub(self.channel)

    async def survey(self) -> Survey:
        """All partitions, by name ascending."""
        partitions: list[PartitionSummary] = []
        request = ListPartitionsRequest(page_size=PAGE_SIZE_MAX)
        try:
            while True:
                page = await self._stub.ListPartitions(request, timeout=CALL_TIMEOUT_S)
                if not (re.fullmatch(UUID, page.ledger_id) and all(map(is_sound, page.partitions))):
                    failure = f"{UNEXPECTED_ANSWER}: the ledger at {self.target} does not answer as the contract says"
                    return Survey(self, self.ledger_id, failure=failure)
                self.ledger_id = page.ledger_id
                partitions += page.partitions
                if not page.next_page_token:
                    return Survey(self, self.ledger_id, partitions)
                request.page_token = page.next_page_token
        except grpc.aio.AioRpcError as error:
            return Survey(self, self.ledger_id, failure=str(self._broke(error)))

    async def partition(self, name: str) -> GetPartitionResponse:
        try:
            return await self._stub.GetPartition(GetPartitionRequest(partition=name), timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise self._broke(error) from error

    async def replay(self, name: str, ranges: Sequence[SegmentRanges]) -> AsyncGenerator[Sequence[LedgerRecord], None]:
        """The records of the ranges, in batches as they come."""
        call = self._stub.Replay(ReplayRequest(partition=name, ranges=ranges), timeout=REPLAY_TIMEOUT_S)
        try:
            batches = aiter(call)
            while batch := await _within(REPLAY_SILENCE_S, anext(batches, None)):
                yield batch.records
        except grpc.aio.AioRpcError as error:
            raise self._broke(error) from error
        except TimeoutError as error:
            raise LedgerBroke("DEADLINE_EXCEEDED", f"the ledger at {self.target} sends nothing") from error
        finally:
            call.cancel()

    def _broke(self, error: grpc.aio.AioRpcError) -> LedgerBroke:
        """Only what a rich status says is told on; a text of gRPC's own may name anything."""
        told = ErrorDetails.from_trailing_metadata(error.trailing_metadata())
        if told and told.reason:
            return LedgerBroke(told.reason, told.message)
        return LedgerBroke(error.code().name, f"the ledger at {self.target} cannot be read")


def is_sound(summary: PartitionSummary) -> bool:
    """Nothing else of it is computed with."""
    try:
        summary.due_at.ToDatetime()
    except (ValueError, OverflowError):
        return False
    return partition(summary.partition) is None


async def _within(timeout_s: float, answer: Awaitable[Answer]) -> Answer:
    async with asyncio.timeout(timeout_s):
        return await answer
