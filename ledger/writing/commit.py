"""One batch from memory to durable positions: route, write, fsync. Used by the flusher thread alone."""

from contextlib import suppress
from time import monotonic

from ledger.disk import Disk, make_directory
from ledger.errors import LedgerError, LedgerFull, PartitionClosed
from ledger.files.layout import segment_path
from ledger.files.segment import LiveSegment, create_segment, pin_of_segment
from ledger.format import frame_bytes
from ledger.opening.house import House
from ledger.positions import Position
from ledger.routing import maybe_partition
from ledger.settings import LedgerSettings
from ledger.times import date_text, day_of
from ledger.writing.append_queue import Pending
from ledger.writing.catalog import Catalog

Result = tuple[object, Position | LedgerError]


class Committer:
    """The single authority over partitions and sequences. An OSError from any method ends its use."""

    def __init__(self, disk: Disk, house: House, catalog: Catalog, settings: LedgerSettings) -> None:
        self._disk = disk
        self._directory = house.directory
        self._ledger_id = house.ledger_id
        self._lock = house.lock
        self._catalog = catalog
        self._settings = settings
        self._live: dict[str, LiveSegment] = {}  # least recently used first
        self._mark_due: dict[str, float] = {}  # when a live segment is marked, unless a batch comes before

    def patience_s(self) -> float | None:
        """How long until mark_idle() has something to do; None when there is nothing to wait for."""
        return max(0.0, min(self._mark_due.values()) - monotonic()) if self._mark_due else None

    def commit(self, batch: list[Pending], now: int) -> list[Result]:
        """Each waiter with its position, durable on return, or with the reason why nothing was written for it."""
        self._lock.check()
        if not self._has_space_for(batch):
            full = LedgerFull(f"{self._directory}: less than {self._settings.free_bytes_min} bytes would stay free")
            return [(pending.waiter, full) for pending in batch]
        routed, results = self._route(batch, now)
        for partition, entries in routed.items():
            self._write(partition, entries, now, results)
        for segment in self._live.values():
            segment.sync()
        due = monotonic() + self._settings.idle_mark_s
        self._mark_due.update((partition, due) for partition in routed if partition in self._live)
        # A second writer that comes in from here on finds these records durable, and keeps them.
        self._lock.check()
        return results

    def mark_idle(self, now: int) -> None:
        """Marks each segment that has had no batch for long enough, however busy the others are."""
        moment = monotonic()
        for partition in [partition for partition, due in self._mark_due.items() if due <= moment]:
            self._lock.check()
            self._live[partition].mark(now)
            del self._mark_due[partition]

    def freeze(self, partition: str, now: int) -> None:
        """Ends its live segment, if it has one."""
        self._lock.check()
        if partition in self._live:
            self._freeze(partition, now)

    def freeze_all(self, now: int) -> None:
        self._lock.check()
        for partition in list(self._live):
            self._freeze(partition, now)

    def abandon(self) -> None:
        """After a failure: lets go of the files and writes nothing."""
        for segment in self._live.values():
            with suppress(OSError):  # they are to be recovered, whatever close() says
                segment.close()
        self._live.clear()

    def _has_space_for(self, batch: list[Pending]) -> bool:
        needed = sum(frame_bytes(len(pending.payload)) for pending in batch)
        return self._disk.free_bytes(self._directory) - needed >= self._settings.free_bytes_min

    def _route(self, batch: list[Pending], now: int) -> tuple[dict[str, list[Pending]], list[Result]]:
        partitions: dict[int, str | None] = {}
        routed: dict[str, list[Pending]] = {}
        refused: list[Result] = []
        for pending in batch:
            day = day_of(pending.emitted_at)
            if day not in partitions:
                partitions[day] = maybe_partition(day, now, self._catalog.sealed, self._settings)
            partition = partitions[day]
            if partition is None:
                refused.append((pending.waiter, PartitionClosed(f"{date_text(day)} takes no more records")))
            else:
                routed.setdefault(partition, []).append(pending)
        return routed, refused

    def _write(self, partition: str, entries: list[Pending], now: int, results: list[Result]) -> None:
        start = 0
        while start < len(entries):
            segment = self._segment_with_room(partition, entries[start], now)
            stop = start + self._fitting(segment, entries, start)
            chunk = entries[start:stop]
            segment_id = segment.info.segment_id
            first = segment.append([(pending.payload, pending.emitted_at) for pending in chunk], now)
            for sequence, pending in enumerate(chunk, first):
                results.append((pending.waiter, Position(partition, segment_id, sequence)))
            start = stop

    def _fitting(self, segment: LiveSegment, entries: list[Pending], start: int) -> int:
        """How many entries from `start` on go into `segment`; at least one, which _segment_with_room has seen to."""
        limits = self._settings
        room = limits.segment_bytes_max - segment.byte_length - frame_bytes(len(entries[start].payload))
        stop = min(len(entries), start + limits.segment_records_max - segment.record_count)
        for at in range(start + 1, stop):
            room -= frame_bytes(len(entries[at].payload))
            if room < 0:
                return at - start
        return stop - start

    def _segment_with_room(self, partition: str, entry: Pending, now: int) -> LiveSegment:
        live = self._live.pop(partition, None)
        if live:
            self._live[partition] = live
            if self._has_room(live, entry):
                return live
            self._freeze(partition, now)
        elif len(self._live) >= self._settings.segments_live_max:
            self._freeze(next(iter(self._live)), now)
        self._live[partition] = self._create(partition, now)
        return self._live[partition]

    def _has_room(self, live: LiveSegment, entry: Pending) -> bool:
        """An empty segment takes a record of any size."""
        after = live.byte_length + frame_bytes(len(entry.payload))
        is_over = after > self._settings.segment_bytes_max or live.record_count >= self._settings.segment_records_max
        return live.record_count == 0 or not is_over

    def _create(self, partition: str, now: int) -> LiveSegment:
        last = self._catalog.maybe_last_finished(partition)
        path = segment_path(self._directory, partition, last.ordinal + 1 if last else 1)
        make_directory(self._disk, path.parent)
        live = create_segment(
            self._disk,
            path,
            ledger_id=self._ledger_id,
            partition=partition,
            prev=pin_of_segment(last) if last else None,
            created_at=now,
        )
        self._catalog.started(partition, live)
        return live

    def _freeze(self, partition: str, now: int) -> None:
        segment = self._live[partition]
        info = segment.freeze(now)
        del self._live[partition]
        self._mark_due.pop(partition, None)
        self._catalog.finished(partition, info)
