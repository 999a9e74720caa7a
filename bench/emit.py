"""P1 and P14: Emit end to end, one event a call, and how long a call takes when there is room.

Any server that answers Emit can be asked, so that OMEN and a bare echo of the message are called in the same way.
"""

import asyncio
import itertools
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import serving
from omen.v1 import signal_pb2
from omen.v1 import signal_service_pb2 as pb
from omen.v1.signal_event_pb2 import SignalEvent
from omen.v1.signal_service_pb2_grpc import SignalServiceStub
from serving.security import ClientSecurity

IN_FLIGHT = 64
CALL_TIMEOUT_S = 30.0

Check = Callable[[pb.Emission], bool]

_numbers = itertools.count()


class Emitting:
    """Calls a second that end as `check` asks, IN_FLIGHT at a time."""

    def __init__(self, target: str, security: ClientSecurity, check: Check, calls: int) -> None:
        self._target = target
        self._security = security
        self._check = check
        self._calls = calls

    def __call__(self) -> float:
        return serving.run(self._per_s())

    async def _per_s(self) -> float:
        requests = requested(self._calls)
        right = 0
        async with serving.channel(self._target, self._security) as channel:
            stub = SignalServiceStub(channel)

            async def caller() -> None:
                nonlocal right
                for each in requests:
                    response = await stub.Emit(each, timeout=CALL_TIMEOUT_S)
                    right += self._check(response.emission)

            began = time.perf_counter()
            async with asyncio.TaskGroup() as callers:
                for _ in range(IN_FLIGHT):
                    callers.create_task(caller())
            return right / (time.perf_counter() - began)


class Paced:
    """Milliseconds, p99, of calls that come at a rate, whether or not those before have been answered.

    A call's time counts from when it was due: what holds up the caller is not left out. One that does not end as
    `check` asks took for ever.
    """

    def __init__(self, target: str, security: ClientSecurity, check: Check, per_s: float, calls: int) -> None:
        self._target = target
        self._security = security
        self._check = check
        self._per_s = per_s
        self._calls = calls

    def __call__(self) -> float:
        return statistics.quantiles(serving.run(self._taken_ms()), n=100)[98]

    async def _taken_ms(self) -> list[float]:
        taken_ms: list[float] = []
        async with serving.channel(self._target, self._security) as channel:
            stub = SignalServiceStub(channel)

            async def call(request: pb.EmitRequest, due_s: float) -> None:
                is_right = self._check((await stub.Emit(request, timeout=CALL_TIMEOUT_S)).emission)
                taken_ms.append((time.perf_counter() - due_s) * 1e3 if is_right else math.inf)

            requests = requested(self._calls)
            began = time.perf_counter()
            async with asyncio.TaskGroup() as calls:
                for number, request in enumerate(requests):
                    due_s = began + number / self._per_s
                    await asyncio.sleep(due_s - time.perf_counter())
                    calls.create_task(call(request, due_s))
        return taken_ms


def is_delivered(emission: pb.Emission) -> bool:
    return emission.status == pb.EMISSION_STATUS_DELIVERED


def is_answer(emission: pb.Emission) -> bool:
    """An echo has no status."""
    return bool(emission.IsInitialized())


def requested(count: int) -> Iterator[pb.EmitRequest]:
    """Made before they are sent; all of them new."""
    return iter([request(number) for number in itertools.islice(_numbers, count)])


def request(number: int) -> pb.EmitRequest:
    return pb.EmitRequest(event=event(number), wait_for=pb.WAIT_FOR_DELIVERED)


def new_events(count: int) -> list[SignalEvent]:
    return [event(number) for number in itertools.islice(_numbers, count)]


def event(number: int) -> SignalEvent:
    """A distinct event of about 700 bytes."""
    event = SignalEvent(
        source="bench",
        source_event_id=f"bench:{os.getpid()}:{number}",
        ruleset_version="1.0.0",
        input_event_hash=f"sha256:{number:064x}",
        signal=signal_pb2.Signal(
            title=f"Will traffic through lane {number} stop?",
            description="A closure of the lane would be announced by its authority. " * 6,
            signal_type=signal_pb2.SIGNAL_TYPE_SHIPPING_ROUTE_RISK,
            status=signal_pb2.SIGNAL_STATUS_ACTIVE,
            category=signal_pb2.SIGNAL_CATEGORY_INFRASTRUCTURE,
            probability=0.25,
            probability_source="bench:stated",
            price_basis=signal_pb2.PRICE_BASIS_STATED,
            confidence_score=0.8,
            confidence_level=signal_pb2.CONFIDENCE_LEVEL_HIGH,
            confidence_method="bench",
            source_class=signal_pb2.SOURCE_CLASS_MODEL,
        ),
    )
    now = datetime.now(UTC)
    event.observed_at.FromDatetime(now)
    event.signal.generated_at.FromDatetime(now)
    return event
