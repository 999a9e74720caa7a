"""Any order of appends, seals, crashes and restarts against a plain model: lists of payloads, and the routing rule.

The model knows what was acknowledged and where. What was on its way when the disk failed may be there, as a prefix.
"""

import shutil
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from ledger import Ledger, LedgerReader, LedgerSettings, LedgerUnavailable, NotDue, PartitionClosed, Position
from tests.conftest import MEMORY
from tests.ledger.faults import Answers, Clock, FaultyDisk, crash_image, one_batch

SETTINGS = LedgerSettings(
    free_bytes_min=0, segment_records_max=4, segment_bytes_max=2000, segments_live_max=2, idle_mark_s=3600
)
START = datetime(2026, 1, 29, 12, tzinfo=UTC)
DAYS = [START - timedelta(days=back) for back in range(6)]
HOUR = timedelta(hours=1)
PLACES = {
    "refused, too old",
    "late",
    "in a later segment",
    "sealed main",
    "sealed late",
    "not due",
    "crashed",
    "unknown: all kept",
    "unknown: some kept",
    "unknown: none kept",
    "read ranges",
}

parts = st.sampled_from([0.0, 0.5, 0.9, 1.0, 1.0])
a_day = st.sampled_from(DAYS)
sizes = st.lists(st.sampled_from([0, 1, 40, 700, 2500]), min_size=1, max_size=6)


class Model:
    """What a ledger should hold: for each partition, in order, sequence and payload."""

    def __init__(self) -> None:
        self.held: dict[str, dict[int, bytes]] = {}
        self.sealed: list[str] = []

    def maybe_partition(self, day: datetime, now: datetime) -> str | None:
        for name, hours in ((f"{day:%Y-%m-%d}", 6), (f"{day:%Y-%m-%d}-late", 6 + 72)):
            if now < self._end(day, hours) and name not in self.sealed:
                return name
        return None

    def due(self, now: datetime) -> list[str]:
        return [name for name in sorted(self.held) if name not in self.sealed and now >= self.due_at(name)]

    def due_at(self, name: str) -> datetime:
        day = datetime.strptime(name[:10], "%Y-%m-%d").replace(tzinfo=UTC)
        return self._end(day, 6 + 72 if name.endswith("-late") else 6)

    def _end(self, day: datetime, hours: int) -> datetime:
        return day.replace(hour=0) + timedelta(days=1, hours=hours)


