"""The durable view of the writer's process: which partitions and segments there are, and how far each is durable."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from threading import Lock

from ledger.files.segment import LiveSegment
from ledger.positions import IndexRange, PartitionInfo, SegmentInfo
from ledger.reading.damage import DamageNotes
from ledger.routing import is_late
from ledger.seal import Seal


@dataclass(slots=True)
class _Partition:
    finished: list[SegmentInfo]  # ordinals 1, 2, 3 … without a gap
    live: LiveSegment | None
    told: PartitionInfo  # what does not depend on its segments


class Catalog:
    """Changed by the flusher thread alone; read by any."""

    def __init__(self, recovered: Iterable[PartitionInfo]) -> None:
        self._lock = Lock()
        self._notes = DamageNotes()
        self._partitions = {info.name: _Partition(list(info.segments), None, info) for info in recovered}
        self.sealed = frozenset(name for name, held in self._partitions.items() if held.told.is_sealed)

    def partitions(self) -> list[PartitionInfo]:
        """In the order of their names."""
        with self._lock:
            return [self._info(name) for name in sorted(self._partitions)]

    def listed(self, sealed_after: int) -> list[PartitionInfo]:
        """Those without a seal number and those with a higher one, by name: looking at many old ones costs little."""
        with self._lock:
            names = sorted(name for name, held in self._partitions.items() if _number(held.told) > sealed_after)
            return [self._info(name) for name in names]

    def partition(self, name: str) -> PartitionInfo:
        """KeyError when there is none of that name."""
        with self._lock:
            return self._info(name)

    def segment(self, partition: str, ordinal: int) -> SegmentInfo:
        """KeyError when there is none."""
        with self._lock:
            held = self._partitions[partition]
            if held.live and held.live.info.ordinal == ordinal:
                return self._notes.applied_to(held.live.info)
            if not 1 <= ordinal <= len(held.finished):
                raise KeyError((partition, ordinal))
            return self._notes.applied_to(held.finished[ordinal - 1])

    def maybe_offset(self, partition: str, ordinal: int, index: int) -> tuple[int, int] | None:
        """Of the live segment, whose FOOTER is not written yet."""
        with self._lock:
            live = self._partitions[partition].live
        return live.seek(index) if live and live.info.ordinal == ordinal else None

    def note_damage(self, partition: str, ordinal: int, damaged: tuple[IndexRange, ...]) -> None:
        """Records that were given up on purpose are not damaged."""
        with self._lock:
            is_given_up = ordinal and self._partitions[partition].told.is_pruned
        if not is_given_up:
            self._notes.add(partition, ordinal, damaged)

    def maybe_last_finished(self, partition: str) -> SegmentInfo | None:
        with self._lock:
            held = self._partitions.get(partition)
            return held.finished[-1] if held and held.finished else None

    def started(self, partition: str, live: LiveSegment) -> None:
        with self._lock:
            unsealed = PartitionInfo(partition, (), is_late(partition))
            self._partitions.setdefault(partition, _Partition([], None, unsealed)).live = live

    def finished(self, partition: str, info: SegmentInfo) -> None:
        with self._lock:
            held = self._partitions[partition]
            held.finished.append(info)
            held.live = None

    def seal(self, seal: Seal) -> None:
        """From now on the partition takes nothing more. Its SEAL is durable."""
        with self._lock:
            held = self._partitions[seal.partition]
            held.told = replace(held.told, seal=seal)
            self.sealed |= {seal.partition}

    def _info(self, name: str) -> PartitionInfo:
        held = self._partitions[name]
        known = [*held.finished, held.live.info] if held.live else held.finished
        segments = tuple(self._notes.applied_to(info) for info in known)
        return self._notes.applied_to_seal(replace(held.told, segments=segments))


def _number(info: PartitionInfo) -> float:
    """Of its SEAL; without one that can be read, it is as if it came after all others."""
    return info.seal.seal_number if info.seal else math.inf
