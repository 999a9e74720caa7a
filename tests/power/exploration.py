"""Cuts the power at many points of many recordings, and holds whatever is left to what had been promised by then."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import count, groupby, product
from operator import itemgetter
from pathlib import Path
from random import Random
from typing import Generic, Protocol, Self, TypeVar

from tests.power.cut import cut_off, power_loss
from tests.power.operations import Image, Recording

SEEDS_PER_CUT = 4
STATES_EXAMINED = "distinct states after a power cut"  # the property that a test report carries


class Promise(Protocol):
    """What had been promised when the power went."""

    def and_then(self, recording: Recording, at: int) -> Self: ...


P = TypeVar("P", bound=Promise)
P_contra = TypeVar("P_contra", bound=Promise, contravariant=True)
S = TypeVar("S")


class Found(Protocol[P_contra]):
    """What a state was found to hold."""

    def hold(self, promise: P_contra) -> None: ...


class Exploration(ABC, Generic[P, S]):
    """Examines states, and counts those that are distinct by the hash of their image.

    What a recording would take from chance, ids and payloads, is the same in each: only what was done, how far it got
    and what was lost tell two states apart. A story is what the program was doing.
    """

    def __init__(self, where: Path, nothing_promised: P, cuts_max: int | None = None) -> None:
        """Looks at `cuts_max` cuts of a recording, chosen by its seed; at all of them by default."""
        self.where = where
        self.states: set[str] = set()
        self._nothing_promised = nothing_promised
        self._cuts_max = cuts_max

    @abstractmethod
    def recorded(self, story: S, root: Path, seed: int, start: Image | None = None) -> Recording: ...

    @abstractmethod
    def examined(self, image: Image, promise: P) -> Found[P]: ...

    def explore_story(self, story: S, seed: int) -> None:
        recording = self.recorded(story, self.where / str(seed), seed)
        self._explore(recording, self._nothing_promised, f"{_name(story)}, seed {seed}", seed)

    def explore_recovery(self, stories: Sequence[S], recover: S, depth: int, seed: int) -> None:
        """The power goes, what is left is opened, and the power goes again during that, `depth` times in a row."""
        chance = Random(seed)
        story = chance.choice(stories)
        promise, way = self._nothing_promised, f"{_name(story)}, seed {seed}"
        recording = self.recorded(story, self.where / str(seed), seed)
        for level in range(depth):
            at = chance.randrange(len(recording.operations) // 2, len(recording.operations) + 1)
            image = power_loss(recording, at=at, seed=seed)
            promise = promise.and_then(recording, at)
            way += f" > power_loss(at={at}, seed={seed})"
            recording = self.recorded(recover, self.where / f"{seed} {level}", seed, image)
        self._explore(recording, promise, way, seed)

    def _explore(self, recording: Recording, promise: P, way: str, seed: int) -> None:
        """The last cut first: there is most to lose. Each state is held to whatever had been promised at any point that
        it can come from."""
        held: dict[str, Found[P]] = {}
        for at, fates in groupby(self._cuts(recording, seed), itemgetter(0)):
            left = cut_off(recording, at)
            promised = promise.and_then(recording, at)
            for _, fate in fates:
                image = left(fate)
                try:
                    if image.digest not in held:
                        held[image.digest] = self.examined(image, promised)
                        self.states.add(image.digest)
                    held[image.digest].hold(promised)
                except Exception as error:
                    last = recording.operations[max(0, at - 3) : at]
                    error.add_note(f"{way} > power_loss(at={at}, seed={fate}) after {last}")
                    raise

    def _cuts(self, recording: Recording, seed: int) -> list[tuple[int, int]]:
        cuts = list(product(reversed(recording.cut_points()), range(SEEDS_PER_CUT)))
        if self._cuts_max is None or len(cuts) <= self._cuts_max:
            return cuts
        return [cuts[chosen] for chosen in sorted(Random(seed).sample(range(len(cuts)), self._cuts_max))]


E_ = TypeVar("E_", bound=Exploration)  # type: ignore[type-arg]  # of whatever program


def explored(exploration: E_, explore: Callable[[E_, int], None], states_min: int, first_seed: int) -> E_:
    """Recording after recording, until there are enough states."""
    for seed in count(first_seed):
        explore(exploration, seed)
        if len(exploration.states) >= states_min:
            break
    return exploration


def _name(story: object) -> str:
    return str(getattr(story, "__name__", story))
