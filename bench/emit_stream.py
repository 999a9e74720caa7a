"""P2: EmitStream, 256 events a message, each delivered before its message is answered.

Any server that answers EmitStream can be asked. Messages are encoded beforehand: what is measured is the other side.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import serving
from bench.emit import Check, new_events
from contract.limits import BATCH_ITEMS_MAX
from omen.v1 import signal_service_pb2 as pb
from serving.security import ClientSecurity

IN_FLIGHT = 4  # messages
STREAM_TIMEOUT_S = 300.0
METHOD = f"/{pb.DESCRIPTOR.services_by_name['SignalService'].full_name}/EmitStream"


class EmitStreaming:
    """Events a second that end as `check` asks. RuntimeError unless all are taken."""

    def __init__(
        self,
        target: str,
        security: ClientSecurity,
        check: Check,
        messages: int,
        wait_for: pb.WaitFor.ValueType = pb.WAIT_FOR_DELIVERED,
    ) -> None:
        self._target = target
        self._security = security
        self._check = check
        self._messages = messages
        self._wait_for = wait_for

    def __call__(self) -> float:
        return serving.run(self.per_s())

    async def per_s(self) -> float:
        encoded = [self._message() for _ in range(self._messages)]
        return await self._streamed_per_s(encoded)

    def _message(self) -> bytes:
        return pb.EmitStreamRequest(events=new_events(BATCH_ITEMS_MAX), wait_for=self._wait_for).SerializeToString()

    async def _streamed_per_s(self, encoded: Sequence[bytes]) -> float:
        async with serving.channel(self._target, self._security) as channel:
            stream: Any = channel.stream_stream(METHOD, response_deserializer=pb.EmitStreamResponse.FromString)
            call = stream(timeout=STREAM_TIMEOUT_S)
            room = asyncio.Semaphore(IN_FLIGHT)
            began = time.perf_counter()
            async with asyncio.TaskGroup() as both_ways:
                both_ways.create_task(self._send(call, encoded, room))
                receiving = both_ways.create_task(self._receive(call, room))
            return receiving.result() / (time.perf_counter() - began)

    async def _send(self, call: Any, encoded: Sequence[bytes], room: asyncio.Semaphore) -> None:
        for message in encoded:
            await room.acquire()
            await call.write(message)
        await call.done_writing()

    async def _receive(self, call: Any, room: asyncio.Semaphore) -> int:
        right, answered = 0, 0
        async for response in call:
            for result in response.results:
                if result.HasField("error"):
                    raise RuntimeError(f"not taken: {result.error}")
                right += self._check(result.emission)
            answered += len(response.results)
            room.release()
        if answered != self._messages * BATCH_ITEMS_MAX:
            raise RuntimeError(f"{answered} events were answered")
        return right


def is_in_ledger(emission: pb.Emission) -> bool:
    return bool(emission.position.sequence)
