"""What happens in which order.

OMENs emit and deliver, clients ingest, auditors reconcile, and everything that can go wrong does. Then nothing goes
wrong any more, and within a few rounds RiskCast must hold what the ledgers hold, say so, and take new signals.
"""

import asyncio
from collections.abc import Sequence
from functools import partial

from contract.errors import ContractError
from riskcast.v1 import reconcile_service_pb2 as pb
from riskcast_server.leases import LEASE_S
from tests.faults.history import flaws
from tests.riskcast_server.simulation.catalogue import Catalogue
from tests.riskcast_server.simulation.clients import Auditor, IngestClient
from tests.riskcast_server.simulation.ledger_reader import LedgerReader
from tests.riskcast_server.simulation.misfortune import Misfortune
from tests.riskcast_server.simulation.network import Network
from tests.riskcast_server.simulation.omen import PARTITIONS, Omen
from tests.riskcast_server.simulation.riskcast import Riskcast
from tests.riskcast_server.simulation.truth import Truth
from tests.riskcast_server.simulation.verdict import Statuses, expected, history, is_whole, lost
from tests.riskcast_server.simulation.witness import Witness
from tests.riskcast_server.simulation.world import World

ROUNDS_MAX = 6  # within which everything must have converged once nothing goes wrong any more
FRESH = 5  # signals that are emitted after the last fault, per OMEN
PATIENCE_S = 300.0  # of the world's time; a seed takes some five seconds of it, and a lease that nobody ends thirty


class Story:
    def __init__(self, world: World, riskcast: Riskcast, truth: Truth, readers: Sequence[LedgerReader]) -> None:
        self._world = world
        self._riskcast = riskcast
        self._truth = truth
        self._network = network = Network(world, riskcast)
        self._witness = witness = Witness(world, riskcast, truth, readers)
        self._catalogue = catalogue = Catalogue(world.chance)
        self._omens = [Omen(world, network, witness, each.ledger, catalogue) for each in readers]
        self._clients = [IngestClient(world, network, witness, self._omens, catalogue) for _ in range(2)]
        self._auditors = [Auditor(world, network, witness) for _ in range(2)]
        self._misfortune = Misfortune(world, riskcast, truth, witness, self._omens)
        riskcast.disk.on_commit = witness.committed

    async def tell(self) -> None:
        """To its end, or to the first flaw."""
        chapters = asyncio.create_task(self._chapters())
        broken = asyncio.create_task(self._world.is_broken.wait())
        await asyncio.wait([chapters, broken], timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        broken.cancel()
        if chapters.done():
            await chapters  # raises what it ended by
        else:
            chapters.cancel()
            await asyncio.wait([chapters])
            if not self._world.flaws:
                self._world.flaw("H6 it does not come to an end")

    async def _chapters(self) -> None:
        await self._until_healed()
        await self._accept_what_is_lost()
        await self._heal()
        await self._go_on()
        self._judge()

    async def _until_healed(self) -> None:
        await asyncio.gather(
            *(omen.emit_until_healed() for omen in self._omens),
            *(omen.deliver_until_healed() for omen in self._omens),
            *(client.ingest_until_healed() for client in self._clients),
            *(auditor.reconcile_until_healed() for auditor in self._auditors),
            self._misfortune.befall_until_healed(),
        )
        await self._network.until_nothing_is_late()
        self._world.tell("nothing goes wrong any more")

    async def _accept_what_is_lost(self) -> None:
        """An operator may, and may leave it."""
        for omen in self._omens:
            if lost(omen, self._truth, set()) and self._world.chance.random() < 0.5:
                await self._riskcast.up()
                try:
                    await self._network.call(partial(self._witness.accept, omen.ledger.ledger_id))
                except ContractError as error:
                    self._world.tell(f"nothing is accepted: {error.reason}")

    async def _heal(self) -> None:
        """Sometimes delivery comes first, sometimes Reconcile."""
        steps = self._world.chance.sample([self._deliver, self._reconcile], 2)
        for step in steps * ROUNDS_MAX:
            statuses = await step()
            if is_whole(self._omens, self._truth):
                statuses = statuses or await self._reconcile()
                if statuses == expected(self._omens, self._truth, self._witness.accepted):
                    return
        self._world.flaw(f"H6 not whole after {ROUNDS_MAX} rounds")

    async def _go_on(self) -> None:
        for omen in self._omens:
            for _ in range(FRESH):
                held = omen.emit(self._world.chance.choice(PARTITIONS), self._catalogue.fresh())
                omen.fresh.add(held.place)
        while not is_whole(self._omens, self._truth):
            await self._deliver()
        for client in self._clients:
            if await client.ingest(self._catalogue.fresh()) is None:
                self._world.flaw("H6 an ingest is not acknowledged, though no fault was left")

    async def _deliver(self) -> None:
        await self._riskcast.up()
        for omen in self._omens:
            try:
                await omen.deliver()
            except ContractError as error:
                self._world.tell(f"a delivery breaks off: {error.reason}")

    async def _reconcile(self) -> Statuses:
        """How each partition compares now."""
        await self._riskcast.up()
        messages = await self._auditors[0].reconcile(pb.ReconcileRequest(include_open=True))
        if messages is None:
            await asyncio.sleep(LEASE_S)  # nobody could end the lease of a run that was cut: it runs out
            return {}
        states = [each.partition_finished.state for each in messages if each.HasField("partition_finished")]
        return {(each.ledger_id, each.partition): pb.ReconcileStatus.Name(each.status) for each in states}

    def _judge(self) -> None:
        self._witness.kept()
        streams = [stream for auditor in self._auditors for stream in auditor.replays]
        tried = set[bytes]().union(*(client.tried for client in self._clients))
        for flaw in flaws(history(self._omens, self._truth, streams, tried)):
            self._world.flaw(flaw)
