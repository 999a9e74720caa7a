"""A ledger that is nowhere but in what it sends: for measuring the door by itself."""

import itertools
import time
import uuid
from collections.abc import Iterable, Iterator

from bench.events import Events
from ledger.positions import sequence_of
from omen.v1.ledger_record_pb2 import LedgerPosition, LedgerRecord
from riskcast_server.settlement import Position, Row

SEGMENT_RECORDS = 65_536  # as a ledger has them


class Feed:
    """Each event it is asked for gets the next position, also one that has some already."""

    def __init__(self, events: Events) -> None:
        self.ledger_id = str(uuid.uuid4())
        self._events = events
        self._partition = events.emitted_at.date().isoformat()
        self._positions = self._endless_positions()

    def records(self, numbers: Iterable[int]) -> list[LedgerRecord]:
        return [self._events.record(number, wire(at)) for number, at in zip(numbers, self._positions, strict=False)]

    def rows(self, numbers: Iterable[int]) -> Iterator[Row]:
        """As RiskCast would store them."""
        ingested_at = time.time_ns() // 1000
        for number, at in zip(numbers, self._positions, strict=False):
            yield Row(self._events.candidate(number, at), ingested_at)

    def _endless_positions(self) -> Iterator[Position]:
        for ordinal in itertools.count(1):
            segment_id = uuid.uuid4().bytes
            for index in range(1, SEGMENT_RECORDS + 1):
                yield Position(self.ledger_id, self._partition, segment_id, sequence_of(ordinal, index))


def wire(at: Position) -> LedgerPosition:
    return LedgerPosition(
        ledger_id=at.ledger_id, partition=at.partition, segment_id=at.segment_id, sequence=at.sequence
    )
