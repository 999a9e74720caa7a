"""Whether and when RiskCast is called: the breaker and the retries, with the connection and the clock they need."""

import asyncio
from random import Random

import structlog

from omen.v1.delivery_service_pb2 import BreakerState
from omen_server.delivery.breaker import Breaker, State
from omen_server.delivery.line import Line
from omen_server.delivery.retry import RetryPolicy
from omen_server.delivery.stream import HELLO_TIMEOUT_MAX_S, HELLO_TIMEOUT_S, Disconnected
from omen_server.metrics import NO_HELLO, DeliveryMetrics
from serving.access.rate import Bucket
from serving.tasks import first_of

ASKED_FOR_MAX_S = 60.0  # a RiskCast that asks for more is asked again all the same: it may have meant something else
# Over a line that breaks after each answer no call fails twice in a row, so that neither retries nor breaker wait.
CALLS_PER_S_MAX = 5.0
HELD_RETRY_S = 30.0  # credentials and versions are mended by people, not by asking again soon

BREAKER_STATES = {
    State.CLOSED: BreakerState.BREAKER_STATE_CLOSED,
    State.OPEN: BreakerState.BREAKER_STATE_OPEN,
    State.HALF_OPEN: BreakerState.BREAKER_STATE_HALF_OPEN,
}

log = structlog.get_logger(__name__)


class Contact:
    """`failures`: in a row, since RiskCast last settled something."""

    def __init__(
        self, line: Line, breaker: Breaker, policy: RetryPolicy, jitter: Random, metrics: DeliveryMetrics
    ) -> None:
        self._line = line
        self._breaker = breaker
        self._policy = policy
        self._jitter = jitter
        self._metrics = metrics
        self._clock = asyncio.get_running_loop().time
        self._calls = Bucket(CALLS_PER_S_MAX, self._clock)
        self._was_ready = False  # the connection, when a call failed last
        self.failures = 0
        self.hello_timeout_s = HELLO_TIMEOUT_S

    @property
    def breaker_state(self) -> "BreakerState.ValueType":
        return BREAKER_STATES[self._breaker.state]

    async def until_allowed(self) -> None:
        """Wait as long as the breaker is open, and longer where RiskCast was called too often lately."""
        while not self._breaker.allows(self._clock()):
            await first_of(self._ready_again(), asyncio.sleep(self._breaker.remaining_s(self._clock())))
        await self.paced()

    async def paced(self) -> None:
        """Wait where RiskCast was called too often lately."""
        while wait_s := self._calls.take():  # noqa: ASYNC110 - how long is known; there is nothing to be told
            await asyncio.sleep(wait_s)

    def greeted(self, *, is_more_to_come: bool) -> None:
        """The hello was answered. With the breaker half open a message has to be, too, if there is one to send."""
        self.hello_timeout_s = HELLO_TIMEOUT_S
        if self._breaker.state is State.CLOSED or not is_more_to_come:
            self._succeeded()

    def answered(self) -> None:
        """A message was."""
        self.failures = 0
        self._succeeded()

    def failed(self, broken: Disconnected) -> None:
        if broken.cause == NO_HELLO:
            self.hello_timeout_s = min(2 * self.hello_timeout_s, HELLO_TIMEOUT_MAX_S)
        if broken.is_silent:
            self._line.redial()
        self._was_ready = self._line.is_ready
        if broken.is_expected:
            return
        self.failures += 1
        if broken.holds or broken.is_in_doubt or broken.is_ours:
            return
        before = self._breaker.state
        self._breaker.failed(self._clock())
        if before is not State.OPEN and self._breaker.state is State.OPEN:
            self._metrics.opened()
            log.warning("riskcast_breaker_opened", failures=self.failures, error=str(broken))

    async def back_off(self, broken: Disconnected) -> None:
        asked_for_s = min(broken.retry_delay_s, ASKED_FOR_MAX_S)
        delay_s = HELD_RETRY_S if broken.holds else 0.0
        await asyncio.sleep(self._policy.delay_s(self.failures, self._jitter, max(delay_s, asked_for_s)))
        self._metrics.retry()

    def forgive(self) -> None:
        """An operator wants it tried at once."""
        self.failures = 0
        self._breaker.ready_again(self._clock())

    async def _ready_again(self) -> None:
        await self._line.ready_again(was_ready=self._was_ready)
        self._breaker.ready_again(self._clock())

    def _succeeded(self) -> None:
        before = self._breaker.state
        self._breaker.succeeded(self._clock())
        if before is not State.CLOSED:
            log.info("riskcast_breaker_closed")
