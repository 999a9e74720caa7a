"""What a ledger holds, as it is known beside it: every record that it said, or was found, to be durable."""

from collections.abc import Iterator, Set
from dataclasses import dataclass
from functools import cached_property

from ledger import Ledger, Position, SegmentInfo, SegmentState
from omen.v1.ledger_record_pb2 import LedgerPosition
from tests.simulation.world import World

Place = tuple[str, bytes, int]  # ledger_id, segment_id, record index


@dataclass(frozen=True)
class Held:
    """One record."""

    ledger_id: str
    partition: str
    segment_id: bytes
    sequence: int
    payload: bytes

    @cached_property
    def place(self) -> Place:
        return self.ledger_id, self.segment_id, self.sequence & 0xFFFFFFFF

    @property
    def position(self) -> LedgerPosition:
        return LedgerPosition(
            ledger_id=self.ledger_id, partition=self.partition, segment_id=self.segment_id, sequence=self.sequence
        )


class Book:
    """`lost`: what it held before it was set back, and holds no more. `unreadable`: what was damaged on purpose."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.ledger_id = ""
        self._held: dict[Place, Held] = {}
        self._last: dict[str, int] = {}  # the last sequence of each partition
        self.lost: list[Held] = []
        self.unreadable: set[Place] = set()
        self._maybe_damaged_then: set[Place] | None = None

    @property
    def records(self) -> list[Held]:
        return list(self._held.values())

    @property
    def readable(self) -> list[Held]:
        return [held for held in self._held.values() if held.place not in self.unreadable]

    @property
    def partitions(self) -> set[str]:
        return {held.partition for held in self._held.values()}

    def maybe_held(self, segment_id: bytes, index: int) -> Held | None:
        return self._held.get((self.ledger_id, segment_id, index))

    def enter(self, position: Position, payload: bytes) -> Held:
        """The ledger says that it is durable."""
        held = Held(self.ledger_id, position.partition, position.segment_id, position.sequence, payload)
        if position.sequence <= self._last.get(position.partition, 0):
            self._world.flaw(f"H5 {position.partition}: {position.sequence:#x} was given out before")
        self._last[position.partition] = position.sequence
        self._held[held.place] = held
        return held

    def compare(self, ledger: Ledger) -> None:
        """After it was opened: whatever was known to be durable is there, byte for byte; the rest is durable now."""
        found = {held.place: held for held in self._found(ledger)}
        if self._maybe_damaged_then is not None:
            self._forget(found.keys(), self._maybe_damaged_then)
        for place, held in self._held.items():
            if place in self.unreadable:
                continue
            if place not in found:
                self._world.flaw(f"H1 {held.partition} {held.sequence:#x}: acknowledged, and gone after a restart")
            elif found[place].payload != held.payload:
                self._world.flaw(f"H1 {held.partition} {held.sequence:#x}: other bytes after a restart")
        for held in found.values():
            self._held.setdefault(held.place, held)
            self._last[held.partition] = max(self._last.get(held.partition, 0), held.sequence)

    def set_back(self, damaged_then: set[Place]) -> None:
        """What is not there when it is opened next is lost; what was damaged since the copy was taken no more is."""
        self._maybe_damaged_then = damaged_then

    def _forget(self, found: Set[Place], damaged_then: set[Place]) -> None:
        self._maybe_damaged_then, self.unreadable = None, damaged_then
        kept = found | damaged_then
        self.lost += [held for place, held in self._held.items() if place not in kept]
        self._held = {place: held for place, held in self._held.items() if place in kept}
        self._last.clear()

    def _check_damage(self, segment: SegmentInfo) -> None:
        named = {
            (self.ledger_id, segment.segment_id, index)
            for run in segment.damaged
            for index in range(run[0], run[1] + 1)
        }
        is_damaged = segment.state is SegmentState.DAMAGED
        if named - self.unreadable or (is_damaged and not named):
            self._world.flaw(f"{segment.partition} {segment.ordinal}: called damaged, and nobody damaged it")

    def _found(self, ledger: Ledger) -> Iterator[Held]:
        self.ledger_id = self.ledger_id or ledger.ledger_id
        reader = ledger.reader()
        for info in ledger.partitions():
            for segment in info.segments:
                self._check_damage(segment)
            for record in reader.records(info.name):
                at = record.position
                yield Held(self.ledger_id, at.partition, at.segment_id, at.sequence, record.payload)
