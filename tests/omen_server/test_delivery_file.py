"""delivery.db as a file: what is confirmed is found by the next start."""

import asyncio
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from contract.errors import ContractError, Reason
from omen_server.appends import place_of
from omen_server.delivery_file import DeliveryFile, DeliveryFileUnreadable, Rows, open_delivery_file
from omen_server.pause import Pause, kept_pause
from tests.omen_server.test_dead_letters import EVERY_DAY, NOON, at, opened, position, sql


async def test_commits_are_in_the_log_and_synced_before_anybody_is_told(tmp_path: Path) -> None:
    async with open_delivery_file(tmp_path / "delivery.db") as file:
        assert await file.execute("PRAGMA journal_mode") == [("wal",)]
        assert await file.execute("PRAGMA synchronous") == [(2,)]


async def test_a_pause_is_made_though_whoever_asked_leaves(tmp_path: Path) -> None:
    async with opened(tmp_path) as now:
        asking = asyncio.create_task(now.pause.pause("maintenance", NOON))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await now.rejected(1)  # behind it
        assert now.pause.current == kept_pause(tmp_path / "delivery.db") == Pause("maintenance", NOON)


def deleted(path: Path) -> None:
    for each in (path, log_of(path)):
        each.unlink()


def replaced(path: Path) -> None:
    path.with_name("another").write_bytes(path.read_bytes())
    path.with_name("another").replace(path)


def without_its_log(path: Path) -> None:
    log_of(path).unlink()


def log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


@pytest.mark.parametrize("spoil", [deleted, replaced, without_its_log])
async def test_what_a_restart_would_not_find_is_refused_and_said_once(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    path = tmp_path / "delivery.db"
    async with opened(tmp_path) as now:
        await now.rejected(1)
        spoil(path)
        with capture_logs() as lines:
            for change in (now.rejected(2), now.letters.drop(EVERY_DAY, "x", NOON), now.pause.pause("why", NOON)):
                with pytest.raises(ContractError, match=r"delivery\.db cannot be used now") as caught:
                    await change
                assert (caught.value.reason, caught.value.retry_delay_s) == (Reason.LEDGER_UNAVAILABLE, 5.0)
        assert [line["event"] for line in lines] == ["delivery_file_refused"]
        assert str(path) in lines[0]["error"]
        assert now.pause.current is None
        assert [(letter.position, letter.drop_reason) for letter in await now.listed()] == [(position(1), "")]


async def test_a_file_that_is_put_back_takes_changes_again(tmp_path: Path) -> None:
    path = tmp_path / "delivery.db"
    async with opened(tmp_path) as now:
        path.rename(tmp_path / "away")
        with pytest.raises(ContractError):
            await now.rejected(1)
        (tmp_path / "away").rename(path)
        await now.rejected(1)
    async with opened(tmp_path) as now:
        assert await now.indexes() == [1]


async def test_nothing_is_confirmed_that_went_into_a_file_that_was_deleted_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = DeliveryFile.read

    async def deleted_behind(file: DeliveryFile, query: str, values: Sequence[object] = ()) -> Rows:
        deleted(tmp_path / "delivery.db")
        return await real(file, query, values)

    async with opened(tmp_path) as now:
        monkeypatch.setattr(DeliveryFile, "read", deleted_behind)
        with pytest.raises(ContractError):
            await now.rejected(1)
        assert len(now.letters) == 0


PAGE_BYTES = 4096
FLIP_COUNT = 200


def flips_of_index(path: Path, index: str) -> list[bytes]:
    """The file with one bit of the page of that index flipped, each time another one."""
    [(page,)] = sql(path.parent, f"SELECT rootpage FROM sqlite_master WHERE name = '{index}'")
    assert isinstance(page, int)
    whole = path.read_bytes()
    used = [offset for offset in range((page - 1) * PAGE_BYTES, page * PAGE_BYTES) if whole[offset]]
    chosen = random.Random(886).sample([(offset, bit) for offset in used for bit in range(8)], FLIP_COUNT)
    return [whole[:at_] + bytes([whole[at_] ^ 1 << bit]) + whole[at_ + 1 :] for at_, bit in chosen]


@pytest.mark.parametrize("index", ["dead_letters_by_place", "sqlite_autoindex_dead_letters_1"])
async def test_a_flipped_bit_of_an_index_makes_nothing_happen_to_another_dead_letter(
    tmp_path: Path, index: str
) -> None:
    everything = list(range(1, 21))
    async with opened(tmp_path) as now:
        await now.rejected(*everything)
    path = tmp_path / "delivery.db"
    healed_count = 0
    for flipped in flips_of_index(path, index):
        path.write_bytes(flipped)
        try:
            async with opened(tmp_path) as now:
                await now.rejected(9)
                await now.letters.resolved([place_of(position(7))])
                assert await now.letters.drop(at(position(5)), "a test signal", NOON) == 1
                letters = {letter.position.record_index: letter for letter in await now.listed()}
        except DeliveryFileUnreadable:
            continue
        healed_count += 1
        assert list(letters) == [number for number in everything if number != 7]
        assert [number for number, letter in letters.items() if letter.dropped_at] == [5]
        assert [number for number, letter in letters.items() if letter.attempt_count > 1] == [9]
        assert sql(tmp_path, "PRAGMA integrity_check") == [("ok",)]
    assert healed_count > FLIP_COUNT / 2


async def test_one_that_is_garbled_while_it_is_redriven_waits_once_it_is_rejected(tmp_path: Path) -> None:
    async with opened(tmp_path) as now:
        await now.rejected(1, 2, 3)
        await now.letters.drop(at(position(3)), "a test signal", NOON)
        await now.letters.redrive(at(position(1), position(2)), NOON)
        sql(tmp_path, "UPDATE dead_letters SET checksum = 1 WHERE record_index IN (1, 3)")
        await now.rejected(1, 3)
        assert list(now.letters.redriving) == [place_of(position(2))]
        assert dict(now.letters.counts) == {"waiting": 1, "redriving": 1, "dropped": 1}
