"""omen.v1.StatsService."""

from typing import Any, TypeAlias

import grpc

from contract.errors import not_implemented
from omen.v1 import stats_service_pb2 as pb
from omen.v1 import stats_service_pb2_grpc as pb_grpc

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class StatsService(pb_grpc.StatsServiceServicer):
    def GetStats(self, request: pb.GetStatsRequest, context: Context) -> pb.GetStatsResponse:
        raise not_implemented("GetStats")

    def ListActivity(self, request: pb.ListActivityRequest, context: Context) -> pb.ListActivityResponse:
        raise not_implemented("ListActivity")
