"""omen.v1.PipelineService."""

from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import grpc

from contract.errors import not_implemented
from omen.v1 import pipeline_service_pb2 as pb
from omen.v1 import pipeline_service_pb2_grpc as pb_grpc
from omen_server.emission import wait_of
from omen_server.intake import Intake, judge

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class PipelineService(pb_grpc.PipelineServiceServicer):
    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def Process(self, request: pb.ProcessRequest, context: Context) -> pb.ProcessResponse:
        timeout = request.delivery_timeout if request.HasField("delivery_timeout") else None
        wait = wait_of(request.wait_for, timeout)
        if request.dry_run:
            return judge(request.observation)
        return await self._intake.take(request.observation, wait)

    def ProcessStream(
        self, request_iterator: AsyncIterator[pb.ProcessStreamRequest], context: Context
    ) -> AsyncIterator[pb.ProcessStreamResponse]:
        raise not_implemented("ProcessStream")

    def ListRejections(self, request: pb.ListRejectionsRequest, context: Context) -> pb.ListRejectionsResponse:
        raise not_implemented("ListRejections")

    def GetMethodology(self, request: pb.GetMethodologyRequest, context: Context) -> pb.GetMethodologyResponse:
        raise not_implemented("GetMethodology")
