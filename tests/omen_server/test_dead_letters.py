"""Dead letters on disk: what is recorded, redriven, resolved and dropped, over restarts and beside a pause."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import astuple, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from contract.coverage import Coverage
from contract.errors import ContractError, Reason
from ledger import Position
from ledger.positions import sequence_of
from omen.v1.signal_service_pb2 import FieldViolation, ItemError
from omen_server.appends import place_of
from omen_server.dead_letters import DeadLetter, DeadLetters, Garbled, LetterFilter, Rejected
from omen_server.delivery_file import DeliveryFileUnreadable, open_delivery_file
from omen_server.pause import PauseSwitch, kept_pause

DAY = "2026-01-29"
SEGMENT, OTHER = bytes(range(16)), bytes(16)
NOON = datetime(2026, 1, 29, 12, tzinfo=UTC)
NOON_US = 1_769_688_000_000_000
SECOND_US = 1_000_000
BAD = ItemError(code=3, reason="INVALID_SIGNAL", violations=[FieldViolation(field="signal.title", description="no")])
ALL = LetterFilter()
EVERY_DAY = LetterFilter(partition=DAY)


@dataclass(frozen=True)
class Opened:
    letters: DeadLetters
    pause: PauseSwitch

    async def rejected(self, *indexes: int, error: ItemError = BAD, after_s: int = 0) -> None:
        at = NOON + timedelta(seconds=after_s)
        await self.letters.record([Rejected(position(index), error, at) for index in indexes])

    async def listed(self, picked: LetterFilter = ALL) -> list[DeadLetter]:
        return [letter for letter in await self.page(picked) if isinstance(letter, DeadLetter)]

    async def page(self, picked: LetterFilter = ALL) -> list[DeadLetter | Garbled]:
        return await self.letters.page(picked, 0, 1000)

    async def indexes(self, picked: LetterFilter = ALL) -> list[int]:
        return [letter.position.record_index for letter in await self.listed(picked)]


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[Opened]:
    async with open_delivery_file(directory / "delivery.db") as file:
        yield Opened(await DeadLetters.of(file), await PauseSwitch.of(file))


def position(index: int, *, segment_id: bytes = SEGMENT, partition: str = DAY, ordinal: int = 1) -> Position:
    return Position(partition, segment_id, sequence_of(ordinal, index))


def at(*positions: Position) -> LetterFilter:
    return LetterFilter(tuple((each.partition, each.sequence, b"") for each in positions))


def sql(directory: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(directory / "delivery.db")) as connection, connection:
        return connection.execute(statement).fetchall()


async def test_a_rejection_is_kept_over_a_restart_with_its_error_its_times_and_its_attempts(tmp_path: Path) -> None:
    worse = ItemError(code=3, reason="SIGNAL_ID_MISMATCH", message="another")
    async with opened(tmp_path) as now:
        await now.rejected(7)
        await now.rejected(7, error=worse, after_s=3)
    async with opened(tmp_path) as now:
        [kept] = await now.listed()
        assert place_of(position(7)) in now.letters
        assert place_of(position(8)) not in now.letters
    assert astuple(kept)[1:] == (position(7), worse, 2, NOON_US, NOON_US + 3 * SECOND_US, None, "", None)


async def test_they_are_listed_oldest_first_and_a_page_goes_on_behind_the_one_before(tmp_path: Path) -> None:
    async with opened(tmp_path) as now:
        for index in (5, 3, 9, 1):
            await now.rejected(index)
        await now.rejected(5)
        first = await now.letters.page(ALL, 0, 3)
        assert [letter.number for letter in first] == [1, 2, 3]
        assert (await now.indexes())[:3] == [5, 3, 9]
        await now.letters.resolved([place_of(position(index)) for index in (9, 1)])
        await now.rejected(2)
        [last] = await now.letters.page(ALL, first[-1].number, 3)
        assert isinstance(last, DeadLetter)
        assert last.position.record_index == 2


async def test_a_filter_picks_what_holds_all_of_its_conditions(tmp_path: Path) -> None:
    mismatch = ItemError(reason="SIGNAL_ID_MISMATCH")
    late = position(1, partition=f"{DAY}-late", segment_id=OTHER, ordinal=3)
    async with opened(tmp_path) as now:
        await now.rejected(1, 2)
        await now.rejected(3, error=mismatch)
        await now.letters.record([Rejected(late, BAD, NOON)])
        assert await now.indexes(LetterFilter(reason="SIGNAL_ID_MISMATCH")) == [3]
        assert await now.indexes(EVERY_DAY) == [1, 2, 3]
        assert await now.indexes(LetterFilter(reason="INVALID_SIGNAL", partition=f"{DAY}-late")) == [1]
        assert await now.indexes(at(position(2), late)) == [2, 1]
        assert await now.indexes(LetterFilter(((DAY, position(2).sequence, OTHER),))) == []
        assert await now.indexes(LetterFilter(((DAY, position(2).sequence, SEGMENT),))) == [2]
        assert await now.indexes(LetterFilter(())) == []
        assert await now.indexes(LetterFilter(at(position(2)).positions, reason="SIGNAL_ID_MISMATCH")) == []


async def test_a_redrive_is_told_once_survives_a_restart_and_ends_with_the_next_rejection(tmp_path: Path) -> None:
    told: list[list[Position]] = []
    async with opened(tmp_path) as now:
        now.letters.follow(lambda positions: told.append(list(positions)))
        await now.rejected(1, 2, 3)
        assert await now.letters.redrive(at(position(1), position(2)), NOON) == 2
        assert await now.letters.redrive(EVERY_DAY, NOON + timedelta(seconds=9)) == 3
        assert told == [[position(1), position(2)], [position(3)]]
    async with opened(tmp_path) as now:
        assert set(now.letters.redriving) == {place_of(position(index)) for index in (1, 2, 3)}
        assert [each.redrive_requested_at for each in await now.listed()] == [NOON_US, NOON_US, NOON_US + 9 * SECOND_US]
        assert dict(now.letters.counts) == {"waiting": 0, "redriving": 3, "dropped": 0}
        await now.rejected(2, after_s=20)
        assert set(now.letters.redriving) == {place_of(position(index)) for index in (1, 3)}
        [again] = await now.listed(at(position(2)))
        assert (again.attempt_count, again.redrive_requested_at) == (2, None)
        await now.letters.resolved([place_of(position(1)), place_of(position(99))])
        assert await now.indexes() == [2, 3]
        assert dict(now.letters.counts) == {"waiting": 1, "redriving": 1, "dropped": 0}


async def test_what_is_dropped_keeps_its_first_reason_however_often_it_is_dropped_or_rejected_again(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as now:
        await now.rejected(1, 2, 4)
        with capture_logs() as logs:
            assert await now.letters.drop(at(position(1), position(2)), "a test signal", NOON) == 2
        assert await now.letters.drop(EVERY_DAY, "all of it", NOON) == 1
        await now.rejected(1)
    async with opened(tmp_path) as now:
        assert now.letters.dropped(SEGMENT) == Coverage(((1, 2), (4, 4)))
        assert now.letters.dropped(OTHER) == Coverage()
        first = (await now.listed())[0]
        assert (first.attempt_count, first.drop_reason, first.dropped_at) == (2, "a test signal", NOON_US)
        assert dict(now.letters.counts) == {"waiting": 0, "redriving": 0, "dropped": 3}
    records = [f"{DAY}/{position(index).sequence}" for index in (1, 2)]
    [line] = logs
    assert (line["event"], line["log_level"]) == ("dead_letters_dropped", "warning")
    assert (line["count"], line["records"], line["reason"]) == (2, records, "a test signal")


async def test_what_was_dropped_is_redriven_by_its_position_alone_and_waits_again_when_it_fails(tmp_path: Path) -> None:
    async with opened(tmp_path) as now:
        await now.rejected(1, 2)
        await now.letters.drop(at(position(1)), "a test signal", NOON)
        assert await now.letters.redrive(EVERY_DAY, NOON) == 1
        assert await now.letters.redrive(at(position(1)), NOON) == 1
        assert now.letters.dropped(SEGMENT) == Coverage()
        await now.rejected(1)
        [first, _] = await now.listed()
        assert (first.drop_reason, first.dropped_at, first.redrive_requested_at) == ("", None, None)


async def test_dropping_what_is_being_sent_again_ends_the_redrive_and_what_riskcast_takes_all_the_same_is_gone(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as now:
        await now.rejected(1, 2)
        await now.letters.redrive(EVERY_DAY, NOON)
        assert await now.letters.drop(EVERY_DAY, "given up", NOON) == 2
        assert list(now.letters.redriving) == []
        await now.rejected(1)
        await now.letters.resolved([place_of(position(2))])
        assert now.letters.dropped(SEGMENT) == Coverage.of([1])
        assert await now.indexes() == [1]


async def test_of_what_riskcast_rejected_the_unknown_is_told_and_what_was_dropped_is_known(tmp_path: Path) -> None:
    async with opened(tmp_path) as now:
        await now.rejected(2, 3)
        await now.letters.drop(at(position(3)), "given up", NOON)
        rejected = {SEGMENT: Coverage(((1, 5),)), OTHER: Coverage.of([2])}
        assert now.letters.unknown(rejected) == {SEGMENT: Coverage(((1, 1), (4, 5))), OTHER: Coverage.of([2])}
        assert now.letters.unknown({SEGMENT: Coverage.of([2, 3])}) == {}


async def test_more_than_one_statement_takes_are_recorded_and_resolved(tmp_path: Path) -> None:
    async with opened(tmp_path) as now:
        await now.rejected(*range(1, 701))
        assert await now.indexes() == list(range(1, 701))
        await now.letters.resolved([place_of(position(index)) for index in range(1, 700)])
        assert await now.indexes() == [700]
        assert await now.letters.drop(at(*(position(index) for index in range(445, 701))), "x", NOON) == 1


async def test_a_disk_that_refuses_is_unavailable_and_changes_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as now:
        await now.rejected(1)
        for verb in ("INSERT", "UPDATE", "DELETE"):
            stop = f"CREATE TRIGGER no_{verb} BEFORE {verb} ON dead_letters BEGIN SELECT RAISE(ABORT, 'no'); END"
            sql(tmp_path, stop)
        for change in (
            now.rejected(2),
            now.letters.redrive(EVERY_DAY, NOON),
            now.letters.drop(EVERY_DAY, "x", NOON),
            now.letters.resolved([place_of(position(1))]),
        ):
            with pytest.raises(ContractError, match=r"delivery\.db cannot be used now") as caught:
                await change
            assert (caught.value.reason, caught.value.retry_delay_s) == (Reason.LEDGER_UNAVAILABLE, 5.0)
        assert await now.indexes() == [1]
        assert dict(now.letters.counts) == {"waiting": 1, "redriving": 0, "dropped": 0}
        assert list(now.letters.redriving) == []


async def test_whoever_leaves_meanwhile_leaves_file_and_memory_saying_the_same(tmp_path: Path) -> None:
    async with opened(tmp_path) as now:
        recording = asyncio.create_task(now.rejected(1))
        await asyncio.sleep(0)
        recording.cancel()
        with pytest.raises(asyncio.CancelledError):
            await recording
        await now.rejected(2)  # behind it
        assert await now.indexes() == [1, 2]
        assert dict(now.letters.counts) == {"waiting": 2, "redriving": 0, "dropped": 0}


async def test_a_redrive_is_made_though_whoever_asked_leaves(tmp_path: Path) -> None:
    told: list[Sequence[Position]] = []
    async with opened(tmp_path) as now:
        await now.rejected(1)
        now.letters.follow(told.append)
        asking = asyncio.create_task(now.letters.redrive(EVERY_DAY, NOON))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await now.rejected(2)  # behind it
        assert told == [[position(1)]]
        assert dict(now.letters.counts) == {"waiting": 1, "redriving": 1, "dropped": 0}


async def test_what_a_pruned_day_leaves_is_given_up_for_that_reason_and_never_sent_again(tmp_path: Path) -> None:
    other_day = position(1, segment_id=OTHER, partition=f"{DAY}-late")
    async with opened(tmp_path) as now:
        await now.rejected(1, 2, 3)
        await now.letters.record([Rejected(other_day, BAD, NOON)])
        await now.letters.drop(at(position(1)), "a test signal", NOON)
        await now.letters.redrive(at(position(2)), NOON)
        assert now.letters.kept_count([SEGMENT]) == 2
        async with now.letters.pruning(DAY, "it was pruned", NOON):
            redriving = asyncio.create_task(now.letters.redrive(at(position(3)), NOON))  # in that very moment
        with pytest.raises(ContractError) as caught:
            await redriving
        assert (caught.value.reason, caught.value.metadata["partition"]) == (Reason.PARTITION_PRUNED, DAY)
        with pytest.raises(ContractError):
            await now.letters.redrive(EVERY_DAY, NOON)
        await now.rejected(2, 4)  # sent before
        assert await now.letters.redrive(LetterFilter(reason="INVALID_SIGNAL"), NOON) == 1
        assert list(now.letters.redriving) == [place_of(other_day)]
    async with opened(tmp_path) as now:
        told = [letter.drop_reason for letter in await now.listed(EVERY_DAY)]
        assert told == ["a test signal", *["it was pruned"] * 3]
        assert now.letters.kept_count([SEGMENT]) == 0


async def test_what_is_not_pruned_in_the_end_keeps_its_dead_letters(tmp_path: Path) -> None:
    async with opened(tmp_path) as now:
        await now.rejected(1)
        with pytest.raises(OSError, match="no disk"):
            async with now.letters.pruning(DAY, "it was pruned", NOON):
                raise OSError("no disk")
        assert await now.letters.redrive(EVERY_DAY, NOON) == 1


async def test_a_file_from_before_dead_letters_keeps_its_pause(tmp_path: Path) -> None:
    sql(tmp_path, "CREATE TABLE pause (id INTEGER PRIMARY KEY CHECK (id = 1), reason TEXT NOT NULL, paused_at TEXT)")
    sql(tmp_path, "INSERT INTO pause VALUES (1, 'maintenance', '2026-01-29T12:00:00+00:00')")
    assert kept_pause(tmp_path / "delivery.db") is not None
    async with opened(tmp_path) as now:
        assert now.pause.current is not None
        assert now.pause.current.reason == "maintenance"
        await now.rejected(1)
    assert sql(tmp_path, "PRAGMA user_version") == [(2,)]
    async with opened(tmp_path) as now:
        assert now.pause.current is not None
        assert await now.indexes() == [1]


async def test_a_file_from_before_its_rows_had_checksums_keeps_its_dead_letters(tmp_path: Path) -> None:
    async with opened(tmp_path) as now:
        await now.rejected(1, 2)
        await now.letters.drop(at(position(2)), "a test signal", NOON)
        before = await now.listed()
    sql(tmp_path, "ALTER TABLE dead_letters DROP COLUMN checksum")
    sql(tmp_path, "PRAGMA user_version = 1")
    async with opened(tmp_path) as now:
        assert await now.page() == before
        assert await now.letters.redrive(EVERY_DAY, NOON) == 1


@pytest.mark.parametrize(
    "garbling",
    [
        "number = 7",
        "partition = '2026-01-28'",
        "segment_id = zeroblob(16)",
        "segment_ordinal = 2",
        "record_index = 9",
        "reason = 'NO'",
        "rejection = x''",
        "attempt_count = 2",
        "first_rejected_at = 0",
        "last_rejected_at = 0",
        "redrive_requested_at = 0",
        "drop_reason = '0'",
        "dropped_at = 0, redrive_requested_at = NULL",
        "checksum = NULL",
        "partition = CAST(x'ffff2026' AS TEXT)",
    ],
)
async def test_a_row_that_is_garbled_is_named_and_none_any_more_and_no_number_is_given_twice(
    tmp_path: Path, garbling: str
) -> None:
    async with opened(tmp_path) as now:
        await now.rejected(1, 2, 3, 4)
        await now.letters.redrive(at(position(1), position(3)), NOON)
        await now.letters.resolved([place_of(position(4))])
        intact = [await now.listed(at(position(index))) for index in (1, 2)]
    sql(tmp_path, f"UPDATE dead_letters SET {garbling} WHERE record_index = 3")
    with capture_logs() as lines:
        async with opened(tmp_path) as now:
            assert [[letter] for letter in await now.page()] == intact
            assert list(now.letters.redriving) == [place_of(position(1))]
            told = {SEGMENT: Coverage.up_to(3)}
            assert now.letters.unknown(told) == {SEGMENT: Coverage.of([3])}
            await now.rejected(3)
            assert [letter.number for letter in await now.listed()] == [1, 2, 5]
    assert [line["event"] for line in lines] == ["dead_letter_unreadable"]
    assert lines[0]["number"] == (7 if "number" in garbling else 3)


def moved_aside(directory: Path) -> None:
    for path in directory.iterdir():
        path.rename(directory.parent / path.name)


def newer(path: Path) -> None:
    sql(path.parent, "PRAGMA user_version = 99")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4096])


def garbled(path: Path) -> None:
    path.write_bytes(b"xxxx" * 1024)


def without_a_column(path: Path) -> None:
    sql(path.parent, "ALTER TABLE dead_letters RENAME COLUMN dropped_at TO gone")


def with_a_garbled_pause(path: Path) -> None:
    sql(path.parent, "INSERT INTO pause VALUES (1, 'maintenance', 'yesterday')")


def with_a_garbled_page(path: Path) -> None:
    """Of an index, which nothing reads at the start."""
    [(page,)] = sql(path.parent, "SELECT rootpage FROM sqlite_master WHERE name = 'dead_letters_by_place'")
    assert isinstance(page, int)
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"x" * 4096)


@pytest.mark.parametrize("spoil", [newer, cut, garbled, without_a_column, with_a_garbled_pause, with_a_garbled_page])
async def test_a_file_that_cannot_be_read_is_refused_in_one_line_and_may_be_moved_aside(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    async with opened(tmp_path) as now:
        await now.rejected(1)
    spoil(tmp_path / "delivery.db")
    with pytest.raises(DeliveryFileUnreadable) as caught:
        async with opened(tmp_path):
            pass
    assert str(caught.value).startswith(f"{tmp_path / 'delivery.db'}: whether delivery is paused, and which dead")
    assert "\n" not in str(caught.value)
    moved_aside(tmp_path)
    async with opened(tmp_path) as now:
        assert await now.listed() == []
