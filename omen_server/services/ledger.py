"""omen.v1.LedgerService."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import grpc

from contract.checks import placed, text
from contract.errors import ContractError, Reason, invalid_signal
from contract.limits import OPERATOR_REASON_CHARS_MAX
from contract.pages import key_of_token, page_size_of, page_token
from ledger import PartitionInfo, SegmentInfo, SegmentState
from ledger.checking.verify import Damage, Progress, Verified
from ledger.positions import IndexRange, sequence_of
from ledger.times import bounded_moment_of
from omen.v1 import ledger_service_pb2 as pb
from omen.v1 import ledger_service_pb2_grpc as pb_grpc
from omen_server.dead_letters import DeadLetters
from omen_server.journal import Journal, partition_pruned, reads_answered
from omen_server.reading.replay import replayed, sequences
from omen_server.records import ledger_record
from omen_server.upkeep.retention import Retention
from serving.tasks import each_on_a_thread

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

# Steps of VerifyPartition at once, a MiB each. Even two keep the interpreter busy; what reads a file for anybody else
# needs one of the threads too, and two cores give six.
VERIFYING_MAX = 4

CHECK_REASON = text(OPERATOR_REASON_CHARS_MAX)


class LedgerService(pb_grpc.LedgerServiceServicer):
    def __init__(self, journal: Journal, letters: DeadLetters, retention: Retention) -> None:
        self._journal = journal
        self._letters = letters
        self._retention = retention
        self._verifying = asyncio.Semaphore(VERIFYING_MAX)

    async def ListPartitions(self, request: pb.ListPartitionsRequest, context: Context) -> pb.ListPartitionsResponse:
        size = page_size_of(request.page_size)
        after = key_of_token("ListPartitions", request.page_token)
        partitions = [info for info in await self._journal.partitions() if info.name > after]
        page = partitions[:size]
        return pb.ListPartitionsResponse(
            ledger_id=self._journal.ledger_id,
            partitions=[self._summary(info) for info in page],
            next_page_token=page_token("ListPartitions", page[-1].name) if len(partitions) > size else "",
        )

    async def GetPartition(self, request: pb.GetPartitionRequest, context: Context) -> pb.GetPartitionResponse:
        info = await self._partition(request.partition)
        return pb.GetPartitionResponse(
            ledger_id=self._journal.ledger_id,
            summary=self._summary(info),
            segments=[segment_message(segment) for segment in info.segments],
            damaged_sequences=[sequence_range(segment, run) for segment in info.segments for run in segment.damaged],
            dropped_sequences=[
                sequence_range(segment, run)
                for segment in info.segments
                for run in self._letters.dropped(segment.segment_id).intervals
            ],
            manifest_revision=info.seal.manifest_revision if info.seal else 0,
        )

    async def Replay(self, request: pb.ReplayRequest, context: Context) -> AsyncIterator[pb.ReplayResponse]:
        info = await self._unpruned(request.partition)
        ledger_id = self._journal.ledger_id
        try:
            with reads_answered():
                portions = await self._journal.read(lambda ledger: replayed(ledger.reader(), info, request))
                async for portion in each_on_a_thread(portions):
                    yield pb.ReplayResponse(records=[ledger_record(ledger_id, record) for record in portion])
        except ContractError as error:
            if error.reason == Reason.LEDGER_DAMAGED:
                await self._unpruned(info.name)
            raise
        await self._unpruned(info.name)  # pruned meanwhile, it has told only of a part

    async def SealPartition(self, request: pb.SealPartitionRequest, context: Context) -> pb.SealPartitionResponse:
        info = await self._partition(request.partition)
        if info.damaged and not info.is_sealed:
            raise damaged_partition(info)
        seal = await self._journal.seal(info.name)
        response = pb.SealPartitionResponse(summary=self._summary(await self._partition(info.name)))
        response.sealed_at.FromMicroseconds(seal.sealed_at)
        return response

    async def VerifyPartition(
        self, request: pb.VerifyPartitionRequest, context: Context
    ) -> AsyncIterator[pb.VerifyPartitionResponse]:
        info = await self._unpruned(request.partition)
        with reads_answered():
            async for found in each_on_a_thread(await self._journal.verification(info.name), self._verifying):
                yield verify_message(found)

    async def PrunePartition(self, request: pb.PrunePartitionRequest, context: Context) -> pb.PrunePartitionResponse:
        reason = request.unsettled_reason.strip()
        if violations := placed("unsettled_reason", CHECK_REASON(reason) or []):
            raise invalid_signal(violations)
        info = await self._partition(request.partition)
        prune = self._retention.prune if request.apply else self._retention.preview
        given = await prune(info, reason)
        return pb.PrunePartitionResponse(
            summary=self._summary(await self._partition(info.name)),
            byte_count=given.byte_count,
            reconcile_run_id=given.run_id,
        )

    async def _unpruned(self, name: str) -> PartitionInfo:
        info = await self._partition(name)
        if info.is_pruned:
            raise partition_pruned(name)
        return info

    async def _partition(self, name: str) -> PartitionInfo:
        try:
            with reads_answered():
                return await self._journal.read(lambda ledger: ledger.partition(name))
        except KeyError as error:
            raise ContractError(Reason.PARTITION_NOT_FOUND, "the ledger has no partition of that name") from error

    def _summary(self, info: PartitionInfo) -> pb.PartitionSummary:
        summary = pb.PartitionSummary(
            partition=info.name,
            is_sealed=info.is_sealed,
            is_late=info.is_late,
            is_pruned=info.is_pruned,
            is_damaged=info.damaged,
            record_count=info.record_count,
            highwater_sequence=info.highwater_sequence,
            damaged_record_count=sum(last - first + 1 for segment in info.segments for first, last in segment.damaged),
        )
        summary.due_at.FromDatetime(bounded_moment_of(self._journal.due_at(info.name)))
        return summary


def damaged_partition(info: PartitionInfo) -> ContractError:
    damaged = [sequences(segment.ordinal, *run) for segment in info.segments for run in segment.damaged]
    metadata = {"partition": info.name, "sequences": ",".join(text for texts in damaged for text in texts)}
    return ContractError(Reason.LEDGER_DAMAGED, f"{info.name} is damaged and is not sealed", metadata=metadata)


def verify_message(found: Progress | Damage | Verified) -> pb.VerifyPartitionResponse:
    if isinstance(found, Progress):
        progress = pb.VerifyProgress(bytes_read=found.bytes_read, bytes_total=found.bytes_total)
        return pb.VerifyPartitionResponse(progress=progress)
    if isinstance(found, Damage):
        damage = pb.VerifyDamage(ordinal=found.ordinal, sequence=found.sequence, description=found.description)
        return pb.VerifyPartitionResponse(damage=damage)
    summary = pb.VerifySummary(
        intact_record_count=found.intact_record_count,
        damaged_record_count=found.damaged_record_count,
        bytes_read=found.bytes_read,
    )
    return pb.VerifyPartitionResponse(summary=summary)


def segment_message(segment: SegmentInfo) -> pb.Segment:
    return pb.Segment(
        ordinal=segment.ordinal,
        segment_id=segment.segment_id,
        record_count=segment.record_count,
        byte_length=segment.byte_length,
        is_damaged=segment.state is SegmentState.DAMAGED,
    )


def sequence_range(segment: SegmentInfo, run: IndexRange) -> pb.SequenceRange:
    first, last = run
    return pb.SequenceRange(first=sequence_of(segment.ordinal, first), last=sequence_of(segment.ordinal, last))
