"""The records that became durable last, kept in memory until they are sent: who keeps up reads no file."""

from ledger import Record
from omen_server.appends import Place
from omen_server.delivery.backlog import Run

BYTES_MAX = 8 * 1024 * 1024  # eight messages; what does not fit is read from the ledger


class Newest:
    """Bounded: while it is full, newer records are left to the ledger."""

    def __init__(self) -> None:
        self._records: dict[Place, Record] = {}
        self._bytes = 0

    def keep(self, record: Record) -> None:
        if self._bytes + len(record.payload) <= BYTES_MAX:
            self._bytes += len(record.payload)
            self._records[record.position.segment_id, record.position.record_index] = record

    def take(self, run: Run, bytes_max: int) -> list[Record]:
        """The first records of the run, as many as are here and fit, which are then here no more; maybe none."""
        taken: list[Record] = []
        for index in range(run.first, run.last + 1):
            place = run.segment.segment_id, index
            record = self._records.get(place)
            if record is None or (taken and len(record.payload) > bytes_max):
                break
            del self._records[place]
            self._bytes -= len(record.payload)
            bytes_max -= len(record.payload)
            taken.append(record)
        return taken

    def drop(self, run: Run) -> None:
        """They were read from the ledger."""
        for index in range(run.first, run.last + 1):
            if record := self._records.pop((run.segment.segment_id, index), None):
                self._bytes -= len(record.payload)

    def clear(self) -> None:
        self._records.clear()
        self._bytes = 0
