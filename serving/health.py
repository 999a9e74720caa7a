"""The standard health service: what a probe may rely on.

`liveness` and "" mean that the process runs, also while it drains; `readiness` and the name of each mounted service
mean that calls are welcome. The library's own asyncio servicer does not fit: it holds a lock while it writes to a
watcher, so that one who does not read blocks every change, and its List answers with an exception's text.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, TypeAlias

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.calls.statuses import shutting_down

SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"]
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

ALIVE = ("", "liveness")
READY = "readiness"

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Health(health_pb2_grpc.HealthServicer):
    """The state of one server; not ready until told so."""

    def __init__(self, services: Iterable[str]) -> None:
        self._ready_names = (READY, *services)
        self._statuses = dict.fromkeys(ALIVE, SERVING) | dict.fromkeys(self._ready_names, NOT_SERVING)
        self._is_draining = False
        self._changed = asyncio.Event()

    def set_ready(self) -> None:
        """Calls are welcome; without effect once the server drains."""
        if not self._is_draining:
            self._set(SERVING)

    def set_not_ready(self) -> None:
        self._set(NOT_SERVING)

    def drain(self) -> None:
        """Not ready for good: watchers are told, then their streams end."""
        self._is_draining = True
        self._set(NOT_SERVING)

    def _set(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        self._statuses |= dict.fromkeys(self._ready_names, status)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> health_pb2.HealthCheckResponse:
        """NOT_FOUND for a name that is not known, as the protocol asks; it has no reason of ours."""
        status = self._statuses.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return health_pb2.HealthCheckResponse(status=status)

    async def List(self, _request: health_pb2.HealthListRequest, _context: Context) -> health_pb2.HealthListResponse:
        statuses = {name: health_pb2.HealthCheckResponse(status=status) for name, status in self._statuses.items()}
        return health_pb2.HealthListResponse(statuses=statuses)

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, _context: Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """The status now and after each change. A slow reader may miss a state in between, never the last one."""
        sent = None
        while True:
            changed, is_draining = self._changed, self._is_draining
            status = self._statuses.get(request.service, SERVICE_UNKNOWN)
            if status != sent:
                yield health_pb2.HealthCheckResponse(status=status)
                sent = status
            if is_draining:
                raise shutting_down()
            await changed.wait()
