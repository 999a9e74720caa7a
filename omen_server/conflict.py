"""What to do when another event already has the twelve-digit id: the same event again, under 32 digits of its digest.

48 bits collide now and then; 128 bits do not. The wider id is a function of the event, so doing this again after a
crash ends as a duplicate.
"""

from contract.identity import identity_of_event
from contract.limits import SIGNAL_ID_DIGITS_RETRY
from omen.v1.signal_event_pb2 import SignalEvent


def widened(event: SignalEvent) -> SignalEvent | None:
    """The event under its wide id, or None when its id is as wide already."""
    wide_id = identity_of_event(event).signal_id_of(SIGNAL_ID_DIGITS_RETRY)
    if len(event.signal_id) >= len(wide_id):
        return None
    wide = SignalEvent()
    wide.CopyFrom(event)
    wide.signal_id = wide_id
    return wide
