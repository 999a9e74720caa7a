"""Records that end every stream on which they are sent, found and kept apart so that no other waits for them. Pure.

Those of a message that was the oldest without an answer when a stream ended are in doubt. They are sent again in ever
smaller messages, with nothing behind them, so that most are answered, and the fifth attempt is at one record alone. If
that ends the stream too, it counts as failing. It is then tried by itself, when nothing else is under way, ever more
rarely; soon at first, for a line that breaks looks the same. However many there are, in vain they take a tenth of the
time together. `now` is a monotonic clock, in seconds.
"""

import math
from collections.abc import Callable, Collection, Sequence

from contract.limits import BATCH_ITEMS_MAX

Place = tuple[bytes, int]  # segment_id, record index
ATTEMPTS_MAX = 5
IN_DOUBT_MAX = 4 * BATCH_ITEMS_MAX  # records; of more the oldest doubts are forgotten
RETRY_FIRST_S = 1.0  # doubled each time, so that after an outage nobody waits much longer than it took
RETRY_MAX_S = 60.0  # an attempt costs everybody a stream
REST_MIN_S = 1.0  # between two of them that ended a stream, of whatever records
REST_FACTOR = 9.0  # of what the last one took


class Failing:
    def __init__(self) -> None:
        self._doubts: dict[Place, int] = {}  # streams that ended at a message with it
        self._in_vain = 0  # streams that ended while one of several records was sought, since any were answered
        self._due: dict[Place, float] = {}
        self._tried: dict[Place, int] = {}  # by itself, in vain
        self._trying_since = 0.0
        self._rests_until = -math.inf

    @property
    def apart(self) -> Collection[Place]:
        """Those that are to be sent by themselves."""
        return self._due.keys()

    @property
    def is_record_suspected(self) -> bool:
        """Whether that a stream ended says nothing of RiskCast yet: it may be one record of many that is at fault."""
        return 0 < self._in_vain <= ATTEMPTS_MAX

    @property
    def is_in_doubt(self) -> bool:
        """Whether it is being found out which record it is."""
        return bool(self._doubts)

    def doubts(self, place: Place) -> int:
        return self._doubts.get(place, 0)

    def broke(self, oldest: Sequence[Place], now: float) -> bool:
        """A stream ended while this was the oldest message without an answer; empty when there was none.

        Whether its only record counts as failing from now on.
        """
        if not oldest:
            return False
        if oldest[0] in self._due:
            self._rests_until = now + max(REST_MIN_S, REST_FACTOR * (now - self._trying_since))
            tried = self._tried[oldest[0]] = self._tried.get(oldest[0], 0) + 1
            self._due[oldest[0]] = now + min(RETRY_FIRST_S * 2.0 ** min(tried - 1, 16), RETRY_MAX_S)
            return False
        self._in_vain += bool(self._in_vain or len(oldest) > 1)
        for place in oldest:
            self._doubts[place] = self._doubts.pop(place, 0) + 1
        while len(self._doubts) > IN_DOUBT_MAX:
            del self._doubts[next(iter(self._doubts))]
        if len(oldest) > 1 or self._doubts[oldest[0]] < ATTEMPTS_MAX:
            return False
        del self._doubts[oldest[0]]
        self._due[oldest[0]] = now
        return True

    def greeted(self, is_settled: Callable[[bytes, int], bool]) -> None:
        """What RiskCast has settled by now was not at fault."""
        self._doubts = {place: doubts for place, doubts in self._doubts.items() if not is_settled(*place)}
        self._in_vain = self._in_vain if self._doubts else 0

    @property
    def is_watching(self) -> bool:
        """Whether it matters what RiskCast answers."""
        return bool(self._due or self._doubts)

    def answered(self, places: Sequence[Place]) -> None:
        """RiskCast can bear them. That says nothing of others that are in doubt: these may come first every time."""
        self._in_vain = 0
        for place in places:
            self.forget(place)

    def forget(self, place: Place) -> None:
        """It needs no sending any more."""
        self._doubts.pop(place, None)
        self._due.pop(place, None)
        self._tried.pop(place, None)

    def trying(self, now: float) -> None:
        """One is sent by itself."""
        self._trying_since = now

    def maybe_due(self, now: float) -> Place | None:
        """The one that may be tried now, and has waited for longest."""
        place = min(self._due, key=self._due.__getitem__, default=None)
        return place if self.maybe_wait_s(now) == 0.0 else None

    def maybe_wait_s(self, now: float) -> float | None:
        """How long until one may be tried; None when there is none."""
        return max(0.0, min(self._due.values()) - now, self._rests_until - now) if self._due else None


def records_max(doubts: int) -> int:
    """Of a message with records that are so doubtful: 256, 64, 16, 4, 1."""
    return max(1, BATCH_ITEMS_MAX >> 2 * doubts)
