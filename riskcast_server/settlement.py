"""What becomes of records at the door: a pure decision, made inside the store's transaction.

    place held by      signal_id has a row     verdict      written
    no row             no                      STORED       the row (a settlement at its place goes)
    no row, or its own yes, same input hash    DUPLICATE    a settlement, unless the row itself is at that place
    no row, or its own yes, other input hash   CONFLICT     a settlement
    another row        -                       REJECTED     a settlement
A conflict's settlement names the wide id under which OMEN emits the event again: it counts only while that has a row.
Where no wider id can follow, a conflict is REJECTED. So is a record that was refused before it got here, unless these
very bytes are stored at its place. Where a failure's place has a row, the settlement tells of the failure, the row
counts. Only a ledger has places: what a client of unary Ingest says of a position is kept with the row and decides
nothing, so that a wrong one hides no record. Without a place only rows are written.
"""

import enum
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import assert_never

from contract.coverage import Coverage
from contract.errors import ContractError, Violation, invalid_signal, signal_id_conflict
from contract.identity import identity_of_event
from contract.limits import SIGNAL_ID_DIGITS_RETRY
from omen.v1.signal_event_pb2 import SignalEvent
from omen.v1.signal_pb2 import SignalCategory
from riskcast.v1.signal_service_pb2 import ARRIVAL_PATH_DELIVERY, ARRIVAL_PATH_INGEST, ArrivalPath

Place = tuple[str, bytes, int]  # ledger_id, segment_id, record_index: one record of one file, whatever its name

# Nothing below changes once it is made. What every record makes is not frozen all the same: that takes five times as
# long.


@dataclass(slots=True, unsafe_hash=True)
class Position:
    """Where a record stands in a ledger. `sequence` is (segment_ordinal << 32) | record_index, the index from 1."""

    ledger_id: str
    partition: str
    segment_id: bytes
    sequence: int

    @property
    def segment_ordinal(self) -> int:
        return self.sequence >> 32

    @property
    def record_index(self) -> int:
        return self.sequence & 0xFFFFFFFF

    @property
    def place(self) -> Place:
        return self.ledger_id, self.segment_id, self.sequence & 0xFFFFFFFF


@dataclass(slots=True, unsafe_hash=True)
class Candidate:
    """A valid event. `event` holds its bytes as they came; `emitted_at` is in microseconds since the epoch, UTC;
    `run_id` is "" outside a replay."""

    signal_id: str
    input_event_hash: str
    ack_id: str
    event: bytes
    emitted_at: int
    category: SignalCategory.ValueType
    source_event_id: str
    position: Position | None
    path: ArrivalPath.ValueType
    run_id: str = ""

    @property
    def held_at(self) -> Position | None:
        """Where a ledger holds it; None when only a client says so."""
        return None if self.path == ARRIVAL_PATH_INGEST else self.position


@dataclass(frozen=True, slots=True)
class Refused:
    """A record of a ledger that can never be stored as it is. `signal_id` is "" when it could not be read."""

    position: Position
    signal_id: str
    error: ContractError
    event: bytes
    path: ArrivalPath.ValueType = ARRIVAL_PATH_DELIVERY

    @property
    def held_at(self) -> Position:
        return self.position


Entry = Candidate | Refused


@dataclass(slots=True, unsafe_hash=True)
class Row:
    """A stored signal. `ingested_at`: microseconds since the epoch, UTC."""

    signal: Candidate
    ingested_at: int


class Verdict(enum.StrEnum):
    STORED = "stored"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    REJECTED = "rejected"


@dataclass(slots=True, unsafe_hash=True)
class Kept:
    """The signal has a row: a new one when STORED, the original when DUPLICATE."""

    verdict: Verdict
    row: Row


@dataclass(frozen=True, slots=True)
class Failed:
    """The record made no row and repeats none: CONFLICT or REJECTED."""

    verdict: Verdict
    error: ContractError


Outcome = Kept | Failed


@dataclass(frozen=True, slots=True)
class Settlement:
    """A record that made no row, and why. It is settled while a row has both the id and the hash; if rejected, always.

    `signal_id` is the wide one of a conflict, `input_event_hash` is "" of what was refused, `reason` of a duplicate.
    """

    position: Position
    verdict: Verdict
    signal_id: str
    input_event_hash: str
    reason: str


