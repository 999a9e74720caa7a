"""How often a key may call: a token bucket for each."""

from collections.abc import Callable

BURST_S = 1.0  # a second's worth may come at once: clients send in bursts
# Who waited as long as told gets a token, though sums of floats come out a little below it.
ROUNDING = 1e-6


class Bucket:
    """Fills by `rate` tokens a second up to a second's worth, at least one. `now` gives seconds that only rise."""

    def __init__(self, rate: float, now: Callable[[], float]) -> None:
        self._rate = rate
        self._now = now
        self._tokens = self._capacity
        self._filled_at = now()

    @property
    def _capacity(self) -> float:
        return max(1.0, self._rate * BURST_S)

    def change_to(self, rate: float) -> None:
        """Goes on at another rate with the tokens there are: a change is not worth a burst."""
        self._fill()
        self._rate = rate
        self._tokens = min(self._capacity, self._tokens)

    def take(self) -> float:
        """Takes a token and returns 0, or takes none and returns in how many seconds there will be one."""
        self._fill()
        if self._tokens >= 1.0 - ROUNDING:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self._rate

    def reserve(self) -> float:
        """Takes a token in any case, and returns how many seconds to wait for it: those who wait are served in turn."""
        self._fill()
        self._tokens -= 1.0
        return max(0.0, -self._tokens / self._rate)

    def _fill(self) -> None:
        now = self._now()
        self._tokens = min(self._capacity, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
