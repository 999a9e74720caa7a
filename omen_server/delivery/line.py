"""The connection to RiskCast, as delivery uses it."""

from typing import TYPE_CHECKING, Protocol

import grpc

from riskcast.v1 import ingest_service_pb2 as pb
from riskcast.v1.ingest_service_pb2_grpc import IngestServiceStub
from serving.dialled import SecuredChannel

if TYPE_CHECKING:  # at run time there is one stub class for both kinds of channels
    from riskcast.v1.ingest_service_pb2_grpc import IngestServiceAsyncStub

    Call = grpc.aio.StreamStreamCall[pb.IngestStreamRequest, pb.IngestStreamResponse]


class Line(Protocol):
    """What delivery needs of a connection."""

    def stream(self) -> "Call":
        """A call of IngestStream that begins now."""

    @property
    def is_ready(self) -> bool:
        """Whether the connection stands."""

    async def ready_again(self, *, was_ready: bool) -> None:
        """Wait until the connection stands; if it did when a call failed, until it was made anew."""

    def redial(self) -> None:
        """Give up a connection on which nothing is heard any more: the next call begins on a new one."""


class GrpcLine:
    def __init__(self, channel: SecuredChannel) -> None:
        self._channel = channel
        self._stub: IngestServiceAsyncStub = IngestServiceStub(channel)

    def stream(self) -> "Call":
        return self._stub.IngestStream()

    @property
    def is_ready(self) -> bool:
        return self._channel.get_state() is grpc.ChannelConnectivity.READY

    async def ready_again(self, *, was_ready: bool) -> None:
        ready = grpc.ChannelConnectivity.READY
        state = self._channel.get_state(try_to_connect=True)
        while was_ready and state is ready:
            state = await self._changed(state)
        while state is not ready:
            state = await self._changed(state)

    def redial(self) -> None:
        self._channel.redial()

    async def _changed(self, state: grpc.ChannelConnectivity) -> grpc.ChannelConnectivity:
        await self._channel.wait_for_state_change(state)
        return self._channel.get_state(try_to_connect=True)
