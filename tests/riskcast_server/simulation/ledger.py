"""A ledger in memory: what an OMEN holds, and how it is damaged or set back."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from contract.errors import timestamp
from omen.v1.ledger_record_pb2 import LedgerPosition, LedgerRecord
from tests.riskcast_server.events import NOON
from tests.riskcast_server.simulation.world import World

Place = tuple[str, bytes, int]  # ledger_id, segment_id, record index

SEGMENT_RECORDS_MAX = 9


@dataclass(frozen=True, slots=True)
class Held:
    """One record."""

    ledger_id: str
    partition: str
    segment_id: bytes
    sequence: int
    index: int
    payload: bytes
    place: Place

    def on_the_wire(self) -> LedgerRecord:
        position = LedgerPosition(
            ledger_id=self.ledger_id, partition=self.partition, segment_id=self.segment_id, sequence=self.sequence
        )
        return LedgerRecord(position=position, written_at=timestamp(NOON), event=self.payload)


@dataclass
class Segment:
    ordinal: int
    segment_id: bytes
    records: list[Held] = field(default_factory=list)
    damaged: set[int] = field(default_factory=set)  # indexes

    @property
    def readable(self) -> Sequence[Held]:
        if not self.damaged:
            return self.records
        return [record for record in self.records if record.index not in self.damaged]

    def copy(self) -> "Segment":
        return Segment(self.ordinal, self.segment_id, list(self.records), set(self.damaged))


class SimulatedLedger:
    """`lost` are the records that it held before it was set back and holds no more."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.ledger_id = str(uuid.UUID(bytes=world.chance.randbytes(16), version=4))
        self.partitions: dict[str, list[Segment]] = {}
        self.lost: list[Held] = []
        self._in_use: set[str] = set()  # partitions whose last segment this writer began
        self._copy: dict[str, list[Segment]] | None = None

    def append(self, partition: str, payload: bytes) -> Held:
        segments = self.partitions.setdefault(partition, [])
        if partition not in self._in_use or len(segments[-1].records) == SEGMENT_RECORDS_MAX:
            segments.append(Segment(len(segments) + 1, self._world.chance.randbytes(16)))
            self._in_use.add(partition)
        segment = segments[-1]
        index = len(segment.records) + 1
        place = self.ledger_id, segment.segment_id, index
        sequence = segment.ordinal << 32 | index
        segment.records.append(Held(self.ledger_id, partition, segment.segment_id, sequence, index, payload, place))
        return segment.records[-1]

    @property
    def segments(self) -> list[Segment]:
        return [segment for _, segments in sorted(self.partitions.items()) for segment in segments]

    @property
    def records(self) -> list[Held]:
        return [record for segment in self.segments for record in segment.records]

    @property
    def readable(self) -> list[Held]:
        return [record for segment in self.segments for record in segment.readable]

    @property
    def unreadable(self) -> list[Held]:
        return [record for segment in self.segments for record in segment.records if record.index in segment.damaged]

    def restart(self) -> None:
        """A writer never goes on in the file of another."""
        self._in_use.clear()

    def damage(self, record: Held) -> None:
        for segment in self.segments:
            if segment.segment_id == record.segment_id:
                segment.damaged.add(record.index)

    def copy(self) -> None:
        self._copy = self._copied()

    def regress(self) -> bool:
        """Back to the copy, if there is one; whether anything is lost by that."""
        if self._copy is None:
            return False
        before, self.partitions = self.records, self._copy
        self._copy = None
        self.restart()
        kept = {record.place for record in self.records}
        gone = [record for record in before if record.place not in kept]
        self.lost += gone
        return bool(gone)

    def _copied(self) -> dict[str, list[Segment]]:
        return {name: [segment.copy() for segment in segments] for name, segments in self.partitions.items()}
