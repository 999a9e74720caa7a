"""What became of a segment that its writer did not finish: clean, torn tail or damaged, decided by evidence.

Bytes that cannot be read are a torn tail unless something proves that they were once durable. Five things can prove
it: the durable_offset of a valid frame, the successor's HEADER, a SEAL, the segment's own FOOTER, and what is left of
it. All five say the same: "the first n bytes of this file were durable". So the decision needs two facts, the gaps and
the furthest n.

Pure: what was scanned in, what to do out. `inspection.py` gathers, `takeover.py` does it.
"""

from dataclasses import dataclass
from enum import Enum

from ledger.files.bookends import Pin
from ledger.files.head import Head
from ledger.files.scan import Remnant, Scan
from ledger.format import HEADER_BYTES
from ledger.positions import SegmentState


class Outcome(Enum):
    CLEAN = "clean"
    TORN_TAIL = "torn tail"
    DAMAGED = "damaged"


class Action(Enum):
    LEAVE = "leave"  # nothing may or need be changed
    FREEZE = "freeze"  # append a FOOTER
    TRUNCATE_AND_FREEZE = "truncate and freeze"  # copy the tail aside first


@dataclass(frozen=True, slots=True)
class Evidence:
    """Byte offsets within one segment.

    `gaps` lie before `limit`, in order, each with the number of records known before it. `durable_end` is the furthest
    offset proved durable; it may lie beyond `file_bytes`. `limit` is where the segment is said to end (by pin or
    FOOTER: then `limit_record_count` says how many records it holds), otherwise where the file ends.
    """

    file_bytes: int
    gaps: tuple[tuple[int, int, int], ...]
    known_count: int
    durable_end: int
    limit: int
    limit_record_count: int | None


@dataclass(frozen=True, slots=True)
class Decision:
    """`byte_length` is where the segment ends from now on, `record_count` how many records it is known to have held."""

    outcome: Outcome
    action: Action
    byte_length: int
    record_count: int

    @property
    def state(self) -> SegmentState:
        return SegmentState.DAMAGED if self.outcome is Outcome.DAMAGED else SegmentState.FROZEN


def decide(evidence: Evidence) -> Decision:
    """The table of FORMAT.md, "Opening"."""
    ends_by_word = evidence.limit_record_count is not None
    first_bad = evidence.gaps[0][0] if evidence.gaps else None
    is_short = evidence.file_bytes < evidence.durable_end or evidence.known_count < (evidence.limit_record_count or 0)
    if is_short or (first_bad is not None and first_bad < evidence.durable_end):
        return Decision(Outcome.DAMAGED, Action.LEAVE, *_damaged_extent(evidence))
    if first_bad is not None:
        return Decision(Outcome.TORN_TAIL, Action.TRUNCATE_AND_FREEZE, first_bad, evidence.gaps[0][2])
    if ends_by_word and evidence.file_bytes > evidence.limit:
        # A FOOTER is there, or bytes that do not exist by the successor's word: neither is ours to change.
        return Decision(Outcome.CLEAN, Action.LEAVE, evidence.limit, evidence.known_count)
    return Decision(Outcome.CLEAN, Action.FREEZE, evidence.limit, evidence.known_count)


def _damaged_extent(evidence: Evidence) -> tuple[int, int]:
    if evidence.limit_record_count is not None:
        return evidence.limit, max(evidence.limit_record_count, evidence.known_count)
    for offset, _, known_before in evidence.gaps:
        if offset >= evidence.durable_end:
            return offset, known_before
    return max(evidence.limit, evidence.durable_end), evidence.known_count


def weigh(head: Head, found: Scan, file_bytes: int, pin: Pin | None) -> Evidence:
    """Gathers what the head, the frames and the pin say into the few facts that decide."""
    limit, limit_count = found.end, None
    if pin:
        limit, limit_count = pin.byte_length, pin.record_count
    elif found.footer:
        limit, limit_count = found.footer.byte_length, found.footer.record_count
    elif found.remnant and found.gaps[0][0] < found.remnant.byte_length:
        limit, limit_count = found.remnant.byte_length, _credible_count(found, found.remnant)
    head_gaps = tuple((start, end, 0) for start, end in head.damaged)
    gaps = tuple(gap for gap in (*head_gaps, *found.gaps) if gap[0] < limit)
    # A file gets its name only after magic and both HEADER copies are durable, readable or not.
    named_end = head.end if head.header else head.end + HEADER_BYTES
    durable_end = max(named_end, found.durable_offset if limit_count is None else limit)
    return Evidence(file_bytes, gaps, found.known_count, durable_end, limit, limit_count)


def _credible_count(found: Scan, remnant: Remnant) -> int:
    """Each record that is missing before the FOOTER has taken up a header at least: more are not believed."""
    room_bytes = sum(max(0, min(end, remnant.byte_length) - start) for start, end, _ in found.gaps)
    told = remnant.record_count or 0
    return told if found.known_count <= told <= found.known_count + room_bytes // HEADER_BYTES else found.known_count
