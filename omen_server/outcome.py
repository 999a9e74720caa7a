"""What became of a record after the ledger, in the words of an Emission."""

from dataclasses import dataclass

from ledger import Position
from omen.v1 import signal_service_pb2 as pb


@dataclass(frozen=True, slots=True)
class Outcome:
    """`position` is the one that was settled: an event that meets a conflict is appended again, under a wider id."""

    status: "pb.EmissionStatus.ValueType"
    position: Position
    ack_id: str = ""
    rejection: pb.ItemError | None = None
    ledger_only_reason: str = ""
