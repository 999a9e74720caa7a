"""Stands beside RiskCast: whatever it answers is compared with the file and the ledgers in the moment it is answered.

An answer is not judged where somebody changed the database between the question and the answer: then nobody can say
what it should have been.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, cast

from contract.errors import ContractError, Reason, internal
from ledger import Position
from omen.v1.ledger_record_pb2 import LedgerPosition, LedgerRecord
from omen.v1.ledger_service_pb2 import GetPartitionResponse
from omen.v1.signal_event_pb2 import SignalEvent
from omen.v1.signal_service_pb2 import DELIVERY_STATUS_SETTLED
from riskcast.v1 import ingest_service_pb2 as ingest_pb
from riskcast.v1 import reconcile_service_pb2 as reconcile_pb
from tests.simulation.book import Held, Place
from tests.simulation.catalogue import said
from tests.simulation.ledger_client import SimulatedLedgerClient
from tests.simulation.omen import Omen
from tests.simulation.riskcast import Riskcast
from tests.simulation.truth import Settled, Truth
from tests.simulation.world import Fault, Sight, World

STORED, DUPLICATE = ingest_pb.RECORD_OUTCOME_STORED, ingest_pb.RECORD_OUTCOME_DUPLICATE
CONFLICT, REJECTED = ingest_pb.RECORD_OUTCOME_CONFLICT, ingest_pb.RECORD_OUTCOME_REJECTED
OUTCOMES = {
    STORED: Sight.STORED,
    DUPLICATE: Sight.DUPLICATE,
    CONFLICT: Sight.CONFLICT,
    REJECTED: Sight.REJECTED,
}
STATUSES = {
    reconcile_pb.RECONCILE_STATUS_COMPLETED: Sight.COMPLETED,
    reconcile_pb.RECONCILE_STATUS_PARTIAL: Sight.PARTIAL,
    reconcile_pb.RECONCILE_STATUS_FAILED: Sight.FAILED,
    reconcile_pb.RECONCILE_STATUS_SKIPPED: Sight.SKIPPED,
}
REASONS = {
    Reason.QUEUE_FULL: Sight.QUEUE_FULL,
    Reason.STORE_UNAVAILABLE: Sight.STORE_UNAVAILABLE,
    Reason.RECONCILE_RUNNING: Sight.RUNNING,
}


class Witness:
    """`promised`: by signal_id, the acknowledgements that were given and that nobody else took back.

    `accepted`: places beyond a ledger that an operator has accepted.
    """

    def __init__(
        self, world: World, riskcast: Riskcast, truth: Truth, ledgers: Sequence[SimulatedLedgerClient]
    ) -> None:
        self._world = world
        self._riskcast = riskcast
        self._truth = truth
        self._ledgers = ledgers
        self._acks: dict[str, str] = {}
        self.promised: dict[str, str] = {}
        self.accepted: set[Place] = set()
        self._unbearable: set[Place] = set()  # until all is healed
        self.runs_begun_count = 0

    async def ingest(self, payload: bytes, maybe_position: LedgerPosition | None) -> ingest_pb.IngestResponse:
        """The handler of Ingest."""
        tampering = self._world.tampering_count
        request = ingest_pb.IngestRequest(event=SignalEvent.FromString(payload), position=maybe_position)
        try:
            answer = await self._riskcast.ingest.Ingest(request, cast("Any", None))
        except ContractError as error:
            self._see(error)
            if error.reason is Reason.DUPLICATE_SIGNAL:
                self._acknowledged(payload, error.metadata["ack_id"], tampering)
            if error.reason is Reason.SIGNAL_ID_CONFLICT:
                self._conflicting(payload, tampering)
            raise
        self._acknowledged(payload, answer.ack_id, tampering)
        return answer

    async def deliver(self, requests: AsyncIterator[Any]) -> AsyncIterator[ingest_pb.IngestStreamResponse]:
        """The handler of IngestStream."""
        heard = _Overheard(requests, self._world, self._truth, self._arrived)
        try:
            async for answer in self._riskcast.ingest.IngestStream(heard, cast("Any", None)):
                if answer.HasField("hello"):
                    self._greeted(heard, answer.hello)
                else:
                    tampering, records = heard.batches.popleft()
                    self._settled(records, answer.batch.results, tampering)
                yield answer
        except ContractError as error:
            self._see(error)
            raise

    async def reconcile(self, request: reconcile_pb.ReconcileRequest) -> AsyncIterator[reconcile_pb.ReconcileResponse]:
        """The handler of Reconcile. A partition is judged by what held while it was compared."""
        tampering = self._world.tampering_count
        try:
            is_first = True
            async for message in self._riskcast.reconciler.run(request):
                self.runs_begun_count += is_first
                is_first = False
                if message.HasField("partition_finished"):
                    self._compared(message.partition_finished, tampering)
                    tampering = self._world.tampering_count
                yield message
        except ContractError as error:
            self._see(error)
            raise

    async def accept(self, ledger_id: str) -> None:
        """The handler of AcceptDivergence."""
        before = self._truth.settled()
        await self._riskcast.reconciler.accept(ledger_id, "the disk was replaced")
        self.accepted |= {place for place in before if place[0] == ledger_id}

    def committed(self) -> None:
        """Rows, settlements and coverage change together or not at all, whoever looks in between."""
        if self._world.is_cache_spoilt or self._world.chance.random() > 0.1:
            return
        settled, cached = self._truth.settled(), self._truth.cached()
        if cached - settled:
            self._world.flaw(f"coverage claims {len(cached - settled)} records that are not settled")
        if settled - cached - self._truth.open_conflicts():
            self._world.flaw("coverage lacks records that are settled")

    def kept(self) -> None:
        """Whatever was acknowledged is in the file."""
        stored = {row.signal_id: row.ack_id for row in self._truth.rows()}
        for signal_id, ack_id in self.promised.items():
            if stored.get(signal_id) != ack_id:
                self._world.flaw(f"H1 {signal_id}: acknowledged, and not in the database any more")

    def passed_on(self, payload: bytes, ack_id: str) -> None:
        """Whoever emitted it is told that RiskCast stores it: then the file says so, unless somebody changed it."""
        signal_id = said(payload).signal_id
        if self._acks.get(said(payload).name) != ack_id:
            self._world.flaw(f"H4 {signal_id}: an ack_id that RiskCast never gave")
        row = self._truth.maybe_row(signal_id)
        is_owed = signal_id in self.promised or not self._world.tampering_count
        if is_owed and (row is None or row.ack_id != ack_id):
            self._world.flaw(f"H2 {signal_id}: told to be stored, and not committed")

    def told_settled(self, records: Sequence[Held], omen: Omen) -> None:
        """What delivery calls settled is settled; after a conflict, the event under its wider id is another record."""
        settled = self._truth.settled() | self._truth.open_conflicts()
        for held in records:
            position = Position(held.partition, held.segment_id, held.sequence)
            is_told = omen.delivery.delivery_status(position) == DELIVERY_STATUS_SETTLED
            if is_told and held.place not in settled:
                self._world.flaw(f"H2 {held.partition} {held.sequence:#x}: called settled, and not committed")

    def tampered(self) -> None:
        """Somebody else changed the database: what is gone now is not RiskCast's fault."""
        self._world.tampering_count += 1
        self.promised = {each: ack for each, ack in self.promised.items() if self._truth.maybe_row(each)}

    def _greeted(self, heard: "_Overheard", hello: ingest_pb.IngestHelloResult) -> None:
        """What was settled when it was asked must be told, and nothing that is not settled when it is told."""
        if heard.hello_tampering != self._world.tampering_count:
            return
        told = {
            (heard.ledger_id, each.segment_id, index)
            for each in hello.settled
            for run in each.ranges
            for index in range(run.first, run.last + 1)
        }
        asked_before = {place for place in heard.settled_before if place[0] == heard.ledger_id}
        now = {place for place in self._truth.settled() if place[0] == heard.ledger_id}
        if missing := {place for place in asked_before if place[1] in heard.segment_ids} - told:
            self._world.flaw(f"H5 a hello leaves out {len(missing)} settled records: they would be repeated")
        if told - now:
            self._world.flaw(f"H5 a hello claims {len(told - now)} records that are not settled: a gap")
        # As cached: what came to be settled by another record's row is counted once the segment is asked about.
        if not self._world.is_cache_spoilt and hello.settled_count > len(now):
            self._world.flaw(f"a hello counts {hello.settled_count} settled records of {len(now)}")

    def _settled(
        self, records: Sequence[LedgerRecord], results: Sequence[ingest_pb.RecordResult], tampering: int
    ) -> None:
        if len(results) != len(records):
            self._world.flaw(f"{len(results)} results of {len(records)} records")
        settled = self._truth.settled()
        for record, result in zip(records, results, strict=False):
            self._world.see(OUTCOMES[result.outcome])
            if result.outcome in (STORED, DUPLICATE):
                self._acknowledged(record.event, result.ack_id, tampering)
            elif result.outcome == CONFLICT:
                self._conflicting(record.event, tampering)
            elif said(record.event).signal_id:
                self._world.flaw(f"{said(record.event).signal_id}: a sound record is rejected, {result.error.reason}")
            is_open = result.outcome == CONFLICT or tampering != self._world.tampering_count
            if not is_open and place_of(record.position) not in settled:
                self._world.flaw(f"{result.outcome} is answered of a record that is not settled")

    def _acknowledged(self, payload: bytes, ack_id: str, tampering: int) -> None:
        """A row of this very event is committed, and its acknowledgement is what it always was."""
        signal_id = said(payload).signal_id
        if self._acks.setdefault(said(payload).name, ack_id) != ack_id:
            self._world.flaw(f"H4 {signal_id}: another ack_id than before")
        if tampering != self._world.tampering_count:
            return
        row = self._truth.maybe_row(signal_id)
        if row is None or row.ack_id != ack_id:
            self._world.flaw(f"H1 {signal_id}: acknowledged, and not committed")
        elif row.input_event_hash != said(payload).input_event_hash:
            self._world.flaw(f"H1 {signal_id}: acknowledged, and another event is stored under its id")
        self.promised[signal_id] = ack_id

    def _conflicting(self, payload: bytes, tampering: int) -> None:
        row = self._truth.maybe_row(said(payload).signal_id)
        is_one = row is not None and row.input_event_hash != said(payload).input_event_hash
        if tampering == self._world.tampering_count and not is_one:
            self._world.flaw(f"{said(payload).signal_id}: called a conflict, with nothing")

    def _compared(self, finished: reconcile_pb.PartitionFinished, tampering: int) -> None:
        state = finished.state
        self._world.see(STATUSES[state.status])
        self._world.tell(f"{state.partition}: {reconcile_pb.ReconcileStatus.Name(state.status)} {state.reason}")
        if state.status != reconcile_pb.RECONCILE_STATUS_COMPLETED or tampering != self._world.tampering_count:
            return
        ledger = self._ledger(state.ledger_id)
        told, book = ledger.told.get(state.partition, GetPartitionResponse()), ledger.omen.book
        counts = {segment.segment_id: segment.record_count for segment in told.segments}
        ever_held = [*book.records, *book.lost]  # it may have been set back since it told
        records = [each for each in ever_held if each.place[2] <= counts.get(each.segment_id, 0)]
        missing = self._truth.unstored(record.payload for record in records)
        if len(records) != state.ledger_record_count or told.damaged_sequences or missing:
            self._world.flaw(f"COMPLETED {state.partition}: of {len(records)} records {len(missing)} are not stored")
        known = {record.place for record in (*records, *book.records)}
        if self._truth.rows_at(state.ledger_id, state.partition) - known - self.accepted:
            self._world.flaw(f"COMPLETED {state.partition}: rows stand where the ledger has no record")

    def _ledger(self, ledger_id: str) -> SimulatedLedgerClient:
        return next(each for each in self._ledgers if each.omen.book.ledger_id == ledger_id)

    def _arrived(self, records: Sequence[LedgerRecord]) -> None:
        for record in records:
            self._delivered(record)
        if self._world.happens(Fault.UNBEARABLE):
            self._unbearable.add(place_of(self._world.chance.choice(records).position))
        if not self._world.is_healed and any(place_of(record.position) in self._unbearable for record in records):
            raise internal("a bug")

    def _delivered(self, record: LedgerRecord) -> None:
        """Nothing leaves a ledger but what is durable there, as it is there."""
        book = self._ledger(record.position.ledger_id).omen.book
        place = place_of(record.position)
        held = book.maybe_held(place[1], place[2]) or next((each for each in book.lost if each.place == place), None)
        if held is None or held.payload != record.event:
            self._world.flaw(f"H3 {place[2]} of {record.position.partition}: delivered, and not so in the ledger")

    def _see(self, error: ContractError) -> None:
        self._world.tell(f"answered {error.reason}")
        if sight := REASONS.get(error.reason):
            self._world.see(sight)


