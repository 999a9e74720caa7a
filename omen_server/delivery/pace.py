"""How long RiskCast takes for a message of records, seen from here. Pure; the clock is passed in."""

WEIGHT = 0.2  # of the newest message: the last ten or so decide


class Pace:
    """Only the time in which something was under way counts. `now` is a monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._interval_s = 0.0
        self._maybe_since: float | None = None  # when the message that is answered next began to be waited for

    def sent(self, now: float) -> None:
        if self._maybe_since is None:
            self._maybe_since = now

    def answered(self, now: float, *, is_more_under_way: bool) -> None:
        assert self._maybe_since is not None
        taken_s = now - self._maybe_since
        self._interval_s += (taken_s - self._interval_s) * (WEIGHT if self._interval_s else 1.0)
        self._maybe_since = now if is_more_under_way else None

    def broken(self) -> None:
        """Nothing is under way any more."""
        self._maybe_since = None

    def drain_s(self, message_count: int, now: float) -> float:
        """How long so many messages would take; 0.0 before the first was answered. One that is overdue takes what it
        has taken."""
        waited_s = 0.0 if self._maybe_since is None else now - self._maybe_since
        return max(message_count * self._interval_s, waited_s)
