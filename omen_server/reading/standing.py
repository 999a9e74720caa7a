"""Where a watch of the ledger stands, and the cursor that says so. Pure.

SEALs are numbered in the order of sealing. So a cursor is one number, up to which every sealed partition has been told
to its end, and the last sequence told of each other partition that there was. A partition that is in neither is new.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ledger import PartitionInfo, Position, SegmentInfo, SegmentState
from ledger.positions import RECORD_INDEX_MAX, SEGMENT_ID_UNKNOWN

_ID_DIGITS = 8  # of a segment's id: enough to notice that another one has come into its place

_STANDING = re.compile(r"([0-9]{1,18})((?:\|[0-9-]{10}(?:-late)?:[0-9]{1,19}:[0-9a-f]*)*)")


class Told(NamedTuple):
    """The last sequence told of a partition, 0 before the first, and how the id of its segment begins."""

    sequence: int = 0
    segment: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """The partitions of a ledger. `growing`: those that are not sealed, or whose SEAL cannot be read."""

    growing: Mapping[str, PartitionInfo] = field(default_factory=dict)
    sealed: Mapping[int, PartitionInfo] = field(default_factory=dict)  # by the number of the SEAL
    numbers: Mapping[str, int] = field(default_factory=dict)

    @property
    def last_number(self) -> int:
        """Numbers have no gap; one is missing where a SEAL cannot be read."""
        return max(self.sealed, default=0)

    def updated(self, listed: Iterable[PartitionInfo]) -> "Listing":
        """With the partitions that are not sealed now, and those sealed since."""
        listed = list(listed)
        since = {info.seal.seal_number: info for info in listed if info.seal}
        return Listing(
            {info.name: info for info in listed if not info.seal},
            {**self.sealed, **since} if since else self.sealed,
            {**self.numbers, **{info.name: number for number, info in since.items()}} if since else self.numbers,
        )

    def maybe(self, name: str) -> PartitionInfo | None:
        return self.growing.get(name) or self.sealed.get(self.numbers.get(name, 0))

    def unreadable_are_within(self, number: int) -> bool:
        """Whether the SEALs that cannot be read have numbers up to this one, as those that are missing tell."""
        unreadable = sum(info.is_sealed for info in self.growing.values())
        last = max(self.last_number, len(self.sealed) + unreadable)
        return all(each in self.sealed for each in range(number + 1, last + 1))


class Standing:
    """Goes forward with every record that is told."""

    def __init__(self, sealed_through: int, told: dict[str, Told]) -> None:
        self._sealed_through = sealed_through
        self._told = told

    @classmethod
    def at_the_end(cls, listing: Listing) -> "Standing":
        """Everything that is listed counts as told."""
        return cls(listing.last_number, {name: _end_of(info) for name, info in listing.growing.items()})

    @classmethod
    def maybe_of(cls, text: str) -> "Standing | None":
        """None for what `text` never gives."""
        match = _STANDING.fullmatch(text)
        if match is None:
            return None
        parts = [part.split(":") for part in match[2].split("|")[1:]]
        return cls(int(match[1]), {name: Told(int(sequence), segment) for name, sequence, segment in parts})

    @property
    def text(self) -> str:
        parts = [f"|{name}:{told.sequence}:{told.segment}" for name, told in sorted(self._told.items())]
        return f"{self._sealed_through}{''.join(parts)}"

    def sequence(self, partition: str) -> int:
        """The last one told of it."""
        return self._told.get(partition, Told()).sequence

    def fits(self, listing: Listing) -> bool:
        """False when more was told than the ledger holds, or something else: it was restored from an older copy."""
        unreadable = sum(info.is_sealed for info in listing.growing.values())
        if self._sealed_through > max(listing.last_number, len(listing.sealed) + unreadable):
            return False
        return all(_holds(listing.maybe(name), told) for name, told in self._told.items())

    def unread(self, listing: Listing) -> list[PartitionInfo]:
        """The partitions that hold more than was told, by name."""
        since = range(self._sealed_through + 1, listing.last_number + 1)
        candidates = [info for number in since if (info := listing.sealed.get(number))]
        candidates += [info for info in listing.growing.values() if not self._was_told(info, listing)]
        found = {info.name: info for info in candidates if info.highwater_sequence > self.sequence(info.name)}
        return [found[name] for name in sorted(found)]

    def advance(self, position: Position) -> None:
        """Everything up to this place of its partition has been told."""
        self._told[position.partition] = Told(position.sequence, _digits(position.segment_id))

    def settle(self, listing: Listing) -> None:
        """All that is listed has been told: forget the partitions that will never hold more."""
        self._sealed_through = max(self._sealed_through, listing.last_number)
        for name in self._told.keys() & listing.numbers.keys():
            del self._told[name]

    def _was_told(self, info: PartitionInfo, listing: Listing) -> bool:
        """Of a partition whose SEAL has become unreadable: whether it was told to its end before.

        Where the numbers leave that open it is told once more: a repeat is recognised by its id, a gap by nothing.
        """
        is_known = info.name in self._told or not info.is_sealed
        return not is_known and listing.unreadable_are_within(self._sealed_through)


def _end_of(info: PartitionInfo) -> Told:
    sequence = info.highwater_sequence
    return Told(sequence, _digits(info.segments[(sequence >> 32) - 1].segment_id)) if sequence else Told()


def _holds(info: PartitionInfo | None, told: Told) -> bool:
    if info is None:
        return False
    if not told.sequence:
        return True
    ordinal, index = told.sequence >> 32, told.sequence & RECORD_INDEX_MAX
    return 1 <= ordinal <= len(info.segments) and _is_there(info.segments[ordinal - 1], index, told.segment)


def _is_there(segment: SegmentInfo, index: int, digits: str) -> bool:
    if segment.state is SegmentState.DAMAGED:  # what it held and who it was may be unknown by now
        return segment.segment_id == SEGMENT_ID_UNKNOWN or _digits(segment.segment_id) == digits
    return _digits(segment.segment_id) == digits and index <= segment.record_count


def _digits(segment_id: bytes) -> str:
    return segment_id.hex()[:_ID_DIGITS]
