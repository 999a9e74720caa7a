"""How long to wait before RiskCast is called again. Pure; chance is passed in.

Full jitter: any time from none to the ceiling, so that many OMENs do not come back at one moment.
"""

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Seconds. After five attempts in vain the breaker opens (`breaker`)."""

    first_s: float = 0.1
    factor: float = 2.0
    most_s: float = 2.0  # after an outage RiskCast is found again within this

    def ceiling_s(self, failures: int) -> float:
        """The longest wait after so many failures in a row, from 1."""
        return min(self.most_s, self.first_s * self.factor ** min(failures - 1, 16))

    def delay_s(self, failures: int, jitter: Random, asked_for_s: float = 0.0) -> float:
        """The wait after so many failures in a row; never less than what the other side asked for."""
        return max(jitter.uniform(0, self.ceiling_s(failures)), asked_for_s)