class LedgerMachine(RuleBasedStateMachine):
    reached: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self._base = TemporaryDirectory(dir=MEMORY if MEMORY.exists() else None)
        self._images = count(1)
        self._payloads = count(1)
        self.directory = Path(self._base.name) / "0"
        self.clock = Clock(START)
        self.model = Model()
        self.unknown: dict[str, list[bytes]] = {}
        self._open()

    def teardown(self) -> None:
        self.ledger.close()
        self._base.cleanup()

    def _open(self) -> None:
        self.disk = FaultyDisk()
        self.answers = Answers()
        self.ledger = Ledger.open(
            self.directory, on_commit=self.answers, settings=SETTINGS, disk=self.disk, now=self.clock
        )

    def _given(self, day: datetime, sizes: Sequence[int]) -> list[bytes]:
        payloads = [f"{next(self._payloads)}:".encode() + b"x" * size for size in sizes]
        with one_batch(self.ledger):
            for payload in payloads:
                self.ledger.append(payload, day, payload)
        return payloads

    @rule(day=a_day, sizes=sizes)
    def append(self, day: datetime, sizes: list[int]) -> None:
        partition = self.model.maybe_partition(day, self.clock.moment)
        payloads = self._given(day, sizes)
        for payload, answer in zip(payloads, self.answers.of(*payloads), strict=True):
            if partition is None:
                assert isinstance(answer, PartitionClosed)
                self.reached["refused, too old"] += 1
            else:
                assert isinstance(answer, Position)
                assert answer.partition == partition
                self._add(partition, answer.sequence, payload)

    def _add(self, partition: str, sequence: int, payload: bytes) -> None:
        held = self.model.held.setdefault(partition, {})
        assert sequence > max(held, default=0), "sequences rise and are never given twice"
        held[sequence] = payload
        self.reached["late"] += partition.endswith("-late")
        self.reached["in a later segment"] += sequence >> 32 > 1

    @rule(hours=st.sampled_from([1, 7, 18, 30]))
    def let_time_pass(self, hours: int) -> None:
        self.clock.moment += hours * HOUR

    @rule(chosen=st.randoms(use_true_random=False))
    def seal(self, chosen: Any) -> None:
        due = self.model.due(self.clock.moment)
        assert self.ledger.due_partitions(self.clock.moment) == due
        chosen.shuffle(due)
        for name in due:
            seal = self.ledger.seal(name)
            self.model.sealed.append(name)
            self.reached["sealed late" if name.endswith("-late") else "sealed main"] += 1
            assert seal.total_records == len(self.model.held[name])
            assert seal.highwater_sequence == max(self.model.held[name], default=0)
            assert seal.seal_number == len(self.model.sealed)

    @precondition(lambda self: self.model.held)
    @rule(chosen=st.randoms(use_true_random=False))
    def seal_any(self, chosen: Any) -> None:
        name = chosen.choice(sorted(self.model.held))
        if name in self.model.sealed:
            assert self.ledger.seal(name).seal_number == self.model.sealed.index(name) + 1
        elif self.clock.moment < self.model.due_at(name):
            with pytest.raises(NotDue):
                self.ledger.seal(name)
            self.reached["not due"] += 1

    @rule()
    def restart(self) -> None:
        self.ledger.close()
        self._open()

    @rule()
    def crash(self) -> None:
        """kill -9: every byte it wrote is there, no FOOTER, no mark."""
        self._go_on_with_an_image()

    @rule(day=a_day, sizes=sizes, kept=parts, filler=st.sampled_from([None, 0, 1]), at=st.integers(1, 3))
    def lose_what_was_not_durable(
        self, day: datetime, sizes: list[int], kept: float, filler: int | None, at: int
    ) -> None:
        """The disk fails under a batch; then the power does, and takes some of what no fdatasync has covered."""
        partition = self.model.maybe_partition(day, self.clock.moment)
        if partition is None:
            return
        self.disk.fail("fdatasync", at=self.disk.count_of("fdatasync") + at)
        payloads = self._given(day, sizes)
        answers = self.answers.of(*payloads)
        if all(isinstance(answer, Position) for answer in answers):  # the failure is still to come
            for payload, answer in zip(payloads, answers, strict=True):
                assert isinstance(answer, Position)
                self._add(partition, answer.sequence, payload)
        else:
            assert {type(answer) for answer in answers} == {LedgerUnavailable}
            self.unknown = {partition: payloads}
        self._go_on_with_an_image(kept, filler)

    def _go_on_with_an_image(self, kept: float = 1.0, filler: int | None = None) -> None:
        image = crash_image(self.directory, self.directory.with_name(str(next(self._images))))
        durable = {info.name: info.segments[-1] for info in self.ledger.partitions() if info.name in self.unknown}
        self.reached["crashed"] += 1
        for name, segment in durable.items():
            path = image / name / f"segment-{segment.ordinal:08d}.log"
            _lose(path, segment.byte_length, kept, filler)
        self.ledger.close()
        shutil.rmtree(self.directory)
        self.directory = image
        self._open()
        self._find_out()

    def _find_out(self) -> None:
        """What became of the batch whose outcome was unknown: some of it from the first on, in order."""
        for partition, payloads in self.unknown.items():
            names = [info.name for info in self.ledger.partitions()]
            records = list(self.ledger.reader().records(partition)) if partition in names else []
            new = records[len(self.model.held.get(partition, {})) :]
            assert [record.payload for record in new] == payloads[: len(new)]
            kept = "all" if len(new) == len(payloads) else "some" if new else "none"
            self.reached[f"unknown: {kept} kept"] += 1
            if partition in names:
                self.model.held.setdefault(partition, {})
            for record in new:
                self._add(partition, record.position.sequence, record.payload)
        self.unknown = {}

    @precondition(lambda self: self.model.held)
    @rule(chosen=st.randoms(use_true_random=False), offset=st.integers(-1, 1))
    def read_from_a_sequence(self, chosen: Any, offset: int) -> None:
        partition = chosen.choice(sorted(self.model.held))
        held = self.model.held[partition]
        start = max(0, chosen.choice([0, *held]) + offset)
        expected = [(sequence, payload) for sequence, payload in held.items() if sequence >= start]
        assert _read(self.ledger.reader(), partition, start) == expected
        outside = _read(LedgerReader(self.directory), partition, start)
        assert outside == expected[: len(outside)]
        if partition in self.model.sealed:
            assert outside == expected

    @precondition(lambda self: self.model.held)
    @rule(chosen=st.randoms(use_true_random=False))
    def read_ranges(self, chosen: Any) -> None:
        partition = chosen.choice(sorted(self.model.held))
        held = self.model.held[partition]
        ordinal = chosen.choice([sequence >> 32 for sequence in held] or [1])
        ranges = [(first, first + chosen.randrange(3)) for first in (chosen.randrange(1, 6) for _ in range(2))]
        wanted = [ordinal << 32 | index for index in range(1, 10) if any(a <= index <= b for a, b in ranges)]
        if ordinal <= len(self.ledger.partition(partition).segments):
            records = self.ledger.reader().ranges(partition, ordinal, ranges)
            expected = [held[sequence] for sequence in wanted if sequence in held]
            assert [record.payload for record in records] == expected
            self.reached["read ranges"] += bool(expected)

    @invariant()
    def everything_is_told(self) -> None:
        infos = self.ledger.partitions()
        assert {info.name: info.record_count for info in infos} == {
            name: len(held) for name, held in self.model.held.items()
        }
        assert {info.name for info in infos if info.is_sealed} == set(self.model.sealed)
        assert not any(info.damaged for info in infos)
        for info in infos:
            assert _read(self.ledger.reader(), info.name, 0) == list(self.model.held[info.name].items())


