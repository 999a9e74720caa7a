"""delivery.db as a file: what is confirmed is found by the next start."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from contract.errors import ContractError, Reason
from omen_server.delivery_file import DeliveryFile, Rows, open_delivery_file
from omen_server.pause import Pause, kept_pause
from tests.omen_server.test_dead_letters import EVERY_DAY, NOON, opened, position


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
