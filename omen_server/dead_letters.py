"""Records that RiskCast rejected: durable in delivery.db, while their payloads stay in the ledger.

              record                redrive                  resolved
    (none) ───────────► waiting ◄──────────────► redriving ───────────► (none)
                           │         record          │
                           └────────► dropped ◄──────┘  drop; rejected again it stays dropped

RiskCast settles a rejection before OMEN hears of it, so a crash in between leaves none here: of what RiskCast says it
rejected, `unknown` tells delivery what to send again. What was dropped is redriven when its position is picked.

Of a partition that was pruned nothing can be sent again: what it leaves is dropped, and is not redriven any more.
"""

import asyncio
import enum
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import structlog

from contract.coverage import Coverage
from contract.errors import timestamp
from ledger import Position
from ledger.positions import RECORD_INDEX_MAX, sequence_of
from omen.v1.signal_service_pb2 import ItemError
from omen_server.appends import Place, place_of
from omen_server.delivery_file import IS_INTACT, DeliveryFile, Rows
from omen_server.journal import partition_pruned

OnRedrive = Callable[[Sequence[Position]], None]

PLACES_LOGGED_MAX = 5  # of what can be thousands
ROWS_PER_STATEMENT = 256  # a message of records; far below SQLite's limit of parameters

POSITION = "partition, segment_id, segment_ordinal, record_index"

LOAD = "SELECT segment_id, record_index, redrive_requested_at, dropped_at FROM dead_letters"

# What was dropped stays dropped, however often it is rejected again.
RECORD = f"""INSERT INTO dead_letters
    ({POSITION}, reason, rejection, attempt_count, first_rejected_at, last_rejected_at) VALUES {{rows}}
    ON CONFLICT (segment_id, record_index) DO UPDATE SET reason = excluded.reason, rejection = excluded.rejection,
        attempt_count = attempt_count + 1, last_rejected_at = excluded.last_rejected_at, redrive_requested_at = NULL
        WHERE {IS_INTACT}
    RETURNING segment_id, record_index, redrive_requested_at, dropped_at"""

RESOLVE = "DELETE FROM dead_letters WHERE (segment_id, record_index) IN (VALUES {rows})"

REDRIVE = f"""UPDATE dead_letters SET redrive_requested_at = coalesce(redrive_requested_at, ?),
    drop_reason = '', dropped_at = NULL WHERE {IS_INTACT} AND {{picked}} RETURNING {POSITION}"""

DROP = f"""UPDATE dead_letters SET redrive_requested_at = NULL, drop_reason = ?, dropped_at = ?
    WHERE dropped_at IS NULL AND {IS_INTACT} AND {{picked}} RETURNING {POSITION}"""

LIST = f"""SELECT {IS_INTACT}, number, {POSITION}, rejection, attempt_count, first_rejected_at, last_rejected_at,
        redrive_requested_at, drop_reason, dropped_at
    FROM dead_letters WHERE number > ? AND {{picked}} ORDER BY number LIMIT ?"""

log = structlog.get_logger(__name__)


class LetterState(enum.StrEnum):
    WAITING = "waiting"
    REDRIVING = "redriving"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Rejected:
    """What RiskCast answered for a record, and when."""

    position: Position
    error: ItemError
    at: datetime


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """`number` orders them by when they were first rejected. Times are microseconds since the epoch."""

    number: int
    position: Position
    rejection: ItemError
    attempt_count: int
    first_rejected_at: int
    last_rejected_at: int
    redrive_requested_at: int | None
    drop_reason: str
    dropped_at: int | None


