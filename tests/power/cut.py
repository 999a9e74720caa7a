"""Power loss: every file operation and every acknowledgement in order, and what a cut after the nth leaves.

    recorder = Recorder(root)                   # whoever writes below `root` tells it (recorder.py)
    image = power_loss(recorder.recording, at=n, seed=s)
    directory = image.laid_out(path)

What is legal, and why:

- What a sync of a file covered stays with that file, whatever becomes of its name.
- Of what was written since, each 512-byte sector is there as any of these writes left it, or as it was: a device writes
  sectors whole, in any order. Where nothing has been before, a lost sector reads as zeros, or as what other files left.
- The file is as long as when it was synced, as any write since made it, or anything between. So the tail may also be
  torn at any byte, be missing, or be zeros of full length.
- A truncation that was not synced is done or not done, nothing between: it is one transaction.
- A name (made, renamed, removed) lasts once its directory was synced, and syncing the file does not do that. Until then
  a journal keeps a prefix of all such operations, or of those of one directory; without one, any may be missing.
  A rename leaves the old name or the new one. What a lost directory holds is lost.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.power.operations import (
    Created,
    DirectoryMade,
    DirectorySynced,
    Image,
    NameChange,
    Operation,
    Recording,
    Synced,
    Truncated,
    Unlinked,
    Written,
)

SECTOR_BYTES = 512


def power_loss(recording: Recording, *, at: int, seed: int) -> Image:
    """One of the legal states after a power cut behind the first `at` operations; the seed says which."""
    return cut_off(recording, at)(seed)


def cut_off(recording: Recording, at: int) -> Callable[[int], Image]:
    """power_loss() for many seeds: what was done before the cut is gone through once."""
    tree = _Tree(recording.start)
    for operation in recording.operations[:at]:
        tree.do(operation)

    def image(seed: int) -> Image:
        chance = Random(f"{seed} {at}")
        names = tree.surviving_names(chance)
        return _reachable(names, {number: _fate(chance, file) for number, file in sorted(tree.files.items())})

    return image


@dataclass
class _File:
    durable: bytes = b""
    unsynced: list[Written | Truncated] = field(default_factory=list)


class _Tree:
    """Files by number and names by path: what is durable of them, and what was done since."""

    def __init__(self, start: Image) -> None:
        self.files = {number: _File(data) for number, (_, data) in enumerate(sorted(start.files.items()))}
        self._names: dict[Path, int | None] = {Path(name): None for name in start.directories}
        self._names.update({Path(name): number for number, name in enumerate(sorted(start.files))})
        self._unsynced: list[NameChange] = []

    def do(self, operation: Operation) -> None:
        if isinstance(operation, Written | Truncated):
            self.files[operation.file].unsynced.append(operation)
        elif isinstance(operation, Synced):
            file = self.files[operation.file]
            self.files[operation.file] = _File(_after(file.durable, file.unsynced))
        elif isinstance(operation, DirectorySynced):
            held = [change for change in self._unsynced if change.path.parent == operation.path]
            self._unsynced = [change for change in self._unsynced if change.path.parent != operation.path]
            _apply(self._names, held)
        elif isinstance(operation, NameChange):
            self._unsynced.append(operation)
            if isinstance(operation, Created):
                self.files[operation.file] = _File()

    def surviving_names(self, chance: Random) -> dict[Path, int | None]:
        changes = self._unsynced
        kept = chance.randrange(len(changes) + 1)
        of_each = {change.path.parent: chance.randrange(len(changes) + 1) for change in changes}
        survivors: list[list[NameChange]] = [
            [],
            changes,
            changes[:kept],
            [each for at, each in enumerate(changes) if at < of_each[each.path.parent]],
            [each for each in changes if chance.randrange(2)],
        ]
        names = dict(self._names)
        _apply(names, chance.choice(survivors))
        return names


def _apply(names: dict[Path, int | None], changes: list[NameChange]) -> None:
    for change in changes:
        if isinstance(change, Created):
            names[change.path] = change.file
        elif isinstance(change, DirectoryMade):
            names[change.path] = None
        elif isinstance(change, Unlinked):
            names.pop(change.path, None)
        else:  # the file it moved, even when the operation that made its old name is lost
            if names.get(change.path) == change.file:
                del names[change.path]
            names[change.target] = change.file


def _after(durable: bytes, operations: Sequence[Written | Truncated]) -> bytes:
    data = bytearray(durable)
    for operation in operations:
        if isinstance(operation, Truncated):
            del data[operation.size :]
        else:
            data += bytes(max(0, operation.offset - len(data)))
            data[operation.offset : operation.offset + len(operation.data)] = operation.data
    return bytes(data)


def _settled(chance: Random, file: _File) -> tuple[bytes, list[Written]]:
    """The truncations that were not synced done or not; the writes are left to decide."""
    durable = file.durable
    writes: list[Written] = []
    for operation in file.unsynced:
        if isinstance(operation, Written):
            writes.append(operation)
        elif chance.randrange(2):
            durable = durable[: operation.size]
            writes = [_cut(each, operation.size) for each in writes]
    return durable, [each for each in writes if each.data]


def _cut(write: Written, size: int) -> Written:
    return Written(write.file, write.offset, write.data[: max(0, size - write.offset)])


def _lost(chance: Random, file: _File) -> bytes:
    return _settled(chance, file)[0]


def _kept(chance: Random, file: _File) -> bytes:
    return _after(*_settled(chance, file))


def _torn(chance: Random, file: _File) -> bytes:
    """The last writes are missing, and of the one before them the end."""
    durable, writes = _settled(chance, file)
    kept = writes[: chance.randrange(len(writes) + 1)]
    if kept:
        last = kept.pop()
        kept.append(Written(last.file, last.offset, last.data[: chance.randrange(len(last.data) + 1)]))
    return _after(durable, kept)


def _zeros(chance: Random, file: _File) -> bytes:
    durable, writes = _settled(chance, file)
    return durable + bytes(len(_after(durable, writes)) - len(durable))


def _sectors(chance: Random, file: _File) -> bytes:
    return _scattered(chance, file, bytes)


def _sectors_and_garbage(chance: Random, file: _File) -> bytes:
    return _scattered(chance, file, chance.randbytes)


_FATES = (_lost, _kept, _torn, _torn, _zeros, _sectors, _sectors, _sectors, _sectors_and_garbage)


def _fate(chance: Random, file: _File) -> bytes:
    return chance.choice(_FATES)(chance, file) if file.unsynced else file.durable


def _scattered(chance: Random, file: _File, never_written: Callable[[int], bytes]) -> bytes:
    durable, writes = _settled(chance, file)
    versions = [_after(durable, writes[:count]) for count in range(len(writes) + 1)]
    sizes = [len(version) for version in versions]
    size = chance.choice([sizes[-1], chance.choice(sizes), chance.randrange(sizes[0], sizes[-1] + 1)])
    sectors = []
    for start in range(0, size, SECTOR_BYTES):
        sector = chance.choice(versions)[start : start + SECTOR_BYTES]
        sectors.append(sector + never_written(SECTOR_BYTES - len(sector)))
    return b"".join(sectors)[:size]


def _reachable(names: dict[Path, int | None], contents: dict[int, bytes]) -> Image:
    """Without what lies in directories that are lost."""
    directories = {path for path, number in names.items() if number is None}
    held = {path: number for path, number in names.items() if set(path.parents[:-1]) <= directories}
    files = {str(path): contents[number] for path, number in held.items() if number is not None}
    return Image(files, frozenset(str(path) for path, number in held.items() if number is None))
