"""What became of a record after the ledger, in the words of an Emission."""

from typing import NamedTuple

from ledger import Position
from omen.v1 import signal_service_pb2 as pb


class Outcome(NamedTuple):
    """`position` and `signal_id` are those that were settled: an event that meets a conflict is appended again, under a
    wider id. `ack_id`, `rejection` and `ledger_only_reason` are given where the status has them."""

    status: "pb.EmissionStatus.ValueType"
    position: Position
    signal_id: str
    ack_id: str = ""
    rejection: pb.ItemError | None = None
    ledger_only_reason: str = ""
