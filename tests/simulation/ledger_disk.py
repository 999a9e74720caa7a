"""The disk under a ledger: real files, of which it is written down what is durable, with bad days and power cuts.

It dies with the process: from then on nothing is done, until the next process begins.
"""

import errno
import os
from contextlib import suppress
from pathlib import Path

from tests.ledger.recording import RecordingDisk, image_of
from tests.power.cut import power_loss
from tests.power.operations import Image, Synced, Truncated, Written
from tests.simulation.world import Fault, World

SPACE_BYTES = 1 << 40


class LedgerDisk(RecordingDisk):
    def __init__(self, world: World, root: Path, start: Image | None = None) -> None:
        root.mkdir(parents=True, exist_ok=True)
        super().__init__(root, start)
        self.root = root
        self._world = world
        files = sorted(self.recording.start.files.items())
        self._synced_bytes = {number: len(data) for number, (_, data) in enumerate(files)}
        self._unsynced_names: set[Path] = set()
        self.is_serving = False  # reads fail only then: what cannot be read while opening is for tests of the ledger

    @property
    def is_dead(self) -> bool:
        return self._is_dead()

    @classmethod
    def holding(cls, world: World, root: Path) -> "LedgerDisk":
        """With files that lie there, durable."""
        return cls(world, root, image_of(root))

    def is_durable(self, path: Path, byte_length: int) -> bool:
        """Whether all that was written to a file, and at least so much, would be there after a power cut."""
        below = self.below(path)
        is_named = not {below, below.parent} & self._unsynced_names
        synced_bytes = self._synced_bytes.get(self.number_of(path), 0)
        return is_named and path.stat().st_size == synced_bytes >= byte_length

    def outlive_process(self) -> None:
        """What was written is still there, durable or not."""
        for fd in self._open:
            with suppress(OSError):
                os.close(fd)
        self._open.clear()
        self.live_on()

    def lose_power(self, root: Path) -> "LedgerDisk":
        """What is left of it, under another root."""
        seed = self._world.chance.randrange(1 << 32)
        image = power_loss(self.recording, at=len(self.recording.operations), seed=seed)
        image.laid_out(root)
        return LedgerDisk(self._world, root, image)

    def rot(self, path: Path, offset: int) -> None:
        """One byte of a file turns into another."""
        with path.open("r+b") as file:
            file.seek(offset)
            [byte] = file.read(1)
            file.seek(offset)
            file.write(bytes([byte ^ 0x10]))
        number = self.number_of(path)
        self.note(Written(number, offset, bytes([byte ^ 0x10])))
        self.note(Synced(number))

    def close(self, fd: int) -> None:
        self._open.pop(fd, None)
        super().close(fd)

    def create(self, path: Path) -> int:
        fd = super().create(path)
        self._unsynced_names.add(self.below(path))
        return fd

    def write(self, fd: int, data: bytes) -> int:
        if self._world.happens(Fault.WRITE_FAILED):
            raise OSError(errno.EIO, "the write failed")
        if len(data) > 1 and self._world.happens(Fault.WRITE_SHORT):
            data = data[: len(data) // 2]
        return super().write(fd, data)

    def fdatasync(self, fd: int) -> None:
        if self._world.happens(Fault.DIED_BEFORE_SYNC):
            self.die()
        if self._world.happens(Fault.SYNC_FAILED):
            self._lose_unsynced(fd)
            raise OSError(errno.EIO, "the sync failed")
        super().fdatasync(fd)
        self._synced_bytes[self._open[fd]] = os.fstat(fd).st_size
        if self._world.happens(Fault.DIED_BEFORE_ANSWER):
            self.die()
            raise OSError(errno.EIO, "the process is dead")

    def fsync(self, fd: int) -> None:
        super().fsync(fd)
        self._synced_bytes[self._open[fd]] = os.fstat(fd).st_size

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        self._unsynced_names.discard(self.below(source))
        self._unsynced_names.add(self.below(target))

    def mkdir(self, path: Path) -> None:
        super().mkdir(path)
        self._unsynced_names.add(self.below(path))

    def fsync_dir(self, path: Path) -> None:
        if path == self.root.parent:
            return  # the root is there
        super().fsync_dir(path)
        synced = self.below(path)
        self._unsynced_names = {name for name in self._unsynced_names if name.parent != synced}

    def read(self, path: Path, offset: int, size: int) -> bytes:
        if self.is_serving and self._world.happens(Fault.READ_FAILED):
            raise OSError(errno.EIO, "the read failed", str(path))
        return super().read(path, offset, size)

    def free_bytes(self, path: Path) -> int:
        return 0 if self._world.happens(Fault.NO_SPACE) else SPACE_BYTES

    def _lose_unsynced(self, fd: int) -> None:
        """As Linux does it: what could not be written is dropped, and a second sync would find nothing to do."""
        number = self._open[fd]
        size = self._synced_bytes.get(number, 0)
        os.ftruncate(fd, size)
        self.note(Truncated(number, size))
        self.note(Synced(number))
