"""Either side restored from an older backup under load: RiskCast is refilled; a ledger that went back never looks
healthy, and never stops the flow."""

import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from ledger import LedgerReader
from serving.console import Exit
from tests.faults.history import Attempt, History, flaws, h4
from tests.faults.load import Load, history_of, rows_of, under_load, until_drained
from tests.faults.operators import reconciled, told
from tests.system.processes import Pair, pair, target_of

WORKERS, PAUSE_S = 8, 0.02
DELIVERED_BETWEEN = 80


@asynccontextmanager
async def loaded(directory: Path) -> AsyncIterator[tuple[Pair, Load]]:
    """Both servers under load. Left, with all delivered, when both have stopped."""
    async with pair(directory) as servers:
        async with under_load(target_of(servers.omen), WORKERS, PAUSE_S) as load:
            await load.until_delivered(DELIVERED_BETWEEN)
            yield servers, load
            load.is_after_the_last_fault = True
            await load.until_delivered(2 * WORKERS)
        await until_drained(target_of(servers.omen))
        assert await servers.omen.stop() == 0
        assert await servers.riskcast.stop() == 0


async def test_a_riskcast_restored_from_an_older_backup_is_refilled_with_the_same_ack_ids(tmp_path: Path) -> None:
    backup = tmp_path / "backup.db"
    async with loaded(tmp_path) as (servers, load):
        await told("riskcast_server", "db", "backup", str(backup), **servers.riskcast.settings)
        await load.until_delivered(DELIVERED_BETWEEN)
        assert await servers.riskcast.stop() == 0
        assert len(rows_of(backup)) < len(rows_of(servers.database))
        shutil.copy(backup, servers.database)
        await servers.riskcast.start()
        await until_drained(target_of(servers.omen))
    assert flaws(history_of(load.attempts, servers.ledger, servers.database)) == []


@pytest.mark.parametrize(
    ("is_restarted", "reason"), [(False, "LEDGER_REGRESSED"), (True, "LEDGER_FORKED")], ids=["regressed", "forked"]
)
async def test_a_ledger_restored_from_an_older_backup_is_partial_while_the_flow_goes_on(
    tmp_path: Path, is_restarted: bool, reason: str
) -> None:
    """Forked, when it began another segment after the backup, and another one in its place after the restoration."""
    backup = tmp_path / "backup"
    async with loaded(tmp_path) as (servers, load):
        servers.riskcast.settings["RISKCAST_OMEN_TARGETS"] = target_of(servers.omen)
        await servers.riskcast.kill()
        await servers.riskcast.start()
        await told("omen_server", "ledger", "backup", str(backup), "--dir", str(servers.ledger))
        if is_restarted:
            await servers.omen.kill()
            await servers.omen.start()
        await load.until_delivered(DELIVERED_BETWEEN)
        assert await servers.omen.stop() == 0
        before = list(load.attempts)
        restored = restore(backup, servers.ledger)
        await servers.omen.start()
        await load.until_delivered(DELIVERED_BETWEEN)
        [partition] = await reconciled(servers.riskcast, Exit.PARTIAL)
        assert (partition["status"], partition["reason"].partition(":")[0]) == ("PARTIAL", reason)
        assert partition["extra"] > 0
    history = history_of(load.attempts, servers.ledger, servers.database)
    assert {row.signal_id for row in history.rows} > {record.signal_id for record in history.ledger}
    assert list(h4(history)) == []
    assert flaws(without_the_lost(history, before, restored)) == []


Contents = dict[tuple[str, int], bytes]  # partition, sequence: payload


def restore(backup: Path, ledger: Path) -> Contents:
    """Puts the backup in the place of the ledger; what is in it."""
    ledger.rename(ledger.with_name("lost"))
    shutil.copytree(backup, ledger)
    reader = LedgerReader(ledger)
    return {
        (info.name, record.position.sequence): record.payload
        for info in reader.partitions()
        for record in reader.records(info.name)
    }


def without_the_lost(history: History, before: Sequence[Attempt], restored: Contents) -> History:
    """What came before the restoration and is not in the backup is what its operator chose to lose: RiskCast alone may
    have it."""
    kept = [attempt for attempt in before if attempt.place is None or attempt.place in restored]
    lost = {attempt.payload for attempt in before} - {*restored.values()}
    return replace(history, attempts=[*kept, *history.attempts[len(before) :]], beside=lost)
