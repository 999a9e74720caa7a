"""Clients of an OMEN: they emit, one event or some, wait for RiskCast or not, and may leave before the answer."""

import asyncio
from collections.abc import Sequence

from contract.errors import ContractError, Reason, item_error
from omen.v1 import signal_service_pb2 as pb
from omen.v1.signal_event_pb2 import SignalEvent
from omen_server.emission import Wait
from tests.faults.history import Attempt, Told
from tests.simulation.book import Held
from tests.simulation.catalogue import Catalogue, said, widened
from tests.simulation.omen import Omen
from tests.simulation.witness import Witness
from tests.simulation.world import Fault, Sight, World

WAITS = (Wait(None), Wait(0.2), Wait(1.0), Wait(5.0))
LEDGER_S = 1.0  # within which a ledger, however slow its disk, has answered
BATCH_MAX = 4

DELIVERED, DUPLICATE = pb.EMISSION_STATUS_DELIVERED, pb.EMISSION_STATUS_DUPLICATE
LEDGER_ONLY, REJECTED = pb.EMISSION_STATUS_LEDGER_ONLY, pb.EMISSION_STATUS_REJECTED
SIGHTS = {
    DELIVERED: Sight.EMITTED_DELIVERED,
    DUPLICATE: Sight.EMITTED_DUPLICATE,
    LEDGER_ONLY: Sight.EMITTED_LEDGER_ONLY,
}
NOTHING_STORED = (Reason.QUEUE_FULL, Reason.LEDGER_FULL, Reason.PARTITION_CLOSED, Reason.SHUTTING_DOWN)

Answers = Sequence[pb.EmitResult]