@dataclass(slots=True)
class Known:
    """What the store holds that touches a batch: rows by signal_id, and which signal has its row at which place."""

    rows: dict[str, Row] = field(default_factory=dict)
    places: dict[Place, str] = field(default_factory=dict)


@dataclass(slots=True)
class Plan:
    """What to write, and the outcome of each entry in order."""

    rows: list[Row] = field(default_factory=list)
    settlements: dict[Place, Settlement] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)


def decide(entries: Sequence[Entry], known: Known, ingested_at: int) -> Plan:
    """Settles the entries in order, each knowing what those before it wrote. `known` is brought up to date."""
    plan = Plan()
    for entry in entries:
        match entry:
            case Refused():
                plan.outcomes.append(_refused(entry, known, plan))
            case Candidate():
                plan.outcomes.append(_candidate(entry, known, plan, ingested_at))
            case never:
                assert_never(never)
    return plan


def covered(entries: Sequence[Entry], outcomes: Sequence[Outcome]) -> dict[tuple[str, str, bytes, int], Coverage]:
    """What the entries settle, by (ledger_id, partition, segment_id, segment_ordinal). Conflicts are still open."""
    indexes: defaultdict[tuple[str, str, bytes, int], list[int]] = defaultdict(list)
    for entry, outcome in zip(entries, outcomes, strict=True):
        if (at := entry.held_at) and outcome.verdict is not Verdict.CONFLICT:
            indexes[at.ledger_id, at.partition, at.segment_id, at.segment_ordinal].append(at.record_index)
    return {segment: Coverage.of(of_segment) for segment, of_segment in indexes.items()}


def _candidate(candidate: Candidate, known: Known, plan: Plan, ingested_at: int) -> Outcome:
    at = candidate.held_at
    maybe_place = at.place if at else None
    if maybe_place and known.places.get(maybe_place, candidate.signal_id) != candidate.signal_id:
        error = invalid_signal([Violation("position", "another signal is stored there")])
        return _fail(candidate, Failed(Verdict.REJECTED, error), plan)
    row = known.rows.get(candidate.signal_id)
    if row is None:
        return _store(Row(candidate, ingested_at), maybe_place, known, plan)
    if row.signal.input_event_hash != candidate.input_event_hash:
        return _conflict(candidate, row, plan)
    if at and maybe_place and maybe_place not in known.places:
        plan.settlements[maybe_place] = Settlement(
            at, Verdict.DUPLICATE, candidate.signal_id, candidate.input_event_hash, ""
        )
    return Kept(Verdict.DUPLICATE, row)


def _conflict(candidate: Candidate, row: Row, plan: Plan) -> Failed:
    """Only here is the event parsed again: conflicts are rare."""
    error = signal_id_conflict(candidate.signal_id, row.signal.input_event_hash, candidate.input_event_hash)
    wide_id = identity_of_event(SignalEvent.FromString(candidate.event)).signal_id_of(SIGNAL_ID_DIGITS_RETRY)
    if len(candidate.signal_id) >= len(wide_id):
        return _fail(candidate, Failed(Verdict.REJECTED, error), plan)
    return _fail(candidate, Failed(Verdict.CONFLICT, error), plan, counts_with=wide_id)


def _refused(refused: Refused, known: Known, plan: Plan) -> Outcome:
    row = known.rows.get(known.places.get(refused.position.place, ""))
    if row and row.signal.event == refused.event:
        return Kept(Verdict.DUPLICATE, row)
    return _fail(refused, Failed(Verdict.REJECTED, refused.error), plan)


def _store(row: Row, maybe_place: Place | None, known: Known, plan: Plan) -> Outcome:
    plan.rows.append(row)
    known.rows[row.signal.signal_id] = row
    if maybe_place:
        known.places[maybe_place] = row.signal.signal_id
        plan.settlements.pop(maybe_place, None)
    return Kept(Verdict.STORED, row)


def _fail(entry: Entry, failed: Failed, plan: Plan, counts_with: str = "") -> Failed:
    """`counts_with` is the signal_id whose row settles it, if not its own."""
    if at := entry.held_at:
        signal_id = counts_with or entry.signal_id
        input_event_hash = entry.input_event_hash if isinstance(entry, Candidate) else ""
        reason = failed.error.reason
        plan.settlements[at.place] = Settlement(at, failed.verdict, signal_id, input_event_hash, reason)
    return failed
