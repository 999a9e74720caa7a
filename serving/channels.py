"""How our own clients dial: one channel per process and target, an explicit timeout on each call."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import grpc

from serving.dialled import SecuredChannel
from serving.options import MESSAGE_BYTES_MAX
from serving.security import PLAIN, ClientSecurity
from serving.telemetry.call_meters import CallMeters, call_meters

CONNECT_WITHIN_S = 3.0  # for a server that was started a moment ago

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),  # refused here, before it crosses the network for nothing
    # Back within seconds of the other side's return: the default backs off to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Also how long one attempt to connect may take; the default waits 20 s for a host that drops packets.
    ("grpc.min_reconnect_backoff_ms", 2_000),
    # Targets are said in settings; an http_proxy meant for browsers must not take signals elsewhere.
    ("grpc.enable_http_proxy", 0),
    # A new channel begins anew, instead of with the backoff of an earlier one to the same address.
    ("grpc.use_local_subchannel_pool", 1),
    # A peer that vanished without a word is noticed within 80 s. The server allows a ping every 30 s.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)


@asynccontextmanager
async def connected(target: str, security: ClientSecurity = PLAIN) -> AsyncIterator[grpc.aio.Channel]:
    """A channel that has waited a moment for the server; if it is not there, the first call says so."""
    async with channel(target, security) as dialled:
        with suppress(TimeoutError):
            await asyncio.wait_for(dialled.channel_ready(), CONNECT_WITHIN_S)
        yield dialled


def channel(target: str, security: ClientSecurity = PLAIN, maybe_meters: CallMeters | None = None) -> SecuredChannel:
    """A channel to `target`: host:port, unix:path, or any name gRPC resolves. It connects when first used.

    Raises SecurityRefused if the key or the certificates cannot be read. `maybe_meters` are those of "client".
    """

    def dial(maybe_credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
        if maybe_credentials is None:
            return grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS)
        return grpc.aio.secure_channel(target, maybe_credentials, options=CHANNEL_OPTIONS)

    return SecuredChannel(dial, security, maybe_meters or call_meters("client", None))
