"""How often a key may call: a token bucket for each."""

from collections.abc import Callable

BURST_S = 1.0  # a second's worth may come at once: clients send in bursts


class Bucket:
    """Fills by `rate` tokens a second up to a second's worth, at least one. `now` gives seconds that only rise."""

    def __init__(self, rate: float, now: Callable[[], float]) -> None:
        self.rate = rate
        self._now = now
        self._capacity = max(1.0, rate * BURST_S)
        self._tokens = self._capacity
        self._filled_at = now()

    def take(self) -> float:
        """Takes a token and returns 0, or takes none and returns in how many seconds there will be one."""
        self._fill()
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self.rate

    def reserve(self) -> float:
        """Takes a token in any case, and returns how many seconds to wait for it: those who wait are served in turn."""
        self._fill()
        self._tokens -= 1.0
        return max(0.0, -self._tokens / self.rate)

    def _fill(self) -> None:
        now = self._now()
        self._tokens = min(self._capacity, self._tokens + (now - self._filled_at) * self.rate)
        self._filled_at = now
