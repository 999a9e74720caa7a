"""What a ledger was doing when the power went: seeded runs, each written down from its first mkdir."""

import secrets
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random

import pytest

from ledger import Ledger, LedgerSettings, LedgerUnavailable, Position
from ledger.format import TYPE_FOOTER
from tests.ledger.faults import NOON, one_batch
from tests.ledger.recording import Acknowledged, Appended, Pruned, Pruning, RecordingDisk, Sealed, WrittenDown
from tests.power.operations import Image, Operation, Recording, Renamed, Synced, Written

Batch = list[tuple[bytes, datetime]]

YESTERDAY = NOON - timedelta(days=1)
SEALING_TIME = NOON + timedelta(days=1)  # yesterday and today are due
NEVER_MARKED, ALWAYS_MARKED = 3600.0, 0.0
PAYLOAD_BYTES = (0, 30, 300, 460, 700, 2000)  # within a sector, over one boundary, over several


class Run:
    """One directory under one recorder, opened as often as need be."""

    def __init__(self, root: Path, chance: Random, start: Image | None = None) -> None:
        self.chance = chance
        self.now = NOON
        self.recorder = RecordingDisk(root, start)
        self._directory = root / "ledger"
        self._count = 0

    def opened(self, **limits: float) -> Ledger:
        self.answers = WrittenDown(self.recorder)
        self.settings = LedgerSettings(**{"free_bytes_min": 0, "idle_mark_s": NEVER_MARKED, **limits})  # type: ignore[arg-type]
        return Ledger.open(
            self._directory,
            on_commit=self.answers,
            settings=self.settings,
            disk=self.recorder,
            now=lambda: self.now,
        )

    def batch(self, *moments: datetime) -> Batch:
        """One to four records."""
        return [(self.payload(), self.chance.choice(moments)) for _ in range(self.chance.randrange(1, 5))]

    def append(self, ledger: Ledger, batch: Batch) -> bool:
        """Waits for the answers, and for the marks where the ledger writes some. False once the process is dead."""
        try:
            with one_batch(ledger):
                for payload, moment in batch:
                    self.recorder.note(Appended(payload))
                    ledger.append(payload, moment, payload)
        except LedgerUnavailable:
            return False
        answers = self.answers.of(*(payload for payload, _ in batch))
        positions = [answer for answer in answers if isinstance(answer, Position)]
        if len(positions) == len(batch) and self.settings.idle_mark_s == ALWAYS_MARKED:
            self._wait_for_marks(len({position.partition for position in positions}))
        return len(positions) == len(batch)

    def seal(self, ledger: Ledger, partition: str) -> None:
        ledger.seal(partition)
        self.recorder.note(Sealed(partition))

    def prune(self, ledger: Ledger, partition: str) -> None:
        self.recorder.note(Pruning(partition))
        for _ in ledger.prune(partition):
            pass
        self.recorder.note(Pruned(partition))

    def end(self, ledger: Ledger) -> None:
        """By kill -9 or in good order."""
        if self.chance.randrange(2):
            self.recorder.die()
        ledger.close()
        self.recorder.live_on()

    def payload(self) -> bytes:
        """One that no other record has. Its size is left to chance; its bytes are not, so they make no state new."""
        self._count += 1
        return f"record {self._count} ".encode() + Random(self._count).randbytes(self.chance.choice(PAYLOAD_BYTES))

    def _wait_for_marks(self, count: int) -> None:
        operations = self.recorder.recording.operations
        last = max(at for at, each in enumerate(operations) if isinstance(each, Acknowledged))
        self.recorder.wait_for(lambda done: sum(isinstance(each, Synced) for each in done[last:]) >= count)


Death = Callable[[list[Operation]], bool]
Story = Callable[[Run], None]


def append(run: Run) -> None:
    days = [NOON + timedelta(days=number) for number in range(run.chance.choice([1, 3]))]
    ledger = run.opened(idle_mark_s=run.chance.choice([NEVER_MARKED, ALWAYS_MARKED]))
    for _ in range(4):
        run.append(ledger, run.batch(*days))
    run.end(ledger)


def rollover(run: Run) -> None:
    limits = run.chance.choice([{"segment_records_max": 2}, {"segment_bytes_max": 3000}])
    ledger = run.opened(idle_mark_s=run.chance.choice([NEVER_MARKED, ALWAYS_MARKED]), **limits)
    for _ in range(3):
        run.append(ledger, run.batch(NOON))
    run.end(ledger)


