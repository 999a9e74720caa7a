"""The power is cut after every operation: whatever may be left opens, and holds all that was acknowledged."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from stat import S_IMODE

import pytest

from ledger import Damage, Disk, Ledger, LedgerReader, LedgerSettings, Position
from ledger.files.layout import partition_names
from tests.ledger.faults import NOON, Answers, UnsyncedDisk
from tests.ledger.power_scenarios import (
    NEVER_MARKED,
    SEALING_TIME,
    Story,
    append,
    prune,
    recorded,
    recover,
    restart,
    rollover,
    seal,
    seal_dying_over_a_footer,
    seal_dying_over_a_seal,
)
from tests.ledger.recording import Acknowledged, Appended, Pruned, Pruning, RecordingDisk, Sealed, image_of
from tests.power.exploration import STATES_EXAMINED, Exploration, explored
from tests.power.operations import Image, Recording

SOAK_STATES = 100_000


@dataclass(frozen=True)
class Promise:
    """What had been promised when the power went."""

    appended: frozenset[bytes] = frozenset()
    acknowledged: tuple[Acknowledged, ...] = ()
    sealed: frozenset[str] = frozenset()
    given_up: frozenset[str] = frozenset()
    pruned: frozenset[str] = frozenset()

    def and_then(self, recording: Recording, at: int) -> "Promise":
        done = recording.operations[:at]
        return Promise(
            self.appended | {each.payload for each in done if isinstance(each, Appended)},
            (*self.acknowledged, *(each for each in done if isinstance(each, Acknowledged))),
            self.sealed | {each.partition for each in done if isinstance(each, Sealed)},
            self.given_up | {each.partition for each in done if isinstance(each, Pruning)},
            self.pruned | {each.partition for each in done if isinstance(each, Pruned)},
        )


@dataclass(frozen=True)
class Kept:
    """What a state was found to hold, and where the record went that was appended to each partition afterwards."""

    served: dict[Position, bytes]
    sealed: frozenset[str]
    pruned: frozenset[str]
    removed: frozenset[str]
    next_positions: list[Position]
    torn_tails: int

    def hold(self, promise: Promise) -> None:
        assert promise.pruned <= self.removed <= self.pruned <= promise.given_up
        for told in promise.acknowledged:
            if told.position.partition not in self.pruned:
                assert self.served.get(told.position) == told.payload, f"{told.payload[:9]!r} was acknowledged"
            for after in self.next_positions:
                if after.partition == told.position.partition:
                    assert after.sequence > told.position.sequence
        assert set(self.served.values()) <= promise.appended
        assert promise.sealed <= self.sealed


def kept(image: Image, where: Path) -> Kept:
    """Opens the state twice, reads it, and appends to it."""
    directory = image.laid_out(where) / "ledger"
    try:
        outside = served_outside(directory)
        with opened(directory, Answers()) as ledger:
            served = served_by(ledger)
            sealed = sealed_by(ledger)
            pruned = frozenset(info.name for info in ledger.partitions() if info.is_pruned)
            torn_tails = len(ledger.recovered.torn_files)
            assert [told for name in sealed for told in ledger.reader().verify(name) if isinstance(told, Damage)] == []
        assert outside.items() <= served.items(), "a reader was shown more than recovery keeps"
        assert sealed == {Path(name).parent.name for name in image.files if Path(name).name == "SEAL"}
        assert all(is_read_only(path) for name in sealed for path in (directory / name).glob("*.log"))
        settled = image_of(where)
        answers = Answers()
        with opened(directory, answers) as ledger:
            assert image_of(where) == settled, "opening again changed a file"
            assert served_by(ledger) == served, "opening again served something else"
            after = [appended(ledger, answers, moment) for moment in (SEALING_TIME, NOON)]
            assert all(read_back(ledger, position) == [payload] for position, payload in after)
        for position, _ in after:
            assert all(position.sequence > old.sequence for old in served if old.partition == position.partition)
        removed = frozenset(name for name in pruned if not any((directory / name).glob("*.log")))
        return Kept(served, sealed, pruned, removed, [position for position, _ in after], torn_tails)
    finally:
        shutil.rmtree(where)


def opened(directory: Path, answers: Answers) -> Ledger:
    settings = LedgerSettings(free_bytes_min=0, idle_mark_s=NEVER_MARKED)
    return Ledger.open(directory, on_commit=answers, settings=settings, disk=UnsyncedDisk(), now=lambda: SEALING_TIME)


def appended(ledger: Ledger, answers: Answers, moment: datetime) -> tuple[Position, bytes]:
    payload = f"afterwards {moment}".encode()
    ledger.append(payload, moment, payload)
    return answers.positions(payload)[0], payload


def sealed_by(ledger: Ledger) -> frozenset[str]:
    sealed = {info.name: info.seal for info in ledger.partitions() if info.is_sealed}
    seals = sorted((seal for seal in sealed.values() if seal), key=lambda seal: seal.seal_number)
    assert len(seals) == len(sealed), "a SEAL cannot be read"
    assert [seal.seal_number for seal in seals] == list(range(1, len(seals) + 1))
    assert [seal.previous for seal in seals] == [None, *(seal.link for seal in seals)][: len(seals)]
    return frozenset(sealed)


def is_read_only(path: Path) -> bool:
    return S_IMODE(path.stat().st_mode) == 0o400


def read_back(ledger: Ledger, position: Position) -> list[bytes]:
    records = ledger.reader().records(position.partition, from_sequence=position.sequence)
    return [record.payload for record in records]


def served_by(ledger: Ledger) -> dict[Position, bytes]:
    assert ledger.recovered.damaged == ()
    served = served_in_order(ledger.reader())
    assert not any(info.damaged for info in ledger.partitions())
    return served


def served_outside(directory: Path) -> dict[Position, bytes]:
    """By a reader that looks before any writer has: it sees what is proved durable."""
    if not (directory / "ledger.json").exists():
        return {}
    reader = LedgerReader(directory)
    served = served_in_order(reader)
    assert not any(info.damaged for info in reader.partitions())
    return served


def served_in_order(reader: LedgerReader) -> dict[Position, bytes]:
    served = {}
    for name in partition_names(Disk(), reader.directory):
        records = list(reader.records(name))
        sequences = [record.position.sequence for record in records]
        assert sequences == sorted(set(sequences))
        served.update({record.position: record.payload for record in records})
    return served


class LedgerExploration(Exploration[Promise, Story]):
    """`known`: what states were found to hold, by their digests. One in four can be reached in several ways: it is held
    to what each of them had promised, and opened once."""

    def __init__(self, where: Path, known: dict[str, Kept]) -> None:
        super().__init__(where, Promise())
        self._known = known
        self.torn_tails = 0

    def recorded(self, story: Story, root: Path, seed: int, start: Image | None = None) -> Recording:
        return recorded(story, root, seed, start)

    def examined(self, image: Image, promise: Promise) -> Kept:
        if image.digest not in self._known:
            self._known[image.digest] = kept(image, self.where / "image")
        found = self._known[image.digest]
        self.torn_tails += found.torn_tails
        return found


def explore_story(story: Story, exploration: LedgerExploration, seed: int) -> None:
    exploration.explore_story(story, seed)


def explore_recovery(depth: int, exploration: LedgerExploration, seed: int) -> None:
    exploration.explore_recovery(STORIES, recover, depth, seed)


STORIES: list[Story] = [append, rollover, restart, seal, seal_dying_over_a_footer, seal_dying_over_a_seal]
Explore = Callable[[LedgerExploration, int], None]
SCENARIOS: dict[str, tuple[Explore, int]] = {
    "append": (partial(explore_story, append), 450),
    "rollover": (partial(explore_story, rollover), 350),
    "restart": (partial(explore_story, restart), 350),
    "seal": (partial(explore_story, seal), 250),
    "seal after a death over a FOOTER": (partial(explore_story, seal_dying_over_a_footer), 250),
    "seal after a death over a SEAL": (partial(explore_story, seal_dying_over_a_seal), 250),
    "prune": (partial(explore_story, prune), 250),
    "recovery": (partial(explore_recovery, 1), 300),
    "recovery of a recovery": (partial(explore_recovery, 2), 200),
    "recovery of a recovery of a recovery": (partial(explore_recovery, 3), 200),
}
EXAMINED: dict[str, frozenset[str]] = {}  # by scenario, in this run: the digests of the states
FOUND: dict[str, Kept] = {}  # in this run, in whatever scenario


def explored_ledger(
    name: str, where: Path, states_min: int, first_seed: int, known: dict[str, Kept]
) -> LedgerExploration:
    return explored(LedgerExploration(where, known), SCENARIOS[name][0], states_min, first_seed)


@pytest.mark.parametrize("name", SCENARIOS)
def test_after_a_power_cut_everything_acknowledged_is_there_and_nothing_is_called_damaged(
    where: Path, name: str, record_property: Callable[[str, object], None]
) -> None:
    examine(name, where)
    record_property(STATES_EXAMINED, f"{name} {len(EXAMINED[name])}")


def examine(name: str, where: Path) -> None:
    exploration = explored_ledger(name, where, SCENARIOS[name][1], 0, FOUND)
    assert len(exploration.states) >= SCENARIOS[name][1] >= 200
    assert exploration.torn_tails > 0
    EXAMINED[name] = frozenset(exploration.states)


def test_at_least_two_thousand_distinct_states_are_examined(
    where: Path, record_property: Callable[[str, object], None]
) -> None:
    """Those of the tests above, of any two scenarios only once; run alone, it examines them itself."""
    for name in SCENARIOS.keys() - EXAMINED.keys():
        (where / name).mkdir()
        examine(name, where / name)
    distinct = frozenset[str]().union(*EXAMINED.values())
    assert len(distinct) >= 2000
    record_property(STATES_EXAMINED, f"all together {len(distinct)}")


def test_every_way_to_change_a_disk_is_written_down() -> None:
    reading = {"drop_cache", "read", "size", "identity", "is_named", "names", "exists", "is_writable", "free_bytes"}
    reading |= {"is_directory", "directory_names"}
    public = {name for name in vars(Disk) if not name.startswith("_")}
    assert public - reading - {"close"} == public & set(vars(RecordingDisk))


@pytest.mark.soak
@pytest.mark.parametrize("name", SCENARIOS)
def test_after_any_of_very_many_power_cuts_everything_acknowledged_is_there(
    where: Path, name: str, soak_seed: int
) -> None:
    share = SCENARIOS[name][1] / sum(states_min for _, states_min in SCENARIOS.values())
    states = len(explored_ledger(name, where, round(SOAK_STATES * share), soak_seed, {}).states)
    print(f"{states} states")  # noqa: T201 - what the soak is for
