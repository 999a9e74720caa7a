"""What happens in which order.

Clients emit and ingest, OMENs deliver, auditors reconcile, people do their work, and everything that can go wrong does.
Then nothing goes wrong any more, and within seconds, without Reconcile, RiskCast must hold what the ledgers hold;
Reconcile must say so; new signals must get through; and all of it must outlast one more power cut.
"""

import asyncio
from collections.abc import Sequence
from functools import partial

from contract.errors import ContractError
from omen_server.appends import place_of
from omen_server.emission import Wait
from omen_server.outcome import Outcome
from riskcast.v1 import reconcile_service_pb2 as reconcile_pb
from riskcast_server.leases import LEASE_S
from tests.faults.history import flaws
from tests.simulation.catalogue import GARBAGE, Catalogue, said
from tests.simulation.clients import Auditor, IngestClient
from tests.simulation.emitting import EmitClient
from tests.simulation.misfortune import Misfortune
from tests.simulation.network import Network
from tests.simulation.omen import Omen
from tests.simulation.people import Operator
from tests.simulation.riskcast import Riskcast
from tests.simulation.truth import Truth
from tests.simulation.verdict import Statuses, expected, history, is_whole, lost
from tests.simulation.witness import Witness
from tests.simulation.world import World

HEALED_S = 20.0  # of the world's time, after the last fault: patience for a silent hello, then the backlog
LOOK_S = 0.1
ROUNDS_MAX = 6  # of Reconcile, some of which find a lease that nobody ends
FRESH = 5  # signals that are emitted after the last fault, per OMEN
PATIENCE_S = 600.0  # of the world's time; a seed takes some ten seconds of it, and a lease that nobody ends thirty


class Story:
    def __init__(
        self,
        world: World,
        riskcast: Riskcast,
        truth: Truth,
        network: Network,
        witness: Witness,
        omens: Sequence[Omen],
        catalogue: Catalogue,
    ) -> None:
        self._world = world
        self._riskcast = riskcast
        self._truth = truth
        self._network = network
        self._witness = witness
        self._catalogue = catalogue
        self._omens = omens
        self._emitters = [EmitClient(world, omen, witness, catalogue) for omen in omens]
        self._clients = [IngestClient(world, network, witness, omens, catalogue)]
        self._auditors = [Auditor(world, network, witness) for _ in range(2)]
        self._operator = Operator(world, omens, witness)
        self._misfortune = Misfortune(world, riskcast, truth, witness, omens)
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
        await self._until_delivered()
        await self._accept_what_is_lost()
        await self._reconcile_all()
        await self._go_on()
        await self._lose_power_once_more()
        self._judge()

    async def _until_healed(self) -> None:
        await asyncio.gather(
            *(emitter.emit_until_healed() for emitter in self._emitters),
            *(client.ingest_until_healed() for client in self._clients),
            *(auditor.reconcile_until_healed() for auditor in self._auditors),
            self._operator.work_until_healed(),
            self._operator.look_until_healed(),
            self._misfortune.befall_until_healed(),
        )
        await self._network.until_nothing_is_late()
        await self._riskcast.up()
        await self._operator.resume_all()
        self._world.tell("nothing goes wrong any more")

    async def _until_delivered(self) -> None:
        """Nobody runs Reconcile. A database that somebody changed is seen to when a connection is replaced for its
        age, which happens to each of them."""
        if self._world.tampering_count:
            self._network.renew()
            await asyncio.sleep(LOOK_S)
        loop = asyncio.get_running_loop()
        before_s = loop.time() + HEALED_S
        while not self._is_delivered():
            if loop.time() > before_s:
                self._world.flaw(f"H6 not delivered within {HEALED_S:g} s")
                return
            await self._operator.resume_all()
            await asyncio.sleep(LOOK_S)

    def _is_delivered(self) -> bool:
        return all(omen.is_drained for omen in self._omens) and is_whole(self._omens, self._truth)

    async def _accept_what_is_lost(self) -> None:
        """An operator may who has seen it, and may leave it."""
        await self._reconcile()
        for omen in self._omens:
            if lost(omen, self._truth, set()) and self._world.chance.random() < 0.5:
                await self._riskcast.up()
                try:
                    await self._network.call(partial(self._witness.accept, omen.book.ledger_id))
                except ContractError as error:
                    self._world.tell(f"nothing is accepted: {error.reason}")

    async def _reconcile_all(self) -> None:
        for omen in self._omens:
            omen.verify()
        for _ in range(ROUNDS_MAX):
            statuses = await self._reconcile()
            wanted = expected(self._omens, self._truth, self._witness.accepted)
            if statuses == wanted:
                return
        self._world.flaw(f"H6 Reconcile says {sorted(statuses.items() - wanted.items())} after {ROUNDS_MAX} rounds")

    async def _reconcile(self) -> Statuses:
        """How each partition compares now."""
        await self._riskcast.up()
        messages = await self._auditors[0].reconcile(reconcile_pb.ReconcileRequest(include_open=True))
        if messages is None:
            await asyncio.sleep(LEASE_S)  # nobody could end the lease of a run that was cut: it runs out
            return {}
        states = [each.partition_finished.state for each in messages if each.HasField("partition_finished")]
        return {(each.ledger_id, each.partition): reconcile_pb.ReconcileStatus.Name(each.status) for each in states}

    async def _go_on(self) -> None:
        for emitter in self._emitters:
            emitter.is_after_the_last_fault = True
            for _ in range(FRESH):
                answers = await emitter.emit([self._catalogue.fresh()], Wait())
                if not answers or not all(each.emission.ack_id for each in answers):
                    self._world.flaw(f"H6 an emit is not delivered, though no fault was left: {answers}")
        for omen in self._omens:
            await self._reject_one(omen)
        for client in self._clients:
            if await client.ingest(self._catalogue.fresh()) is None:
                self._world.flaw("H6 an ingest is not acknowledged, though no fault was left")

    async def _reject_one(self, omen: Omen) -> None:
        """What RiskCast will not take is listed."""
        [answer] = await omen.put(GARBAGE, days_ago=1).answered(None)
        await self._until_delivered()
        if not isinstance(answer, Outcome) or place_of(answer.position) not in omen.letters:
            self._world.flaw(f"H2 a record was rejected, and is no dead letter: {answer}")

    async def _lose_power_once_more(self) -> None:
        """All that was acknowledged is there when the ledgers are opened again."""
        for omen in self._omens:
            await omen.die(loses_power=True)
            await omen.up()
        await self._until_delivered()
        for omen in self._omens:
            unlisted = [
                held
                for held in omen.book.readable
                if not said(held.payload).signal_id and held.place[1:] not in omen.letters
            ]
            if unlisted:
                self._world.flaw(f"H2 {len(unlisted)} rejected records are no dead letters")

    def _judge(self) -> None:
        self._witness.kept()
        streams = [stream for auditor in self._auditors for stream in auditor.replays]
        attempts = [attempt for emitter in self._emitters for attempt in emitter.attempts()]
        beside = {GARBAGE}.union(
            *(client.tried for client in self._clients), *(omen.remembered for omen in self._omens)
        )
        for flaw in flaws(history(self._omens, self._truth, attempts, streams, beside)):
            self._world.flaw(flaw)