class _Overheard:
    """Passes the requests of a stream on, and remembers how things stood when they arrived."""

    def __init__(
        self,
        requests: AsyncIterator[ingest_pb.IngestStreamRequest],
        world: World,
        truth: Truth,
        on_batch: Callable[[Sequence[LedgerRecord]], None],
    ) -> None:
        self._requests = requests
        self._on_batch = on_batch
        self._world = world
        self._truth = truth
        self.batches: deque[tuple[int, Sequence[LedgerRecord]]] = deque()
        self.ledger_id = ""
        self.segment_ids: set[bytes] = set()
        self.settled_before: Settled = set()
        self.hello_tampering = 0

    def __aiter__(self) -> "_Overheard":
        return self

    async def __anext__(self) -> ingest_pb.IngestStreamRequest:
        request = await anext(self._requests)
        if request.HasField("hello"):
            self.ledger_id = request.hello.ledger_id
            self.segment_ids = {each.segment_id for each in request.hello.segments}
            self.settled_before = self._truth.settled()
            self.hello_tampering = self._world.tampering_count
        else:
            self._world.operate(f"{self.ledger_id[:4]} delivers {len(request.batch.records)} records")
            self._on_batch(request.batch.records)
            self.batches.append((self._world.tampering_count, request.batch.records))
        return request


def place_of(position: LedgerPosition) -> Place:
    return position.ledger_id, position.segment_id, position.sequence & 0xFFFFFFFF
