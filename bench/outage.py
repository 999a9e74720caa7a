"""P9: what gathered while RiskCast was away is delivered once it is back, while new events come in."""

import asyncio
import time
from typing import NamedTuple

import grpc

import serving
from bench.emit import CALL_TIMEOUT_S, is_delivered, requested
from bench.emit_stream import EmitStreaming, is_in_ledger
from bench.pair import Pair, pair
from bench.rounds import Figure, Measured, Scale, alternated
from contract.limits import BATCH_ITEMS_MAX
from omen.v1 import signal_service_pb2 as pb
from omen.v1.delivery_service_pb2 import GetDeliveryStateRequest
from omen.v1.delivery_service_pb2_grpc import DeliveryServiceStub
from omen.v1.signal_service_pb2_grpc import SignalServiceStub

SHARE_OF_ROWS = 10  # the backlog: one for so many of the rows of the other parts
MESSAGES = 40
ASKED_EVERY_S = 0.05
NEW_EVERY_S = 0.01
LEFT_MAX = BATCH_ITEMS_MAX  # so many may be under way at any time: the backlog is gone
DRAIN_TIMEOUT_S = 300.0


class Seen(NamedTuple):
    at_s: float
    backlog: int


class Drained(NamedTuple):
    per_s: float
    began_after_s: float  # RiskCast's return


def figures(scale: Scale) -> list[Figure]:
    messages = max(scale.stored_rows // SHARE_OF_ROWS // BATCH_ITEMS_MAX, 1)
    with pair(scale.folder / "outage") as both:
        streaming = EmitStreaming(both.omen.target, both.security, is_delivered, scale.of(MESSAGES))
        [rounds] = alternated(scale.rounds, lambda: (streaming(), drained(both, messages)))
        live, outages = zip(*rounds, strict=True)
    settings = (
        f"{messages * BATCH_ITEMS_MAX:,} events of about 700 bytes taken while RiskCast was away; then an Emit every "
        f"{NEW_EVERY_S * 1e3:.0f} ms beside them; 3 processes"
    )
    return [
        Figure(
            "backlog after an outage",
            "events/s",
            settings,
            Measured([each.per_s for each in outages], list(live)),
            compared_with="EmitStream, delivered",
            at_least=0.8,
        ),
        Figure(
            "backlog after an outage, first of it delivered after",
            "s",
            settings,
            Measured([each.began_after_s for each in outages]),
            at_most=5.0,
        ),
    ]


def drained(both: Pair, messages: int) -> Drained:
    with both.without_riskcast():
        EmitStreaming(both.omen.target, both.security, is_in_ledger, messages, pb.WAIT_FOR_LEDGER)()
    return serving.run(_drained(both))


async def _drained(both: Pair) -> Drained:
    back_s = time.perf_counter()
    async with serving.channel(both.omen.target, both.security) as channel:
        coming = asyncio.create_task(_new_ones(channel))
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                seen = await _watched(channel)
        finally:
            coming.cancel()
            await asyncio.wait([coming])
    if not coming.cancelled():
        await coming  # a new event was refused meanwhile
    began = max(each for each in seen if each.backlog >= seen[0].backlog)
    per_s = (began.backlog - seen[-1].backlog) / (seen[-1].at_s - began.at_s)
    return Drained(per_s, began.at_s - back_s)


async def _watched(channel: grpc.aio.Channel) -> list[Seen]:
    """From the whole backlog until nothing of it is left."""
    delivery = DeliveryServiceStub(channel)
    seen: list[Seen] = []
    while not seen or seen[-1].backlog > LEFT_MAX:
        await asyncio.sleep(ASKED_EVERY_S)
        state = await delivery.GetDeliveryState(GetDeliveryStateRequest(), timeout=CALL_TIMEOUT_S)
        if state.HasField("backlog_record_count"):
            seen.append(Seen(time.perf_counter(), state.backlog_record_count))
    return seen


async def _new_ones(channel: grpc.aio.Channel) -> None:
    signals = SignalServiceStub(channel)
    while True:
        for request in requested(100):
            request.wait_for = pb.WAIT_FOR_LEDGER
            await signals.Emit(request, timeout=CALL_TIMEOUT_S)
            await asyncio.sleep(NEW_EVERY_S)