class EmitClient:
    """`tried`: all that it sent. `answered`: what it was told of, with the record that it was told of."""

    def __init__(self, world: World, omen: Omen, witness: Witness, catalogue: Catalogue) -> None:
        self._world = world
        self._omen = omen
        self._witness = witness
        self._catalogue = catalogue
        self._delivered: set[str] = set()
        self.is_after_the_last_fault = False
        self.tried: list[Attempt] = []
        self.answered: list[tuple[Held, str, bool]] = []  # with the ack_id, and whether it was after the last fault

    async def emit_until_healed(self) -> None:
        calls: list[asyncio.Task[Answers | None]] = []
        while not self._world.is_healed:
            await self._world.pause(0.005, 0.08)
            if self._omen.is_up and self._world.chance.random() < 0.05:
                self._put_impossible()
            else:
                calls.append(asyncio.create_task(self.emit(self._any_payloads(), self._world.chance.choice(WAITS))))
        await asyncio.gather(*calls)

    async def emit(self, payloads: Sequence[bytes], wait: Wait) -> Answers | None:
        """None when it was not answered."""
        if not self._omen.is_up:
            return None
        for payload in payloads:
            self._world.operate(
                f"emit {said(payload).signal_id} into {self._omen.name}, wait {wait.delivery_timeout_s}"
            )
        handler = self._omen.handle(self._handled(payloads, wait))
        if self._world.happens(Fault.EMITTER_LEFT):
            await self._world.pause(0, 0.1)
            handler.cancel()
        await asyncio.wait([handler])
        if not handler.cancelled():
            return handler.result()
        self._note_tried(payloads, Told.UNKNOWN)
        return None

    def attempts(self) -> list[Attempt]:
        """What was tried and told; of what the ledger lost when it was set back nobody is told any more."""
        gone = {held.place for held in self._omen.book.lost}
        return [
            *self.tried,
            *(
                Attempt(
                    said(held.payload).name,
                    held.payload,
                    Told.UNKNOWN if held.place in gone else Told.ACKNOWLEDGED,
                    (f"{held.ledger_id}/{held.partition}", held.sequence),
                    ack_id,
                    is_after,
                )
                for held, ack_id, is_after in self.answered
            ),
        ]

    async def _handled(self, payloads: Sequence[bytes], wait: Wait) -> Answers:
        """What is answered is judged in the moment in which it is answered."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        answers = await self._answers([SignalEvent.FromString(each) for each in payloads], wait)
        took_s = loop.time() - began_s
        if took_s > (wait.delivery_timeout_s or 0) + LEDGER_S:
            self._world.flaw(f"H6 an emit that waits {wait.delivery_timeout_s} s is answered after {took_s:.2f} s")
        for payload, answer in zip(payloads, answers, strict=True):
            if answer.HasField("error"):
                self._refused(payload, answer.error.reason)
            else:
                self._acknowledged(payload, answer.emission, wait)
        return answers

    async def _answers(self, events: Sequence[SignalEvent], wait: Wait) -> Answers:
        """Of Emit for one, of EmitStream for several."""
        if len(events) > 1:
            return (await self._omen.emitter.emit_each(events, wait)).results
        try:
            return [pb.EmitResult(emission=await self._omen.emitter.emit(events[0], wait))]
        except ContractError as error:
            return [pb.EmitResult(error=item_error(error))]

    def _refused(self, payload: bytes, reason: str) -> None:
        is_refused = reason in NOTHING_STORED
        self._world.see(Sight.EMITTED_REFUSED if is_refused else Sight.EMITTED_UNKNOWN)
        self._note_tried([payload], Told.REFUSED if is_refused else Told.UNKNOWN)
        if not is_refused and reason != Reason.LEDGER_UNAVAILABLE:
            self._world.flaw(f"{said(payload).signal_id}: a sound event is refused, {reason}")

    def _acknowledged(self, payload: bytes, told: pb.Emission, wait: Wait) -> None:
        self._note_tried([payload], Told.UNKNOWN)
        self._world.tell(f"{told.signal_id}: {pb.EmissionStatus.Name(told.status)} {told.ledger_only_reason}")
        held = self._omen.book.maybe_held(told.position.segment_id, told.position.sequence & 0xFFFFFFFF)
        if held is None:
            self._world.flaw(f"H1 {told.signal_id}: acknowledged before it is durable")
            return
        self.answered.append((held, told.ack_id, self.is_after_the_last_fault))
        kept = said(held.payload)
        if (kept.signal_id, kept.input_event_hash) != (told.signal_id, said(payload).input_event_hash):
            self._world.flaw(f"H1 {told.signal_id}: acknowledged, and another event is at its place")
        if told.signal_id != said(payload).signal_id:
            self._world.see(Sight.EMITTED_WIDE)
        if sight := SIGHTS.get(told.status):
            self._world.see(sight)
        self._judge(held, told, wait)

    def _judge(self, held: Held, told: pb.Emission, wait: Wait) -> None:
        match told.status:
            case pb.EMISSION_STATUS_DELIVERED | pb.EMISSION_STATUS_DUPLICATE:
                self._witness.passed_on(held.payload, told.ack_id)
            case pb.EMISSION_STATUS_LEDGER_ONLY:
                if bool(told.ledger_only_reason) is (wait.delivery_timeout_s is None):
                    self._world.flaw(f"{told.signal_id}: in the ledger alone, for {told.ledger_only_reason!r}")
            case _:
                self._world.flaw(f"{told.signal_id}: a sound event is answered {told.status}")
        if told.status == DELIVERED and not self._world.tampering_count:
            if told.signal_id in self._delivered:
                self._world.flaw(f"H4 {told.signal_id}: delivered twice")
            self._delivered.add(told.signal_id)

    def _note_tried(self, payloads: Sequence[bytes], told: Told) -> None:
        for payload in payloads:
            for tried in (payload, widened(payload)):
                self.tried.append(Attempt(said(tried).name, tried, told))

    def _put_impossible(self) -> None:
        """A record that the ledger holds, and that RiskCast will not take."""
        payload = self._catalogue.invalid()
        self._world.operate(f"an impossible record goes into {self._omen.name}")
        self.tried.append(Attempt("", payload, Told.UNKNOWN))
        self._omen.put(payload, days_ago=1)

    def _any_payloads(self) -> list[bytes]:
        """Often the same event several times at once."""
        if self._world.chance.random() < 0.02:
            return [self._catalogue.closed()]
        payloads = [self._catalogue.valid() for _ in range(self._world.chance.choice((1, 1, 1, 2, BATCH_MAX)))]
        return payloads * self._world.chance.choice((1, 1, 1, 2))
