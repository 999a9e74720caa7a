"""What joins while a batch is on its way to the disk is a batch of its own, with an fsync of its own."""

from collections.abc import Callable

from tests.ledger.conftest import OpenLedger
from tests.ledger.faults import NOON, TODAY, Answers, FaultyDisk, append_each


class BusyDisk(FaultyDisk):
    """`meanwhile` happens once, after the next fdatasync has begun and before it returns."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], None] = lambda: None

    def fdatasync(self, fd: int) -> None:
        super().fdatasync(fd)
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()


def test_what_joins_while_a_batch_is_synced_is_not_acknowledged_with_that_sync(open_ledger: OpenLedger) -> None:
    disk = BusyDisk()
    answers = Answers(disk.events)
    ledger = open_ledger(answers, disk=disk, idle_mark_s=3600)
    append_each(ledger, answers, [b"there is a segment"])
    start = len(disk.events)
    disk.meanwhile = lambda: ledger.append(b"joins", NOON, b"joins")
    ledger.append(b"is synced", NOON, b"is synced")
    answers.positions(b"is synced", b"joins")
    segment = "segment-00000001.log"
    synced = [("write", segment), ("fdatasync", segment)]
    assert disk.events[start:] == [*synced, ("ack", b"is synced"), *synced, ("ack", b"joins")]
    assert ledger.partition(TODAY).record_count == 3
