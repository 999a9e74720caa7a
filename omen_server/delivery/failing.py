"""Records that end every stream on which they are sent, kept apart so that no other waits for them. Pure.

A message that was the oldest without an answer when five streams in a row ended counts as failing. Its records are
then sent one by one, when nothing else is under way: all but the one that RiskCast cannot bear are answered, and that
one is tried again ever more rarely; soon at first, for a line that breaks looks the same. However many there are, in
vain they take a tenth of the time together. `now` is a monotonic clock, in seconds.
"""

import math
from collections.abc import Collection, Sequence

Place = tuple[bytes, int]  # segment_id, record index
ATTEMPTS_MAX = 5
RETRY_FIRST_S = 1.0  # doubled each time, so that after an outage nobody waits much longer than it took
RETRY_MAX_S = 60.0  # an attempt costs everybody a stream
REST_MIN_S = 1.0  # between two of them that ended a stream, of whatever records
REST_FACTOR = 9.0  # of what the last one took


class Failing:
    def __init__(self) -> None:
        self._maybe_suspect: Place | None = None
        self._attempts = 0
        self._due: dict[Place, float] = {}
        self._tried: dict[Place, int] = {}  # by itself, in vain
        self._trying_since = 0.0
        self._rests_until = -math.inf

    @property
    def apart(self) -> Collection[Place]:
        """Those that are to be sent by themselves."""
        return self._due.keys()

    def broke(self, oldest: Sequence[Place], now: float) -> Sequence[Place]:
        """A stream ended while this was the oldest message without an answer; empty when there was none.

        Returns what counts as failing from now on.
        """
        if not oldest:
            return ()
        if oldest[0] in self._due:
            self._rests_until = now + max(REST_MIN_S, REST_FACTOR * (now - self._trying_since))
            tried = self._tried[oldest[0]] = self._tried.get(oldest[0], 0) + 1
            self._due[oldest[0]] = now + min(RETRY_FIRST_S * 2.0 ** min(tried - 1, 16), RETRY_MAX_S)
            return ()
        self._attempts = self._attempts + 1 if oldest[0] == self._maybe_suspect else 1
        self._maybe_suspect = oldest[0]
        if self._attempts < ATTEMPTS_MAX:
            return ()
        self._maybe_suspect = None
        self._due |= dict.fromkeys(oldest, now)
        return oldest

    @property
    def is_watching(self) -> bool:
        """Whether it matters what RiskCast answers."""
        return bool(self._due) or self._maybe_suspect is not None

    def answered(self, places: Sequence[Place]) -> None:
        """RiskCast can bear them. That it bears others says nothing of the suspect: they may come first every time."""
        if self._maybe_suspect in places:
            self._maybe_suspect = None
        for place in places if self._due else ():
            self.forget(place)

    def forget(self, place: Place) -> None:
        """It needs no sending any more."""
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
