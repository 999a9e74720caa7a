"""Who waits for what becomes of which record."""

import asyncio
from collections.abc import Collection

from ledger import Position
from omen.v1 import signal_service_pb2 as pb
from omen_server.outcome import Outcome

Listener = asyncio.Future[Outcome]


class WaitingRoom:
    """A listener is answered at most once and forgotten then, also when it has been cancelled."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[bytes, int], tuple[Position, Listener]] = {}
        self._closed_because = ""
        self._is_final = False

    @property
    def awaited(self) -> Collection[tuple[bytes, int]]:
        """(segment_id, record index) of every record somebody waits for."""
        return self._waiting.keys()

    @property
    def is_closed(self) -> bool:
        return bool(self._closed_because)

    def enter(self, position: Position, listener: Listener) -> None:
        """Wait for the outcome of a record; while closed, be answered LEDGER_ONLY at once."""
        if listener.done():
            return
        if self._closed_because:
            listener.set_result(ledger_only(position, self._closed_because))
            return
        key = (position.segment_id, position.record_index)
        self._waiting[key] = (position, listener)
        listener.add_done_callback(lambda _: self._waiting.pop(key, None))

    def leave(self, position: Position) -> Listener | None:
        """The listener of a record, who waits no longer here; None when nobody does."""
        _, listener = self._waiting.pop((position.segment_id, position.record_index), (position, None))
        return listener

    def answer(self, position: Position, outcome: Outcome) -> None:
        listener = self.leave(position)
        if listener is not None and not listener.done():
            listener.set_result(outcome)

    def close(self, reason: str) -> None:
        """Nobody need wait: answer everyone LEDGER_ONLY, those who come later too, until `open`."""
        if self._is_final:
            return
        self._closed_because = reason
        for position, listener in list(self._waiting.values()):
            if not listener.done():
                listener.set_result(ledger_only(position, reason))

    def close_for_good(self, reason: str) -> None:
        """As `close`; nothing opens it again."""
        self.close(reason)
        self._is_final = True

    def open(self) -> None:
        """Outcomes may come again."""
        if not self._is_final:
            self._closed_because = ""


def ledger_only(position: Position, reason: str) -> Outcome:
    return Outcome(pb.EMISSION_STATUS_LEDGER_ONLY, position, ledger_only_reason=reason)
