"""Giving up what a sealed partition holds, for good: read whole once more, said in its SEAL, then its files removed.

The decision is durable before the first file goes, and from then on nobody looks at the files any more: cut off
anywhere, the partition is sealed and whole, or pruned. What is left of the files then goes when it is pruned again.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ledger.checking.verify import Damage, Progress, Verified, verify_partition
from ledger.disk import Disk, is_no_space, publish
from ledger.errors import LedgerDamaged, LedgerFull, LedgerUnavailable, NotSealed
from ledger.files.layout import remove_temporaries, seal_path, segment_path
from ledger.opening.house import House
from ledger.positions import PartitionInfo
from ledger.seal import SealState, encode_seal
from ledger.writing.catalog import Catalog

OnFlusher = Callable[[Callable[[], Any]], Any]  # runs work on the flusher thread, between two batches


@dataclass(frozen=True, slots=True)
class Pruned:
    """It is given up, and so many bytes of its files are removed by now."""

    partition: str
    bytes_removed: int


class Pruner:
    """Reads in the thread of whoever asks, changes in the flusher's, one file at a time: appends go on meanwhile."""

    def __init__(self, disk: Disk, house: House, catalog: Catalog) -> None:
        self._disk = disk
        self._house = house
        self._catalog = catalog

    def prunable_bytes(self, partition: str) -> int:
        """How much prune() would remove. Raises as it does, for all that is known without reading the records."""
        self._check(self._catalog.partition(partition))
        return sum(self._size(path) for path in self._files(partition))

    def prune(self, partition: str, on_flusher: OnFlusher) -> Iterator[Progress | Verified | Pruned]:
        info = self._catalog.partition(partition)
        self._check(info)
        if not info.is_pruned:
            yield from self._whole(partition)
            on_flusher(lambda: self._give_up(partition))
        yield Pruned(partition, 0)
        removed = 0
        for path in self._files(partition):
            size = self._size(path)
            on_flusher(partial(self._remove, path))
            removed += size
        if removed:
            on_flusher(lambda: self._settle(partition))
            yield Pruned(partition, removed)

    def _check(self, info: PartitionInfo) -> None:
        if not info.is_sealed:
            raise NotSealed(f"{info.name} is not sealed: what it holds may still grow")
        if info.damaged:
            raise LedgerDamaged(
                f"{info.name} is damaged and is not pruned: restore what is damaged from a backup first"
            )

    def _whole(self, partition: str) -> Iterator[Progress | Verified]:
        directory, ledger_id = self._house.directory, self._house.ledger_id
        try:
            for found in verify_partition(self._catalog, self._disk, directory, ledger_id, partition):
                if isinstance(found, Damage):
                    raise LedgerDamaged(f"{partition} is not pruned: {found.description} (segment {found.ordinal})")
                yield found
        except OSError as error:
            raise LedgerUnavailable(f"{partition} is not pruned, it cannot be read: {error}") from error

    def _give_up(self, partition: str) -> None:
        """The SEAL says so, durably. An OSError ends the use of the ledger: which SEAL is there is not known then."""
        seal = self._catalog.partition(partition).seal
        if seal is None or seal.state is SealState.PRUNED:  # somebody else was faster
            return
        path = seal_path(self._house.directory, partition)
        before = self._disk.identity(path)
        pruned = replace(seal, state=SealState.PRUNED)
        try:
            remove_temporaries(self._disk, path.parent)  # one may be left of an attempt before
            self._disk.close(publish(self._disk, path, encode_seal(pruned)))
        except OSError as error:
            if is_no_space(error) and self._disk.identity(path) == before:
                raise LedgerFull(f"{partition} is not pruned: there is no space for its new SEAL") from error
            raise
        self._house.lock.check()
        self._catalog.seal(pruned)

    def _remove(self, path: Path) -> None:
        with _removing(path), suppress(FileNotFoundError):  # somebody else was faster
            self._disk.unlink(path)

    def _settle(self, partition: str) -> None:
        path = self._house.directory / partition
        with _removing(path):
            self._disk.fsync_dir(path)

    def _files(self, partition: str) -> list[Path]:
        """The segments that the SEAL lists, as far as they are there."""
        seal = self._catalog.partition(partition).seal
        rows = seal.segments if seal else ()
        paths = [segment_path(self._house.directory, partition, row.ordinal) for row in rows]
        return [path for path in paths if self._disk.exists(path)]

    def _size(self, path: Path) -> int:
        try:
            return self._disk.size(path)
        except FileNotFoundError:
            return 0


@contextmanager
def _removing(path: Path) -> Iterator[None]:
    """What cannot be removed now stays, and stops nothing: nobody reads it any more."""
    try:
        yield
    except OSError as error:
        raise LedgerUnavailable(f"{path} is given up and cannot be removed: {error}") from error
