"""riskcast.v1.ReconcileService."""

from typing import Any, NoReturn, TypeAlias

import grpc

from contract.errors import not_implemented
from riskcast.v1 import reconcile_service_pb2 as pb
from riskcast.v1.reconcile_service_pb2_grpc import ReconcileServiceServicer
from riskcast_server.reconcile import Messages, Reconciler

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class ReconcileService(ReconcileServiceServicer):
    def __init__(self, reconciler: Reconciler) -> None:
        self._reconciler = reconciler

    def Reconcile(self, request: pb.ReconcileRequest, context: Context) -> Messages:
        return self._reconciler.run(request)

    async def ListReconcileStates(self, request: pb.ListReconcileStatesRequest, context: Context) -> NoReturn:
        raise not_implemented("ListReconcileStates")

    async def AcceptDivergence(self, request: pb.AcceptDivergenceRequest, context: Context) -> NoReturn:
        raise not_implemented("AcceptDivergence")