@dataclass(frozen=True, slots=True)
class Garbled:
    """One that delivery.db does not tell any more as it was told."""

    number: int


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Every condition that is set must hold. Of `positions` any: partition, sequence, and segment_id where it is known.

    None asks for no position; an empty tuple is one that no record has.
    """

    positions: tuple[tuple[str, int, bytes], ...] | None = None
    reason: str = ""
    partition: str = ""

    @property
    def partitions(self) -> set[str]:
        """Those that it names."""
        return {partition for partition, _, _ in self.positions or ()} | ({self.partition} if self.partition else set())


class DeadLetters:
    """All on one event loop. A change is on disk before its method returns, and is made though the caller leaves.

    Each method raises ContractError LEDGER_UNAVAILABLE when the disk refuses; what it has not changed stays as it was.
    """

    def __init__(self, file: DeliveryFile, rows: Rows) -> None:
        self._file = file
        self._states: defaultdict[bytes, dict[int, LetterState]] = defaultdict(dict)
        self._counts: dict[str, int] = dict.fromkeys(LetterState, 0)
        self._redriving: set[Place] = set()
        self._followers: list[OnRedrive] = []
        self._pruned: dict[str, str] = {}  # each partition with why its dead letters are dropped
        self._unreadable: set[int] = set()
        self._changing = asyncio.Lock()
        self._note(rows)

    @classmethod
    async def of(cls, file: DeliveryFile) -> Self:
        """As they were left. Raises DeliveryFileUnreadable."""
        return cls(file, await file.load(LOAD, lambda rows: rows))

    @property
    def counts(self) -> Mapping[str, int]:
        """How many are in which state, now and whenever it is looked at."""
        return self._counts

    @property
    def redriving(self) -> Collection[Place]:
        """To be sent although RiskCast has settled them."""
        return self._redriving

    def __len__(self) -> int:
        return sum(self._counts.values())

    def __contains__(self, place: Place) -> bool:
        segment_id, index = place
        return segment_id in self._states and index in self._states[segment_id]

    def unknown(self, rejected: Mapping[bytes, Coverage]) -> dict[bytes, Coverage]:
        """Of these records, by segment, those that are none."""
        unknown = {id_: found - Coverage.of(self._states.get(id_, ())) for id_, found in rejected.items()}
        return {segment_id: found for segment_id, found in unknown.items() if found.intervals}

    def dropped(self, segment_id: bytes) -> Coverage:
        """The records of a segment that were given up."""
        states = self._states.get(segment_id, {})
        return Coverage.of(index for index, state in states.items() if state is LetterState.DROPPED)

    def kept_count(self, segment_ids: Iterable[bytes]) -> int:
        """How many of these segments nobody has given up."""
        states = (state for id_ in segment_ids for state in self._states.get(id_, {}).values())
        return sum(state is not LetterState.DROPPED for state in states)

    @asynccontextmanager
    async def pruning(self, partition: str, reason: str, at: datetime) -> AsyncIterator[None]:
        """Within, no dead letter changes; left without an error, those of the partition are given up for good.

        Not to be cancelled. What the disk refuses then happens when it is said once more.
        """
        async with self._changing:
            yield
            self._pruned[partition] = reason
            await self._bury(partition, at)

    def follow(self, on_redrive: OnRedrive) -> None:
        """From now on call `on_redrive` with what is to be sent again, once for each redrive that is asked for."""
        self._followers.append(on_redrive)

    async def record(self, rejected: Iterable[Rejected]) -> None:
        """RiskCast rejected these: each is a dead letter from now on, or was tried once more."""
        await asyncio.shield(self._record(list(rejected)))

    async def resolved(self, places: Iterable[Place]) -> None:
        """RiskCast has these: they are dead letters no longer. Others are none already."""
        if known := [place for place in places if place in self]:
            await asyncio.shield(self._resolve(known))

    async def redrive(self, picked: LetterFilter, at: datetime) -> int:
        """Send these again; how many are being sent. What was given up only where its position is picked.

        Raises ContractError PARTITION_PRUNED when a partition is named whose records were removed.
        """
        return await asyncio.shield(self._redrive(picked, at))

    async def drop(self, picked: LetterFilter, reason: str, at: datetime) -> int:
        """Give these up; how many. Those that had been keep their reason."""
        return await asyncio.shield(self._drop(picked, reason, at))

    async def page(self, picked: LetterFilter, after: int, limit: int) -> list[DeadLetter | Garbled]:
        """The first so many behind that number."""
        condition, values = _condition(picked)
        return list(map(self._letter, await self._file.read(LIST.format(picked=condition), (after, *values, limit))))

    async def _record(self, rejected: list[Rejected]) -> None:
        async with self._changing:
            for start in range(0, len(rejected), ROWS_PER_STATEMENT):
                part = rejected[start : start + ROWS_PER_STATEMENT]
                values = [_values(each) for each in part]
                told = await self._file.execute(RECORD.format(rows=_marks(values)), _flat(values))
                for place in (place_of(each.position) for each in part):
                    if place in self._redriving:  # a row garbled meanwhile tells nothing, and would be sent for ever
                        self._set(place, LetterState.WAITING)
                self._note(told)
            for partition in self._pruned.keys() & {each.position.partition for each in rejected}:  # sent before that
                await self._bury(partition, rejected[-1].at)

    async def _resolve(self, places: list[Place]) -> None:
        async with self._changing:
            for start in range(0, len(places), ROWS_PER_STATEMENT):
                part = places[start : start + ROWS_PER_STATEMENT]
                await self._file.execute(RESOLVE.format(rows=_marks(part)), _flat(part))
                for place in part:
                    self._set(place, None)
        log.info("dead_letters_resolved", count=len(places))

    async def _redrive(self, picked: LetterFilter, at: datetime) -> int:
        condition, values = _condition(picked)
        if picked.positions is None:
            condition = f"dropped_at IS NULL AND {condition}"
        async with self._changing:
            if gone := self._pruned.keys() & picked.partitions:
                raise partition_pruned(min(gone))
            rows = await self._file.execute(REDRIVE.format(picked=condition), (_microseconds(at), *values))
            asked = [position for row in rows if place_of(position := _position(row)) not in self._redriving]
            for position in asked:
                self._set(place_of(position), LetterState.REDRIVING)
            if asked:
                log.info("dead_letters_redriven", count=len(asked), records=_named(asked))
                for follower in self._followers:
                    follower(asked)
        return len(rows)

    async def _drop(self, picked: LetterFilter, reason: str, at: datetime) -> int:
        async with self._changing:
            return await self._give_up(picked, reason, at)

    async def _bury(self, partition: str, at: datetime) -> None:
        if self._counts[LetterState.DROPPED] < len(self):
            await self._give_up(LetterFilter(partition=partition), self._pruned[partition], at)

    async def _give_up(self, picked: LetterFilter, reason: str, at: datetime) -> int:
        condition, values = _condition(picked)
        rows = await self._file.execute(DROP.format(picked=condition), (reason, _microseconds(at), *values))
        dropped = [_position(row) for row in rows]
        for position in dropped:
            self._set(place_of(position), LetterState.DROPPED)
        if dropped:
            log.warning("dead_letters_dropped", count=len(dropped), records=_named(dropped), reason=reason)
        return len(dropped)

    def _letter(self, row: Sequence[Any]) -> DeadLetter | Garbled:
        """What was garbled since the start is logged once."""
        is_intact, number, *place, rejection = row[:7]
        if is_intact:
            return DeadLetter(number, _position(place), ItemError.FromString(rejection), *row[7:])
        if number not in self._unreadable:
            self._unreadable.add(number)
            log.error("dead_letter_unreadable", number=number)
        return Garbled(number)

    def _note(self, rows: Rows) -> None:
        for segment_id, index, redrive_requested_at, dropped_at in rows:
            self._set((segment_id, index), _state(redrive_requested_at, dropped_at))

    def _set(self, place: Place, state: LetterState | None) -> None:
        """None: it is none any more."""
        segment_id, index = place
        was = self._states[segment_id].pop(index, None)
        if was is not None:
            self._counts[was] -= 1
        if state is not None:
            self._states[segment_id][index] = state
            self._counts[state] += 1
        if state is LetterState.REDRIVING:
            self._redriving.add(place)
        else:
            self._redriving.discard(place)


def _state(redrive_requested_at: int | None, dropped_at: int | None) -> LetterState:
    if dropped_at is not None:
        return LetterState.DROPPED
    return LetterState.WAITING if redrive_requested_at is None else LetterState.REDRIVING


def _condition(picked: LetterFilter) -> tuple[str, list[object]]:
    conditions = ["TRUE"]
    values: list[object] = []
    for column, value in (("reason", picked.reason), ("partition", picked.partition)):
        if value:
            conditions.append(f"{column} = ?")
            values.append(value)
    if picked.positions is not None:
        any_of = [_place_condition(segment_id) for _, _, segment_id in picked.positions]
        conditions.append(f"({' OR '.join(any_of) or 'FALSE'})")
        for partition, sequence, segment_id in picked.positions:
            values += [partition, sequence >> 32, sequence & RECORD_INDEX_MAX, *([segment_id] if segment_id else [])]
    return " AND ".join(conditions), values


def _place_condition(segment_id: bytes) -> str:
    """One that the index by place answers, also as one of many."""
    place = "partition = ? AND segment_ordinal = ? AND record_index = ?"
    return f"{place} AND segment_id = ?" if segment_id else place


def _values(rejected: Rejected) -> tuple[object, ...]:
    position, error, at = rejected.position, rejected.error, _microseconds(rejected.at)
    place = (position.partition, position.segment_id, position.segment_ordinal, position.record_index)
    return (*place, error.reason, error.SerializeToString(), 1, at, at)


def _microseconds(at: datetime) -> int:
    return timestamp(at).ToMicroseconds()


def _marks(rows: Sequence[tuple[object, ...]]) -> str:
    return ", ".join([f"({', '.join('?' * len(rows[0]))})"] * len(rows))


def _flat(rows: Iterable[tuple[object, ...]]) -> list[object]:
    return [value for row in rows for value in row]


def _position(place: Sequence[Any]) -> Position:
    partition, segment_id, ordinal, index = place
    return Position(partition, segment_id, sequence_of(ordinal, index))


def _named(positions: Sequence[Position]) -> list[str]:
    return [f"{position.partition}/{position.sequence}" for position in positions[:PLACES_LOGGED_MAX]]
