"""The power is cut anywhere in a run of RiskCast's store: whatever may be left opens, holds all that was answered, and
answers it again in the same words."""

import asyncio
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from contract.coverage import Coverage
from riskcast_server.settlement import Candidate, Entry, Outcome, Place, Row, Verdict
from riskcast_server.settlement import Kept as Acknowledged
from riskcast_server.store import SignalQuery, Store, open_store
from tests.power.exploration import STATES_EXAMINED, Exploration, explored
from tests.power.operations import Image, Recording
from tests.riskcast_server.events import DAY, LEDGER
from tests.riskcast_server.power.recording import Answered, Submitted
from tests.riskcast_server.power.scenarios import (
    SEGMENTS,
    Story,
    checkpoint,
    create,
    create_dying,
    recorded,
    recover,
    reopen,
    restart,
    restart_before_a_sync,
    settle,
)
from tests.riskcast_server.running import database, url

CUTS_PER_RECORDING = 40
SOAK_STATES = 20_000
LATER = 2_000_000_000_000_000  # microseconds since the epoch, after everything a story says


@dataclass(frozen=True)
class Promise:
    """What had been submitted, batch by batch, and answered, when the power went."""

    submitted: tuple[tuple[Entry, ...], ...] = ()
    answered: tuple[tuple[Entry, Outcome], ...] = ()

    def and_then(self, recording: Recording, at: int) -> "Promise":
        done = recording.operations[:at]
        submitted = (each.entries for each in done if isinstance(each, Submitted))
        answers = (each for each in done if isinstance(each, Answered))
        answered = (pair for each in answers for pair in zip(each.entries, each.outcomes, strict=True))
        return Promise((*self.submitted, *submitted), (*self.answered, *answered))

    @property
    def candidates(self) -> set[Candidate]:
        return {entry for batch in self.submitted for entry in batch if isinstance(entry, Candidate)}

    @property
    def places(self) -> Counter[Place]:
        """How many batches each was in."""
        return Counter(place for batch in self.submitted for place in places_of(batch))


def places_of(batch: Sequence[Entry]) -> set[Place]:
    return {entry.held_at.place for entry in batch if entry.held_at}


@dataclass(frozen=True, repr=False)  # pages of it would bury what failed
class Kept:
    """What a state was found to hold, and the rows as they were answered when everything was submitted again."""

    rows: dict[str, Row]
    settled: dict[Place, Verdict]  # by settlements; the places of rows are in the rows
    covered: set[Place]
    repeated: dict[tuple[str, str], Row]  # by signal_id and input_event_hash

    @property
    def places(self) -> set[Place]:
        held = (row.signal.held_at for row in self.rows.values())
        return {at.place for at in held if at} | self.settled.keys()

    def hold(self, promise: Promise) -> None:
        for entry, outcome in promise.answered:
            self._hold_answer(entry, outcome)
        known, tried, times = self.places, promise.candidates, promise.places
        assert [name for name, row in self.rows.items() if row.signal not in tried] == [], "nobody submitted them"
        assert known <= times.keys(), "nobody submitted them"
        for batch in promise.submitted:  # where no other batch can have brought a part of it
            alone = {place for place in places_of(batch) if times[place] == 1}
            assert alone & known in (set(), alone), "a part of a batch"

    def _hold_answer(self, entry: Entry, outcome: Outcome) -> None:
        if isinstance(outcome, Acknowledged):
            signal = outcome.row.signal
            is_there = self.rows.get(signal.signal_id) == outcome.row
            assert is_there, f"{signal.signal_id} was acknowledged"
            is_repeated = self.repeated[signal.signal_id, signal.input_event_hash] == outcome.row
            assert is_repeated, f"{signal.signal_id} was acknowledged otherwise"
        if at := entry.held_at:
            is_settled = at.place in self.places
            assert is_settled, f"{at.place} was answered {outcome.verdict}"
            assert (at.place in self.covered) == (outcome.verdict is not Verdict.CONFLICT)


async def kept(directory: Path, promise: Promise) -> Kept:
    """Opens the state as RiskCast does, reads it, submits everything again, and reads it again."""
    async with open_store(url(directory)) as store:
        rows, covered = await read(store)
        settled = settlements(directory)
        repeated: dict[tuple[str, str], Row] = {}
        for batch in promise.submitted:
            for outcome in await store.settle(batch, LATER):
                if isinstance(outcome, Acknowledged):
                    key = outcome.row.signal.signal_id, outcome.row.signal.input_event_hash
                    assert repeated.setdefault(key, outcome.row) == outcome.row
        afterwards, _ = await read(store)
        assert rows.items() <= afterwards.items(), "a repeat changed a row"
        assert afterwards == {signal_id: row for (signal_id, _), row in repeated.items()}, "not one row for each"
    return Kept(rows, settled, covered, repeated)


