"""How fast replays may come, so that live ingest is not kept waiting by them."""

import asyncio
import sys


class Pace:
    """Lets at most so many records a second through, all takers together; 0 sets no limit."""

    def __init__(self, records_per_second: int) -> None:
        self._records_per_second = records_per_second
        self._free_at = 0.0

    def records_within(self, seconds: float) -> int:
        """How many may come in that time, at least one; without a limit more than anybody asks for."""
        return max(int(seconds * self._records_per_second), 1) if self._records_per_second else sys.maxsize

    async def take(self, count: int) -> None:
        """Returns when so many records may come. The first ones never wait."""
        if not self._records_per_second:
            return
        now = asyncio.get_running_loop().time()
        due = max(self._free_at, now)
        self._free_at = due + count / self._records_per_second
        await asyncio.sleep(due - now)
