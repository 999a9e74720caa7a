"""What is kept in memory is handed out for what it is."""

from ledger import Position, Record
from ledger.positions import sequence_of
from omen_server.delivery.backlog import Run, Segment
from omen_server.delivery.newest import Newest
from tests.riskcast_server.events import DAY

FIRST, SECOND = bytes(16), bytes([1]) * 16


def record(segment_id: bytes, index: int) -> Record:
    return Record(Position(DAY, segment_id, sequence_of(1, index)), 1, 1, b"%d" % index)


def run(segment_id: bytes, first: int, last: int) -> Run:
    return Run(Segment(DAY, 1, segment_id, last), first, last)


def test_a_run_gets_its_own_records_as_far_as_they_are_here_without_a_gap_and_once() -> None:
    newest = Newest()
    kept = [record(FIRST, 1), record(SECOND, 1), record(SECOND, 2), record(SECOND, 4)]
    for each in kept:
        newest.keep(each)
    assert newest.take(run(SECOND, 1, 4), 1000) == kept[1:3]
    assert newest.take(run(SECOND, 1, 4), 1000) == []
    assert newest.take(run(FIRST, 1, 1), 1000) == kept[:1]
