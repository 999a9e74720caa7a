"""People who run the OMENs: they pause and resume delivery, redrive dead letters, seal what is due."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from contract.errors import ContractError
from omen_server.dead_letters import LetterFilter
from tests.simulation.omen import Omen
from tests.simulation.witness import Witness
from tests.simulation.world import Fault, Sight, World

DUE = "2026-01-28"
LOOKED_AT = 8  # records


class Operator:
    def __init__(self, world: World, omens: Sequence[Omen], witness: Witness) -> None:
        self._world = world
        self._witness = witness
        self._omens = omens

    async def work_until_healed(self) -> None:
        while not self._world.is_healed:
            await self._world.pause(0.2, 0.6)
            omen = self._world.chance.choice(self._omens)
            if omen.is_up:
                await self._do_something(omen)

    async def look_until_healed(self) -> None:
        """Somebody asks, now and then, what is known of a record."""
        while not self._world.is_healed:
            await self._world.pause(0.02, 0.1)
            omen = self._world.chance.choice(self._omens)
            if omen.is_up and not self._world.tampering_count:
                self._witness.told_settled(self._world.chance.choices(omen.book.readable, k=LOOKED_AT), omen)

    async def resume_all(self) -> None:
        for omen in self._omens:
            await omen.up()
            while omen.pause.current:
                await self._ask(omen, omen.pause.resume())

    async def _do_something(self, omen: Omen) -> None:
        match self._world.chance.randrange(4):
            case 0:
                self._world.operate(f"pause {omen.name}")
                if await self._ask(omen, omen.pause.pause("maintenance", self._world.now())):
                    self._world.strike(Fault.PAUSED)
                await self._world.pause(0.1, 0.5)
                await self._resume(omen)
            case 1:
                await self._resume(omen)
            case 2:
                if await self._ask(omen, omen.letters.redrive(LetterFilter(), self._world.now())):
                    self._world.see(Sight.REDRIVEN)
            case _:
                self._world.operate(f"seal {DUE} of {omen.name}")
                if await self._ask(omen, omen.journal.seal(DUE)):
                    self._world.see(Sight.SEALED)

    async def _resume(self, omen: Omen) -> None:
        if omen.is_up:
            omen.line.forgive()
            await self._ask(omen, omen.pause.resume())

    async def _ask(self, omen: Omen, call: Coroutine[Any, Any, object]) -> bool:
        """Whether it was done, as far as one is told."""
        handler = omen.handle(call)
        await asyncio.wait([handler])
        if handler.cancelled():
            return False
        error = handler.exception()
        if error and not isinstance(error, ContractError | KeyError):
            raise error
        return error is None
