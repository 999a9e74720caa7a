"""The nth operation of a twenty-signal run fails, for every n and in every way a disk has: nothing is acknowledged
from then on, everybody is told at once, reading goes on, and the next process finds all that was acknowledged.
"""

import errno
from itertools import count
from pathlib import Path

import pytest

from tests.ledger.faults import FOR_GOOD, FaultyDisk
from tests.ledger.twenty_signals import SIGNALS, assert_it_serves_again, run


class ReadingDisk(FaultyDisk):
    """Reading opens files too: without descriptors it fails like writing does."""

    def read(self, path: Path, offset: int, size: int) -> bytes:
        self._do("read", path.name)
        return super().read(path, offset, size)


class HalvingDisk(FaultyDisk):
    """Every write is a short one: half of what it is given, and the rest when asked again."""

    _is_rest = True

    def write(self, fd: int, data: bytes) -> int:
        self._is_rest = not self._is_rest
        return super().write(fd, data if self._is_rest else data[: len(data) // 2])


class ByteDisk(FaultyDisk):
    """Takes one byte at a time."""

    def write(self, fd: int, data: bytes) -> int:
        return super().write(fd, data[:1])


class RefusingDisk(FaultyDisk):
    """A write that fails takes 0 bytes instead, and says nothing."""

    def write(self, fd: int, data: bytes) -> int:
        try:
            return super().write(fd, data)
        except OSError:
            return 0


# Disk, what fails, why, how often at least it is asked for in the run.
FAILURES = {
    "fsync": (FaultyDisk, "sync", errno.EIO, 40),
    "write": (FaultyDisk, "write", errno.EIO, 30),
    "no space to write": (FaultyDisk, "write", errno.ENOSPC, 30),
    "no space for a name": (FaultyDisk, "create", errno.ENOSPC, 6),
    "no space for a directory": (FaultyDisk, "mkdir", errno.ENOSPC, 3),
    "no quota to write": (FaultyDisk, "write", errno.EDQUOT, 30),
    "no quota for a name": (FaultyDisk, "create", errno.EDQUOT, 6),
    "no descriptor to create": (FaultyDisk, "create", errno.EMFILE, 6),
    "no descriptor for a directory": (FaultyDisk, "fsync_dir", errno.EMFILE, 8),
    "no descriptor to read": (ReadingDisk, "read", errno.EMFILE, 1),
    "rename": (FaultyDisk, "rename", errno.EIO, 6),
    "half a write": (HalvingDisk, "write", errno.EIO, 60),
    "a write that takes nothing": (RefusingDisk, "write", 0, 30),
}


def failures_at_every_n(base: Path, disk_kind: type[FaultyDisk], kind: str, error: int, times: int) -> int:
    """How many n there are. The first at which nothing fails is the end, and has gone through."""
    for at in count(1):
        disk = disk_kind().fail(kind, at=at, with_=error, times=times)
        directory = base / str(at) / "ledger"
        directory.parent.mkdir()
        told = run(directory, disk)
        if not disk.has_failed:
            assert list(told.acknowledged) == SIGNALS
            return at - 1
        assert_it_serves_again(directory, told)
    raise AssertionError


@pytest.mark.parametrize("times", [1, FOR_GOOD], ids=["once", "for good"])
@pytest.mark.parametrize("failure", FAILURES)
def test_whichever_operation_fails_nothing_acknowledged_is_lost_and_nobody_waits(
    where: Path, failure: str, times: int
) -> None:
    disk_kind, kind, error, at_least = FAILURES[failure]
    assert failures_at_every_n(where, disk_kind, kind, error, times) >= at_least


@pytest.mark.parametrize("disk_kind", [HalvingDisk, ByteDisk])
def test_a_disk_that_takes_less_than_it_is_given_costs_nothing(where: Path, disk_kind: type[FaultyDisk]) -> None:
    told = run(where / "ledger", disk_kind())
    assert list(told.acknowledged) == SIGNALS
    assert_it_serves_again(where / "ledger", told)


def test_the_run_passes_through_all_that_a_writer_does(tmp_path: Path) -> None:
    disk = FaultyDisk()
    told = run(tmp_path / "ledger", disk)
    assert len({(position.partition, position.segment_ordinal) for position in told.acknowledged.values()}) >= 4
    assert len({position.partition for position in told.acknowledged.values()}) == 2
    kinds = {kind for kind, _ in disk.events}
    assert kinds == {"ack", "create", "write", "fsync", "fdatasync", "rename", "fsync_dir", "mkdir"}
