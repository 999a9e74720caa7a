"""Judges a history: what clients tried and were told, against what the ledger and RiskCast hold in the end.

H1 every acknowledged emit is in the ledger, bytes equal, where it was said to be; positions in order, no gap
H2 RiskCast stores exactly the ids of the ledger minus its dead letters, one row each, with bytes of the ledger
H3 nothing anywhere that no client tried, nothing that was refused
H4 an ack_id is the same in every answer and in the store
H5 a stream that was cut and resumed tells each place once, in order, none left out
H6 what was tried after the last fault was acknowledged
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum


class Told(Enum):
    """How an attempt ended for its client."""

    ACKNOWLEDGED = "it is in the ledger"
    REFUSED = "nothing was stored"
    UNKNOWN = "a time-out, a reset, a process that died"


@dataclass(frozen=True)
class Attempt:
    """`payload` is what was sent, complete, so that these very bytes are appended; `place` and `ack_id` are what the
    answer said, the latter "" when RiskCast was not heard of."""

    signal_id: str
    payload: bytes
    told: Told
    place: tuple[str, int] | None = None  # partition, sequence
    ack_id: str = ""
    is_after_the_last_fault: bool = False


@dataclass(frozen=True)
class Held:
    """A record of the ledger."""

    partition: str
    sequence: int
    signal_id: str
    payload: bytes


@dataclass(frozen=True)
class Row:
    """A signal that RiskCast stores."""

    signal_id: str
    ack_id: str
    payload: bytes


@dataclass(frozen=True)
class Stream:
    """All that one stream said, over every cut: how many places it would tell of, and those it told, in order."""

    name: str
    announced_count: int
    told: Sequence[tuple[str, int]]  # partition, sequence


@dataclass(frozen=True)
class History:
    """`beside`: payloads that RiskCast may have from elsewhere, from a client or from what a ledger has lost since."""

    attempts: Sequence[Attempt]
    ledger: Sequence[Held]
    rows: Sequence[Row]
    dead_letters: Collection[str] = ()
    streams: Sequence[Stream] = ()
    beside: Collection[bytes] = ()


def flaws(history: History) -> list[str]:
    """Every way in which a history breaks an invariant, by its number; [] when it breaks none."""
    return [*h1(history), *h2(history), *h3(history), *h4(history), *h5(history), *h6(history)]


def h1(history: History) -> Iterator[str]:
    held = {(record.partition, record.sequence): record.payload for record in history.ledger}
    for attempt in history.attempts:
        if attempt.told is not Told.ACKNOWLEDGED:
            continue
        if attempt.place is None or attempt.place not in held:
            yield f"H1 {attempt.signal_id}: acknowledged at {attempt.place}, not in the ledger"
        elif held[attempt.place] != attempt.payload:
            yield f"H1 {attempt.signal_id}: other bytes at {attempt.place}"
    sequences: defaultdict[str, list[int]] = defaultdict(list)
    for record in history.ledger:
        sequences[record.partition].append(record.sequence)
    for partition, found in sequences.items():
        for before, sequence in zip([0, *found], found, strict=False):
            same_segment = sequence >> 32 == before >> 32
            if sequence != before + 1 if same_segment else sequence & 0xFFFFFFFF != 1 or sequence < before:
                yield f"H1 {partition}: {sequence:#x} comes after {before:#x}"


def h2(history: History) -> Iterator[str]:
    in_ledger: defaultdict[str, set[bytes]] = defaultdict(set)
    for record in history.ledger:
        in_ledger[record.signal_id].add(record.payload)
    stored = Counter(row.signal_id for row in history.rows)
    for signal_id in in_ledger.keys() - stored.keys() - set(history.dead_letters):
        yield f"H2 {signal_id}: in the ledger, not stored"
    for signal_id, count in stored.items():
        if count > 1:
            yield f"H2 {signal_id}: {count} rows"
    for row in history.rows:
        if row.payload not in in_ledger[row.signal_id] and row.payload not in history.beside:
            yield f"H2 {row.signal_id}: stored, not from the ledger"


def h3(history: History) -> Iterator[str]:
    tried = {attempt.payload for attempt in history.attempts if attempt.told is not Told.REFUSED} | {*history.beside}
    for payload, where in [(record.payload, record) for record in history.ledger]:
        if payload not in tried:
            yield f"H3 {where.signal_id}: in the ledger, refused or never tried"
    for row in history.rows:
        if row.payload not in tried:
            yield f"H3 {row.signal_id}: stored, refused or never tried"


def h4(history: History) -> Iterator[str]:
    acks: defaultdict[str, set[str]] = defaultdict(set)
    for attempt in history.attempts:
        acks[attempt.signal_id] |= {attempt.ack_id} - {""}
    for row in history.rows:
        acks[row.signal_id].add(row.ack_id)
    for signal_id, found in acks.items():
        if len(found) > 1:
            yield f"H4 {signal_id}: {len(found)} ack_ids"


def h5(history: History) -> Iterator[str]:
    for stream in history.streams:
        places = set(stream.told)
        if repeat_count := len(stream.told) - len(places):
            yield f"H5 {stream.name}: {repeat_count} told twice"
        if (gap_count := stream.announced_count - len(places)) > 0:
            yield f"H5 {stream.name}: {gap_count} of {stream.announced_count} left out"
        if [*stream.told] != sorted(stream.told):
            yield f"H5 {stream.name}: not in order"


def h6(history: History) -> Iterator[str]:
    after = [attempt for attempt in history.attempts if attempt.is_after_the_last_fault]
    if not after:
        yield "H6 nothing was tried after the last fault"
    for attempt in after:
        if attempt.told is not Told.ACKNOWLEDGED or not attempt.ack_id:
            yield f"H6 {attempt.signal_id}: {attempt.told.value}, though no fault was left"
