"""What must hold when nothing goes wrong any more: RiskCast has what the ledgers hold, and Reconcile says so."""

from collections.abc import Sequence

from riskcast.v1 import reconcile_service_pb2 as pb
from tests.faults.history import Held, History, Row, Stream
from tests.riskcast_server.simulation.catalogue import said
from tests.riskcast_server.simulation.ledger import Place
from tests.riskcast_server.simulation.omen import Omen, partition_of
from tests.riskcast_server.simulation.truth import Truth

Statuses = dict[tuple[str, str], str]  # by ledger_id and partition


def is_whole(omens: Sequence[Omen], truth: Truth) -> bool:
    """Every record that can be read is settled, and its event is stored if it can be."""
    records = [record for omen in omens for record in omen.ledger.readable]
    possible = [record.payload for record in records if said(record.payload).signal_id]
    return {record.place for record in records} <= truth.settled() and not truth.unstored(possible)


def lost(omen: Omen, truth: Truth, accepted: set[Place]) -> set[str]:
    """Partitions of which something is settled that the ledger holds no more, and no operator has accepted."""
    settled = truth.settled() - accepted
    return {record.partition for record in omen.ledger.lost if record.place in settled}


def expected(omens: Sequence[Omen], truth: Truth, accepted: set[Place]) -> Statuses:
    """How each partition must compare once everything is whole."""
    found: Statuses = {}
    for omen in omens:
        damaged = {record.partition for record in omen.ledger.unreadable}
        impossible = {record.partition for record in omen.ledger.records if not said(record.payload).signal_id}
        partial = damaged | impossible | lost(omen, truth, accepted)
        for name in {*omen.ledger.partitions, *partial}:
            status = pb.RECONCILE_STATUS_PARTIAL if name in partial else pb.RECONCILE_STATUS_COMPLETED
            found[omen.ledger.ledger_id, name] = pb.ReconcileStatus.Name(status)
    return found


def history(omens: Sequence[Omen], truth: Truth, streams: Sequence[Stream], tried: set[bytes]) -> History:
    """All that was tried and told, for tests/faults/history to judge. Events are told apart even if they share an id.

    `tried`: what clients sent past the ledgers.
    """
    records = [record for omen in omens for record in omen.ledger.records]
    readable = [record.payload for omen in omens for record in omen.ledger.readable]
    missed = {said(payload).name for payload in truth.unstored(readable)} - {""}
    names = {said(record.payload).name for record in records}
    return History(
        attempts=[attempt for omen in omens for attempt in omen.attempts()],
        ledger=[Held(partition_of(each), each.sequence, said(each.payload).name, each.payload) for each in records],
        rows=[Row(said(row.event).name, row.ack_id, row.event) for row in truth.rows()],
        dead_letters=names - missed,  # what cannot be stored, cannot be read, or is stored under its other id
        streams=streams,
        beside=tried.union(record.payload for omen in omens for record in omen.ledger.lost),
    )
