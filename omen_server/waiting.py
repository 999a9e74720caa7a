"""Who waits for what RiskCast says of which record."""

from collections.abc import Iterator

from ledger import Position
from omen_server.appends import Append, Place, place_of

MANY = 4096  # more than clients usually have under way


class WaitingRoom:
    """Whoever waits is answered at most once and forgotten then."""

    def __init__(self) -> None:
        self._waiting: dict[Place, Append] = {}
        self._many = MANY
        self._closed_because = ""
        self._is_final = False

    @property
    def is_closed(self) -> bool:
        return bool(self._closed_because)

    def awaited(self) -> Iterator[Place]:
        """Every record somebody still waits for; those who gave up are forgotten."""
        self._forget_answered()
        yield from self._waiting

    def enter(self, append: Append, position: Position) -> None:
        """Wait for the outcome of a durable record; while closed, be answered LEDGER_ONLY at once."""
        if self._closed_because:
            append.answer(append.ledger_only(self._closed_because))
            return
        if len(self._waiting) >= self._many:
            self._forget_answered()
        first = self._waiting.setdefault(place_of(position), append)
        if first is not append:
            first.add_twin(append)

    def awaits(self, place: Place) -> bool:
        """Whether somebody waits for the record."""
        append = self._waiting.get(place)
        return append is not None and not append.is_answered

    def leave(self, place: Place) -> Append | None:
        """Who waited for a record, and waits no longer here; None when nobody did."""
        return self._waiting.pop(place, None)

    def close(self, reason: str) -> None:
        """Nobody need wait: answer everyone LEDGER_ONLY, those who come later too, until `open`."""
        if self._is_final:
            return
        self._closed_because = reason
        waiting, self._waiting = self._waiting, {}
        for append in waiting.values():
            append.answer(append.ledger_only(reason))

    def _forget_answered(self) -> None:
        """Those who gave up, when there have come to be many."""
        self._waiting = {place: append for place, append in self._waiting.items() if not append.is_answered}
        self._many = max(MANY, 2 * len(self._waiting))

    def close_for_good(self, reason: str) -> None:
        """As `close`; nothing opens it again."""
        self.close(reason)
        self._is_final = True

    def open(self) -> None:
        """Outcomes may come again."""
        if not self._is_final:
            self._closed_because = ""