def restart(run: Run) -> None:
    """Killed in the middle of anything, opened again with what was not synced still in the page cache, twice."""
    for _ in range(2):
        end = len(run.recorder.recording.operations) + run.chance.randrange(1, 40)
        run.recorder.die_once(partial(is_as_long_as, end))
        with suppress(LedgerUnavailable):  # dead before it was open
            ledger = run.opened(segment_records_max=3, idle_mark_s=run.chance.choice([NEVER_MARKED, ALWAYS_MARKED]))
            while len(run.recorder.recording.operations) < 60 and run.append(ledger, run.batch(NOON)):
                pass
            ledger.close()
        run.recorder.live_on()
    ledger = run.opened()
    run.append(ledger, run.batch(NOON))
    run.end(ledger)


def seal(run: Run) -> None:
    seal_dying_once(is_never, run)


def seal_dying_over_a_footer(run: Run) -> None:
    seal_dying_once(is_freezing, run)


def seal_dying_over_a_seal(run: Run) -> None:
    seal_dying_once(is_publishing_a_seal, run)


def prune(run: Run) -> None:
    """Two days of several segments are sealed and pruned beside appends, the second one by a process that dies in the
    middle, and by the next one."""
    run.now = NOON.replace(hour=0)
    ledger = run.opened(segment_records_max=1)
    run.append(ledger, [(run.payload(), moment) for moment in (NOON, YESTERDAY, YESTERDAY)])
    run.now = SEALING_TIME
    for partition in ledger.due_partitions(run.now):
        run.seal(ledger, partition)
    run.append(ledger, run.batch(SEALING_TIME))
    first, second = (info.name for info in ledger.partitions() if info.is_sealed)
    run.prune(ledger, second)
    run.recorder.die_once(partial(is_as_long_as, len(run.recorder.recording.operations) + run.chance.randrange(1, 12)))
    with suppress(LedgerUnavailable):
        run.prune(ledger, first)
    ledger.close()
    run.recorder.live_on()
    ledger = run.opened()
    run.append(ledger, run.batch(SEALING_TIME))
    run.prune(ledger, first)
    run.end(ledger)


def seal_dying_once(is_death: Death, run: Run) -> None:
    """Two days, due together, are sealed beside appends; once more after a death in the middle, if there is one."""
    run.now = NOON.replace(hour=0)  # yesterday still takes records
    with suppress(LedgerUnavailable):
        run.recorder.die_once(is_death)
        ledger = run.opened(segment_records_max=3, idle_mark_s=run.chance.choice([NEVER_MARKED, ALWAYS_MARKED]))
        with closing(ledger):
            run.append(ledger, run.batch(NOON, YESTERDAY))
            run.append(ledger, [(run.payload(), NOON), (run.payload(), YESTERDAY)])
            run.now = SEALING_TIME
            seal_what_is_due(run, ledger)
    run.recorder.live_on()
    ledger = run.opened()
    seal_what_is_due(run, ledger)
    run.end(ledger)


def is_publishing_a_seal(done: list[Operation]) -> bool:
    """It has its name, and the directory is not synced yet."""
    return any(isinstance(each, Renamed) and each.target.name == "SEAL" for each in done)


def is_freezing(done: list[Operation]) -> bool:
    """The FOOTER of a segment with enough records has been written and not been synced."""
    return any(isinstance(each, Written) and each.data[4] == TYPE_FOOTER for each in done)


def is_never(done: list[Operation]) -> bool:
    return False


def seal_what_is_due(run: Run, ledger: Ledger) -> None:
    known = [info.name for info in ledger.partitions() if info.is_sealed]
    for partition in [*known, *ledger.due_partitions(run.now)]:
        run.append(ledger, run.batch(NOON, SEALING_TIME))
        run.seal(ledger, partition)


def recover(run: Run) -> None:
    """Opens what there is, and dies."""
    ledger = run.opened()
    run.recorder.die()
    ledger.close()


def is_as_long_as(end: int, done: list[Operation]) -> bool:
    return len(done) >= end


def recorded(story: Story, root: Path, seed: int, start: Image | None = None) -> Recording:
    root = start.laid_out(root) if start else _made(root)
    run = Run(root, Random(seed), start)
    with ids_without_chance(len(run.recorder.recording.start.files)):
        story(run)
    shutil.rmtree(root)
    return run.recorder.recording


@contextmanager
def ids_without_chance(first: int) -> Iterator[None]:
    """The ids of a ledger and of its segments are the same in every recording that starts with as many files: they make
    no state new."""
    chance = Random(first)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secrets, "token_bytes", chance.randbytes)
        patch.setattr(uuid, "uuid4", lambda: uuid.UUID(bytes=chance.randbytes(16), version=4))
        yield


def _made(root: Path) -> Path:
    root.mkdir()
    return root
