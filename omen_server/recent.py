"""The signals that became durable last, so that a repeat needs no second record in the ledger.

A signal enters once it is fsynced, never before: who is answered from here is answered about what is in the ledger.
"""

from collections import OrderedDict
from dataclasses import dataclass

from ledger import Position
from omen_server.appends import Append, Place, place_of

SIGNALS_MAX = 32_768  # the repeats of a client that lost an answer come within seconds; some 12 MiB


@dataclass(slots=True)
class Recent:
    """`ack_id` is "" until RiskCast has answered."""

    signal_id: str
    input_event_hash: str
    position: Position
    ack_id: str = ""


class RecentSignals:
    """By signal_id. Bounded: the one that entered first leaves first."""

    def __init__(self, count_max: int = SIGNALS_MAX) -> None:
        self._count_max = count_max
        self._by_id: OrderedDict[str, Recent] = OrderedDict()  # finds its first at once, however many have left
        self._unanswered: dict[Place, Recent] = {}

    def maybe_recent(self, signal_id: str) -> Recent | None:
        return self._by_id.get(signal_id)

    def enter(self, append: Append, position: Position) -> None:
        """A record that became durable. Of several of one signal the first is remembered."""
        if append.signal_id in self._by_id:
            return
        if len(self._by_id) >= self._count_max:
            self._forget(next(iter(self._by_id.values())))
        recent = Recent(append.signal_id, append.input_event_hash, position)
        self._by_id[append.signal_id] = self._unanswered[place_of(position)] = recent

    def acknowledged(self, place: Place, ack_id: str) -> None:
        """RiskCast stores the signal."""
        if recent := self._unanswered.pop(place, None):
            recent.ack_id = ack_id

    def refused(self, place: Place) -> None:
        """RiskCast does not take the record: a repeat is a record of its own."""
        if recent := self._unanswered.get(place):
            self._forget(recent)

    def _forget(self, recent: Recent) -> None:
        del self._by_id[recent.signal_id]
        self._unanswered.pop(place_of(recent.position), None)