def _read(reader: LedgerReader, partition: str, start: int) -> list[tuple[int, bytes]]:
    return [(record.position.sequence, record.payload) for record in reader.records(partition, from_sequence=start)]


def _lose(path: Path, durable_end: int, kept: float, filler: int | None) -> None:
    """Keeps a part of what lies beyond the durable end; the rest is gone, or comes back as zeros or ones."""
    data = path.read_bytes()
    end = durable_end + int((len(data) - durable_end) * kept)
    rest = b"" if filler is None else bytes([filler]) * (len(data) - end)
    path.write_bytes(data[:end] + rest)


def run(machine: type[LedgerMachine], examples: int, *, is_repeatable: bool) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            derandomize=is_repeatable,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.timeout(600)  # a failure is made short before it is shown
def test_whatever_happens_in_whatever_order_the_ledger_holds_what_the_model_holds() -> None:
    LedgerMachine.reached.clear()
    run(LedgerMachine, 200, is_repeatable=True)
    print(dict(LedgerMachine.reached))  # noqa: T201 - what a model test is worth is where it has been
    assert set(LedgerMachine.reached) == PLACES
    assert all(LedgerMachine.reached.values()), LedgerMachine.reached


@pytest.mark.soak
def test_whatever_happens_in_whatever_order_for_long(soak_seed: int) -> None:
    run(seed(soak_seed)(type("SoakMachine", (LedgerMachine,), {})), 5000, is_repeatable=False)
