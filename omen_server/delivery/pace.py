"""How long RiskCast takes for a message of records, seen from here. Pure; the clock is passed in."""

from collections import deque
from statistics import median

REMEMBERED = 9  # messages; the middle one of them counts, so that a hiccup of either side is no pace


class Pace:
    """Only the time in which something was under way counts. `now` is a monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._intervals_s: deque[float] = deque(maxlen=REMEMBERED)
        self._maybe_since: float | None = None  # when the message that is answered next began to be waited for

    def sent(self, now: float) -> None:
        if self._maybe_since is None:
            self._maybe_since = now

    def answered(self, now: float, *, is_more_under_way: bool) -> None:
        assert self._maybe_since is not None
        self._intervals_s.append(now - self._maybe_since)
        self._maybe_since = now if is_more_under_way else None

    def broken(self) -> None:
        """Nothing is under way any more."""
        self._maybe_since = None

    def drain_s(self, message_count: int, now: float) -> float:
        """How long so many messages would take; 0.0 before the first was answered. One that is overdue takes what it
        has taken."""
        waited_s = 0.0 if self._maybe_since is None else now - self._maybe_since
        interval_s = median(self._intervals_s) if self._intervals_s else 0.0
        return max(message_count * interval_s, waited_s)
