"""A circuit breaker: whether RiskCast is called at all. Pure; whoever asks passes the clock.

    closed ──too many failures──► open ──connection made anew, or waited long enough──► half open
      ▲                            ▲                                                      │   │
      │                            └─────────────────────────failure──────────────────────┘   │
      └──────────────────────────────────────success──────────────────────────────────────────┘

Half open, one call is tried. A call is a hello, or a message of records.
"""

from collections import deque
from enum import Enum

CONSECUTIVE_FAILURES_MAX = 5  # a second or so of retries: long enough for a restart of a connection
WINDOW_S = 60.0
WINDOW_CALLS_MIN = 10  # fewer say nothing about a share
FAILED_SHARE_MAX = 0.5  # RiskCast that answers every other call is slower than one that is left alone for a while


class State(Enum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half open"


class Event(Enum):
    SUCCEEDED = "a call was answered"
    FAILED = "a call failed"
    FAILED_TOO_OFTEN = "a call failed, and too many before it"
    READY_AGAIN = "the connection was made anew"
    WAITED = "it has been open for long enough"


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.CLOSED, Event.SUCCEEDED): State.CLOSED,
    (State.CLOSED, Event.FAILED): State.CLOSED,
    (State.CLOSED, Event.FAILED_TOO_OFTEN): State.OPEN,
    (State.CLOSED, Event.READY_AGAIN): State.CLOSED,
    (State.CLOSED, Event.WAITED): State.CLOSED,
    (State.OPEN, Event.SUCCEEDED): State.CLOSED,
    (State.OPEN, Event.FAILED): State.OPEN,
    (State.OPEN, Event.FAILED_TOO_OFTEN): State.OPEN,
    (State.OPEN, Event.READY_AGAIN): State.HALF_OPEN,
    (State.OPEN, Event.WAITED): State.HALF_OPEN,
    (State.HALF_OPEN, Event.SUCCEEDED): State.CLOSED,
    (State.HALF_OPEN, Event.FAILED): State.OPEN,
    (State.HALF_OPEN, Event.FAILED_TOO_OFTEN): State.OPEN,
    (State.HALF_OPEN, Event.READY_AGAIN): State.HALF_OPEN,
    (State.HALF_OPEN, Event.WAITED): State.HALF_OPEN,
}


class Breaker:
    """`now` is a monotonic clock, in seconds. `open_s`: how long it stays open when the connection tells nothing, for
    instance while RiskCast's store is away."""

    def __init__(self, open_s: float) -> None:
        self.state = State.CLOSED
        self._open_s = open_s
        self._opened_at = 0.0
        self._consecutive_failures = 0
        self._calls: deque[tuple[int, int, int]] = deque()  # second, calls, failures

    def allows(self, now: float) -> bool:
        """Whether a call may be made."""
        if self.state is State.OPEN and self.remaining_s(now) <= 0:
            self._on(Event.WAITED, now)
        return self.state is not State.OPEN

    def remaining_s(self, now: float) -> float:
        """How long it stays open by itself."""
        return self._opened_at + self._open_s - now if self.state is State.OPEN else 0.0

    def ready_again(self, now: float) -> None:
        self._on(Event.READY_AGAIN, now)

    def succeeded(self, now: float) -> None:
        self._consecutive_failures = 0
        self._count(now, failed=0)
        self._on(Event.SUCCEEDED, now)

    def failed(self, now: float) -> None:
        self._consecutive_failures += 1
        self._count(now, failed=1)
        self._on(Event.FAILED_TOO_OFTEN if self._fails_too_often() else Event.FAILED, now)

    def _fails_too_often(self) -> bool:
        if self._consecutive_failures >= CONSECUTIVE_FAILURES_MAX:
            return True
        calls = sum(calls for _, calls, _ in self._calls)
        failures = sum(failures for _, _, failures in self._calls)
        return calls >= WINDOW_CALLS_MIN and failures >= calls * FAILED_SHARE_MAX

    def _count(self, now: float, *, failed: int) -> None:
        """By the second, so that the window stays small however many calls there are."""
        second = int(now)
        while self._calls and self._calls[0][0] <= second - WINDOW_S:
            self._calls.popleft()
        calls, failures = 0, 0
        if self._calls and self._calls[-1][0] == second:
            _, calls, failures = self._calls.pop()
        self._calls.append((second, calls + 1, failures + failed))

    def _on(self, event: Event, now: float) -> None:
        before, self.state = self.state, TRANSITIONS[self.state, event]
        if self.state is before:
            return
        if self.state is State.OPEN:
            self._opened_at = now
        if self.state is State.CLOSED:
            self._calls.clear()  # what failed before says nothing any more
