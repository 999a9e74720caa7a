"""An OMEN: it emits into its ledger, and delivers what RiskCast has not settled."""

from collections import deque
from collections.abc import Sequence

from contract.errors import ContractError
from riskcast.v1 import ingest_service_pb2 as pb
from tests.faults.history import Attempt, Told
from tests.riskcast_server.simulation.catalogue import Catalogue, said, widened
from tests.riskcast_server.simulation.ledger import Held, Place, SimulatedLedger
from tests.riskcast_server.simulation.ledger_reader import TODAY
from tests.riskcast_server.simulation.network import Lost, Network, Stream
from tests.riskcast_server.simulation.witness import CONFLICT, DUPLICATE, STORED, Witness
from tests.riskcast_server.simulation.world import Fault, World

PARTITIONS = ("2026-01-27", TODAY)
SPOILT_PARTITION = "2026-01-28-late"  # the only one with records that can never be stored: the others can be COMPLETED
IN_FLIGHT_MAX = 4
BATCH_MAX = 8

Delivering = Stream[pb.IngestStreamRequest, pb.IngestStreamResponse]


class Omen:
    """`acks`: by place, the acknowledgement of what was delivered; `fresh`: what was emitted after the last fault."""

    def __init__(
        self, world: World, network: Network, witness: Witness, ledger: SimulatedLedger, catalogue: Catalogue
    ) -> None:
        self._world = world
        self._network = network
        self._witness = witness
        self._catalogue = catalogue
        self._stream: Delivering | None = None
        self.ledger = ledger
        self.emitted: list[Held] = []
        self.fresh: set[Place] = set()
        self.acks: dict[Place, str] = {}

    async def emit_until_healed(self) -> None:
        while not self._world.is_healed:
            await self._world.pause(0.005, 0.05)
            if self._world.chance.random() < 0.05:
                self.emit(SPOILT_PARTITION, self._catalogue.invalid())
            else:
                self.emit(self._world.chance.choice((*PARTITIONS, SPOILT_PARTITION)), self._catalogue.valid())

    def emit(self, partition: str, payload: bytes) -> Held:
        held = self.ledger.append(partition, payload)
        self._world.operate(f"emitted {said(payload).signal_id or 'an impossible record'} at {at(held)}")
        self.emitted.append(held)
        return held

    async def deliver_until_healed(self) -> None:
        while not self._world.is_healed:
            try:
                await self.deliver()
            except (Lost, ContractError) as broken:
                self._world.tell(f"a delivery breaks off: {broken!r}")
            await self._world.pause(0.05, 0.4)

    async def deliver(self) -> None:
        """One stream, until nothing is left to send. Raises Lost or ContractError when it breaks."""
        stream: Delivering = self._network.stream(self._witness.deliver, Fault.STREAM_CUT)
        self._stream = stream
        try:
            done = await self._greet(stream)
            waiting: deque[Sequence[Held]] = deque()
            while True:
                if len(waiting) < IN_FLIGHT_MAX and (batch := self._next_batch(done)):
                    done |= {record.place for record in batch}
                    waiting.append(batch)
                    await self._send(stream, batch)
                elif waiting:
                    self._take(waiting.popleft(), await stream.receive())
                else:
                    return
        finally:
            stream.close()

    def restart(self) -> None:
        self.ledger.restart()
        if self._stream:
            self._stream.close()

    def attempts(self) -> list[Attempt]:
        """What was emitted; of what the ledger lost when it was set back nobody is told any more that it is there."""
        gone = {record.place for record in self.ledger.lost}
        return [
            Attempt(
                said(held.payload).name,
                held.payload,
                Told.UNKNOWN if held.place in gone else Told.ACKNOWLEDGED,
                (partition_of(held), held.sequence),
                self.acks.get(held.place, ""),
                held.place in self.fresh,
            )
            for held in self.emitted
        ]

    async def _greet(self, stream: Delivering) -> set[Place]:
        """What is settled already."""
        segments = [
            pb.SegmentCount(segment_id=segment.segment_id, record_count=len(segment.records))
            for segment in self.ledger.segments
        ]
        self._world.operate(f"hello of {len(segments)} segments")
        hello = pb.IngestHello(ledger_id=self.ledger.ledger_id, segments=segments)
        await stream.send(pb.IngestStreamRequest(hello=hello))
        answer = await stream.receive()
        if answer is None:
            raise Lost
        return {
            (self.ledger.ledger_id, each.segment_id, index)
            for each in answer.hello.settled
            for run in each.ranges
            for index in range(run.first, run.last + 1)
        }

    async def _send(self, stream: Delivering, batch: Sequence[Held]) -> None:
        self._world.operate(f"deliver {', '.join(at(record) for record in batch)}")
        message = pb.IngestBatch(records=[record.on_the_wire() for record in batch])
        await stream.send(pb.IngestStreamRequest(batch=message))

    def _next_batch(self, done: set[Place]) -> list[Held]:
        left = [record for record in self.ledger.readable if record.place not in done]
        return left[: self._world.chance.randint(1, BATCH_MAX)]

    def _take(self, batch: Sequence[Held], answer: pb.IngestStreamResponse | None) -> None:
        if answer is None:
            raise Lost
        for record, result in zip(batch, answer.batch.results, strict=True):
            self._world.tell(f"{at(record)}: {pb.RecordOutcome.Name(result.outcome)}")
            if result.outcome in (STORED, DUPLICATE):
                self.acks[record.place] = result.ack_id
            if result.outcome == CONFLICT:
                self.emit(TODAY, widened(record.payload))


def at(held: Held) -> str:
    return f"{held.ledger_id[:4]}/{held.partition}/{held.sequence >> 32}/{held.index}"


def partition_of(held: Held) -> str:
    """Partitions of several ledgers have the same names."""
    return f"{held.ledger_id}/{held.partition}"