async def read(store: Store) -> tuple[dict[str, Row], set[Place]]:
    """Every row, and what is covered: as cached it must be what rows and settlements say."""
    rows = await store.list_signals(SignalQuery(), None, 10_000)
    assert len({row.signal.signal_id for row in rows}) == len(rows)
    cached = {each.segment_id: each.settled for each in await store.partition_coverage(LEDGER, DAY)}
    counted = await store.coverage(LEDGER, SEGMENTS)
    assert cached == counted, "settled, and not covered, or the other way round"
    covered = {(LEDGER, segment_id, index) for segment_id, each in counted.items() for index in indexes(each)}
    assert await store.settled_count(LEDGER) == len(covered)
    return {row.signal.signal_id: row for row in rows}, covered


def indexes(coverage: Coverage) -> Iterator[int]:
    for first, last in coverage.intervals:
        yield from range(first, last + 1)


def settlements(directory: Path) -> dict[Place, Verdict]:
    with closing(sqlite3.connect(database(directory))) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found = connection.execute("SELECT ledger_id, segment_id, record_index, outcome FROM settlements")
        return {(ledger_id, segment_id, index): Verdict(outcome) for ledger_id, segment_id, index, outcome in found}


class StoreExploration(Exploration[Promise, Story]):
    def __init__(self, where: Path) -> None:
        super().__init__(where, Promise(), CUTS_PER_RECORDING)

    def recorded(self, story: Story, root: Path, seed: int, start: Image | None = None) -> Recording:
        return recorded(story, root, seed, start)

    def examined(self, image: Image, promise: Promise) -> Kept:
        directory = image.laid_out(self.where / "image")
        try:
            return asyncio.run(kept(directory, promise))
        finally:
            shutil.rmtree(directory)


def explore_story(story: Story, exploration: StoreExploration, seed: int) -> None:
    exploration.explore_story(story, seed)


def explore_recovery(depth: int, exploration: StoreExploration, seed: int) -> None:
    exploration.explore_recovery(STORIES, recover, depth, seed)


STORIES: list[Story] = [create, create_dying, settle, checkpoint, reopen, restart, restart_before_a_sync]


SCENARIOS: dict[str, tuple[Callable[[StoreExploration, int], None], int]] = {
    "create": (partial(explore_story, create), 60),
    "create again after a death": (partial(explore_story, create_dying), 60),
    "settle": (partial(explore_story, settle), 80),
    "checkpoint": (partial(explore_story, checkpoint), 100),
    "reopen": (partial(explore_story, reopen), 80),
    "restart": (partial(explore_story, restart), 100),
    "restart before a sync": (partial(explore_story, restart_before_a_sync), 60),
    "recovery": (partial(explore_recovery, 1), 40),
    "recovery of a recovery": (partial(explore_recovery, 2), 40),
}
EXAMINED: dict[str, frozenset[str]] = {}  # by scenario, in this run: the digests of the states


def explored_store(name: str, where: Path, states_min: int, first_seed: int) -> StoreExploration:
    return explored(StoreExploration(where), SCENARIOS[name][0], states_min, first_seed)


@pytest.mark.parametrize("name", SCENARIOS)
def test_after_a_power_cut_everything_answered_is_there_and_is_answered_again_in_the_same_words(
    where: Path, name: str, record_property: Callable[[str, object], None]
) -> None:
    examine(name, where)
    record_property(STATES_EXAMINED, f"RiskCast's SQLite, {name} {len(EXAMINED[name])}")


def examine(name: str, where: Path) -> None:
    EXAMINED[name] = frozenset(explored_store(name, where, SCENARIOS[name][1], 0).states)
    assert len(EXAMINED[name]) >= SCENARIOS[name][1]


def test_at_least_five_hundred_distinct_states_are_examined(
    where: Path, record_property: Callable[[str, object], None]
) -> None:
    """Those of the tests above, of any two scenarios only once; run alone, it examines them itself."""
    for name in SCENARIOS.keys() - EXAMINED.keys():
        (where / name).mkdir()
        examine(name, where / name)
    distinct = frozenset[str]().union(*EXAMINED.values())
    assert len(distinct) >= 500
    record_property(STATES_EXAMINED, f"RiskCast's SQLite, all together {len(distinct)}")


@pytest.mark.soak
@pytest.mark.parametrize("name", SCENARIOS)
def test_after_any_of_very_many_power_cuts_everything_answered_is_there(where: Path, name: str, soak_seed: int) -> None:
    share = SCENARIOS[name][1] / sum(states_min for _, states_min in SCENARIOS.values())
    states = len(explored_store(name, where, round(SOAK_STATES * share), soak_seed).states)
    print(f"{states} states")  # noqa: T201 - what the soak is for
