"""An OMEN's dead letters, as durable as they are said to be: one is there once `record` has returned."""

from collections.abc import Collection, Iterator, Sequence

from contract.errors import ContractError, Reason
from omen_server.appends import Place, place_of
from omen_server.delivery.settling import Rejected
from tests.simulation.world import Fault, Sight, World


class Letters:
    """Outlives the processes that write into it. As delivery uses it (delivery/settling.py)."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.kept: dict[Place, Rejected] = {}
        self.redriving: Collection[Place] = ()

    def redriven(self) -> Iterator[Place]:
        yield from self.redriving

    async def record(self, rejections: Sequence[Rejected]) -> None:
        await self._world.travel()
        if self._world.happens(Fault.LETTER_REFUSED):
            raise ContractError(Reason.LEDGER_UNAVAILABLE, "delivery.db cannot be written now", retry_delay_s=0.1)
        for rejected in rejections:
            self._world.see(Sight.DEAD_LETTER)
            self.kept[place_of(rejected.position)] = rejected
            self._redriven(place_of(rejected.position))

    async def resolved(self, places: Sequence[Place]) -> None:
        await self._world.travel()
        for place in places:
            self.kept.pop(place, None)
            self._redriven(place)

    def _redriven(self, place: Place) -> None:
        self.redriving = [each for each in self.redriving if each != place]

    def redrive(self) -> Rejected | None:
        """One of those that are kept, if there are any."""
        if not self.kept:
            return None
        self._world.see(Sight.REDRIVEN)
        rejected = self._world.chance.choice(list(self.kept.values()))
        self.redriving = [*self.redriving, place_of(rejected.position)]
        return rejected
