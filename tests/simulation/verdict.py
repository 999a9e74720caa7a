"""What must hold when nothing goes wrong any more: RiskCast has what the ledgers hold, and Reconcile says so."""

from collections.abc import Iterable, Iterator, Sequence

from contract.errors import timestamp
from omen.v1.signal_event_pb2 import SignalEvent
from riskcast.v1 import reconcile_service_pb2 as pb
from tests.faults.history import Attempt, Held, History, Row, Stream
from tests.riskcast_server.events import NOON
from tests.simulation.book import Place
from tests.simulation.catalogue import said
from tests.simulation.omen import Omen
from tests.simulation.truth import Truth

Statuses = dict[tuple[str, str], str]  # by ledger_id and partition


def is_whole(omens: Sequence[Omen], truth: Truth) -> bool:
    """Every record that can be read is settled, and its event is stored if it can be."""
    records = [record for omen in omens for record in omen.book.readable]
    possible = [record.payload for record in records if said(record.payload).signal_id]
    return {record.place for record in records} <= truth.settled() and not truth.unstored(possible)


def lost(omen: Omen, truth: Truth, accepted: set[Place]) -> set[str]:
    """Partitions of which something is settled that the ledger holds no more, and no operator has accepted."""
    settled = truth.settled() - accepted
    return {record.partition for record in omen.book.lost if record.place in settled}


def expected(omens: Sequence[Omen], truth: Truth, accepted: set[Place]) -> Statuses:
    """How each partition must compare once everything is whole."""
    found: Statuses = {}
    for omen in omens:
        records = omen.book.records
        damaged = {record.partition for record in records if record.place in omen.book.unreadable}
        impossible = {record.partition for record in records if not said(record.payload).signal_id}
        partial = damaged | impossible | lost(omen, truth, accepted)
        for name in {*omen.book.partitions, *partial}:
            status = pb.RECONCILE_STATUS_PARTIAL if name in partial else pb.RECONCILE_STATUS_COMPLETED
            found[omen.book.ledger_id, name] = pb.ReconcileStatus.Name(status)
    return found


def history(
    omens: Sequence[Omen], truth: Truth, attempts: Sequence[Attempt], streams: Sequence[Stream], beside: set[bytes]
) -> History:
    """All that was tried and told, for tests/faults/history to judge. Events are told apart even if they share an id.

    `beside`: what clients sent past the ledgers.
    """
    records = sorted(
        (record for omen in omens for record in omen.book.records),
        key=lambda record: (record.partition, record.sequence),
    )
    rows = truth.rows()
    readable = [record.payload for omen in omens for record in omen.book.readable]
    missed = {said(payload).name for payload in truth.unstored(readable)} - {""}
    names = {said(record.payload).name for record in records}
    tried = {attempt.payload for attempt in attempts}
    stamped = restamped([*(record.payload for record in records), *(row.event for row in rows)], tried)
    return History(
        attempts=attempts,
        ledger=[
            Held(f"{each.ledger_id}/{each.partition}", each.sequence, said(each.payload).name, each.payload)
            for each in records
        ],
        rows=[Row(said(row.event).name, row.ack_id, row.event) for row in rows],
        dead_letters=names - missed,  # what cannot be stored, cannot be read, or is stored under its other id
        streams=streams,
        beside={*beside, *stamped, *(record.payload for omen in omens for record in omen.book.lost)},
    )


def restamped(payloads: Iterable[bytes], tried: set[bytes]) -> Iterator[bytes]:
    """Those that say what was tried under a wider id, and only when they were emitted differs."""
    known = {unstamped(payload) for payload in tried if said(payload).signal_id}
    for payload in payloads:
        if said(payload).signal_id and payload not in tried and unstamped(payload) in known:
            yield payload


def unstamped(payload: bytes) -> bytes:
    event = SignalEvent.FromString(payload)
    event.emitted_at.CopyFrom(timestamp(NOON))
    return event.SerializeToString()
