"""Clients of RiskCast beside the OMENs: some ingest single events, some reconcile."""

from collections.abc import Iterator, Sequence
from functools import partial

from contract.errors import ContractError
from omen.v1.ledger_record_pb2 import LedgerPosition
from riskcast.v1 import reconcile_service_pb2 as pb
from tests.faults.history import Stream as Told
from tests.simulation.catalogue import Catalogue, said
from tests.simulation.network import Lost, Network, Stream
from tests.simulation.omen import Omen
from tests.simulation.witness import Witness
from tests.simulation.world import Fault, Sight, World

TRIES = 4
TODAY = "2026-01-29"  # still takes records; whatever is late does too

Reconciling = Stream[None, pb.ReconcileResponse]


class IngestClient:
    """`tried`: every event it sent, since whatever it knows of the answer, the event may be stored."""

    def __init__(
        self, world: World, network: Network, witness: Witness, omens: Sequence[Omen], catalogue: Catalogue
    ) -> None:
        self._world = world
        self._network = network
        self._witness = witness
        self._omens = omens
        self._catalogue = catalogue
        self.tried: set[bytes] = set()

    async def ingest_until_healed(self) -> None:
        while not self._world.is_healed:
            await self._world.pause(0.02, 0.3)
            await self.ingest(self._catalogue.valid(), self._maybe_position())

    async def ingest(self, payload: bytes, maybe_position: LedgerPosition | None = None) -> str | None:
        """Sends it until it is answered, and gives up in the end. Its ack_id, if that was the answer."""
        self.tried.add(payload)
        for _ in range(TRIES):
            self._world.operate(f"ingest {said(payload).signal_id}")
            try:
                answer = await self._network.call(partial(self._witness.ingest, payload, maybe_position))
            except Lost:
                await self._world.pause(0.01, 0.3)
            except ContractError as error:
                if error.retry_delay_s is None:
                    return error.metadata.get("ack_id")
                await self._world.pause(0.01, error.retry_delay_s)
            else:
                return answer.ack_id
        return None

    def _maybe_position(self) -> LedgerPosition | None:
        """A claim of where the event stands, mostly a wrong one: it must decide nothing."""
        records = self._world.chance.choice(self._omens).book.records
        if not records or self._world.chance.random() < 0.7:
            return None
        return self._world.chance.choice(records).position


class Auditor:
    """Reconciles, and goes on after a cut. `replays`: what its runs announced to fetch, and told to have fetched."""

    def __init__(self, world: World, network: Network, witness: Witness) -> None:
        self._world = world
        self._network = network
        self._witness = witness
        self.replays: list[Told] = []

    async def reconcile_until_healed(self) -> None:
        while not self._world.is_healed:
            await self._world.pause(0.5, 2.0)
            await self.reconcile(self._any_request())

    async def reconcile(self, request: pb.ReconcileRequest) -> list[pb.ReconcileResponse] | None:
        """All messages of one run, however often it was cut; None when it could not be brought to an end."""
        seen: list[pb.ReconcileResponse] = []
        runs_before, tampering_before = self._witness.runs_begun_count, self._world.tampering_count
        runs_count = 0
        for _ in range(TRIES):
            seen_before = len(seen)
            try:
                await self._follow(request, seen)
            except (Lost, ContractError) as broken:
                self._world.tell(f"a run breaks off: {broken!r}")
                if not seen:
                    return None
                request.cursor = seen[-1].cursor
                await self._world.pause(0.01, 0.3)
            else:
                # Another run, or a change of the database, and what is missing is found anew after a cut.
                is_alone = self._witness.runs_begun_count == runs_before + runs_count + 1
                is_alone = is_alone and self._world.tampering_count == tampering_before
                self.replays += _replays(seen) if is_alone and not request.dry_run else []
                return seen
            finally:
                runs_count += len(seen) > seen_before
        return None

    async def _follow(self, request: pb.ReconcileRequest, seen: list[pb.ReconcileResponse]) -> None:
        """Adds what it hears to `seen`."""
        self._world.operate(f"reconcile {'and go on' if seen else ' '.join(str(request).split())}")
        stream: Reconciling = self._network.stream(lambda _: self._witness.reconcile(request), Fault.RECONCILE_CUT)
        try:
            while message := await stream.receive():
                if request.cursor and request.cursor == seen[-1].cursor:
                    self._world.see(Sight.RESUMED)
                seen.append(message)
        finally:
            stream.close()
        if seen[-1].run_finished.replayed_record_count:
            self._world.see(Sight.HEALED)

    def _any_request(self) -> pb.ReconcileRequest:
        match self._world.chance.randrange(5):
            case 0:
                return pb.ReconcileRequest(dry_run=True, include_open=True)
            case 1:
                return pb.ReconcileRequest(partitions=[TODAY])
            case 2:
                return pb.ReconcileRequest(since_days=2)
            case 3:
                return pb.ReconcileRequest(include_open=True, verify_content=True)
            case _:
                return pb.ReconcileRequest()


def _replays(seen: Sequence[pb.ReconcileResponse]) -> Iterator[Told]:
    """What each partition that could be completed announced, and told."""
    announced_count, told = 0, list[tuple[str, int]]()
    for message in seen:
        match message.WhichOneof("event"):
            case "partition_started":
                announced_count, told = message.partition_started.missing_record_count, []
            case "replayed":
                at = message.replayed.position
                told.append((at.partition, at.sequence))
            case "partition_finished":
                state = message.partition_finished.state
                if state.status == pb.RECONCILE_STATUS_COMPLETED:
                    yield Told(f"{state.run_id} {state.partition}", announced_count, told)
