"""Reading one segment from end to end and judging it. Changes nothing."""

import errno

from ledger.disk import Disk
from ledger.files.salvage import SalvagedReads
from ledger.files.scan import Scan, Walk, scan
from ledger.files.source import Source
from ledger.files.survey import Surveyed
from ledger.format import seed_of
from ledger.opening.recovery import Action, Decision, decide, weigh
from ledger.positions import SEGMENT_ID_UNKNOWN, SegmentInfo

Inspected = tuple[SegmentInfo, Decision, Scan]


def inspect(disk: Disk, surveyed: Surveyed) -> Inspected:
    """What the segment holds, what to do about it, and the scan that says so.

    OSError when the disk does not give bytes that nothing else proves to have been durable: they may be good records.
    """
    try:
        return _inspected(disk, surveyed)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        salvaged = SalvagedReads(disk)
        inspected = _inspected(salvaged, surveyed)
        decision = inspected[1]
        is_proved = decision.action is Action.LEAVE
        if salvaged.unreadable and not (is_proved and salvaged.unreadable[1] <= decision.byte_length):
            raise
        return inspected


def _inspected(disk: Disk, surveyed: Surveyed) -> Inspected:
    file_bytes = disk.size(surveyed.path)
    end = min(file_bytes, surveyed.pin.byte_length) if surveyed.pin else file_bytes
    if surveyed.segment_id == SEGMENT_ID_UNKNOWN:
        found = Scan(end, 0)  # without its id no frame can be told from a foreign one
    else:
        source = Source(disk, surveyed.path)
        found = scan(Walk(source, seed_of(surveyed.segment_id), surveyed.ordinal, surveyed.head.end), end)
    decision = decide(weigh(surveyed.head, found, file_bytes, surveyed.pin))
    info = SegmentInfo(
        surveyed.partition,
        surveyed.ordinal,
        surveyed.segment_id,
        decision.record_count,
        decision.byte_length,
        found.missing_up_to(decision.record_count),
        decision.state,
    )
    return info, decision, found
