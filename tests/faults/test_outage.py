"""RiskCast away for long, and either server frozen at its work: it heals by itself, and costs no memory."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

import serving
from riskcast.v1.signal_service_pb2 import CountSignalsRequest
from riskcast.v1.signal_service_pb2_grpc import SignalServiceStub
from serving.console import Exit
from tests.faults.history import Told, flaws
from tests.faults.load import Load, history_of, under_load, until_drained
from tests.faults.operators import reconciled
from tests.system.processes import Pair, Server, pair, target_of

DEADLINE_S = 20.0
CONVERGED_WITHIN_S = 10.0
WORKERS, PAUSE_S = 8, 0.02
OUTAGE, SOAK_OUTAGE = 4_000, 30_000  # emits that come while RiskCast is down
SETTLED = 1_000  # of them, after which the memory of a server is what it is
LONG_TEXT = "long " * 999  # so that keeping some thousand events would show: they are 15 MiB
GROWTH_BYTES_MAX = 6 * 1024 * 1024
FROZEN_S = 3.0
FROZEN_EMITS = 60


async def stored_count(riskcast: Server) -> int:
    async with serving.channel(target_of(riskcast)) as channel:
        stub: Any = SignalServiceStub(channel)
        answer = await stub.CountSignals(CountSignalsRequest(), timeout=DEADLINE_S, wait_for_ready=True)
        return int(answer.signal_count)


def resident_bytes(server: Server) -> int:
    assert server.process
    [line] = [
        line for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines() if line.startswith("VmRSS")
    ]
    return int(line.split()[1]) * 1024


async def converged(servers: Pair, load: Load) -> None:
    """And the load goes on without a fault."""
    async with asyncio.timeout(CONVERGED_WITHIN_S):
        await until_drained(target_of(servers.omen))
    load.is_after_the_last_fault = True
    await load.until_delivered(2 * WORKERS)


async def judged(servers: Pair, load: Load) -> list[str]:
    assert await servers.omen.stop() == 0
    assert await servers.riskcast.stop() == 0
    return flaws(history_of(load.attempts, servers.ledger, servers.database))


async def test_after_an_outage_of_riskcast_the_counts_become_equal_though_nobody_runs_reconcile_and_it_cost_no_memory(
    tmp_path: Path,
) -> None:
    await outlived(tmp_path, OUTAGE, LONG_TEXT)


@pytest.mark.soak
async def test_a_long_outage_of_riskcast_costs_no_more_memory_than_a_short_one(tmp_path: Path, soak_seed: int) -> None:
    await outlived(tmp_path, SOAK_OUTAGE, LONG_TEXT[: soak_seed % len(LONG_TEXT)])


async def outlived(directory: Path, outage: int, description: str) -> None:
    async with pair(directory) as servers:
        servers.riskcast.settings["RISKCAST_OMEN_TARGETS"] = target_of(servers.omen)
        servers.riskcast.settings["RISKCAST_RECONCILE_INTERVAL"] = "0"
        async with under_load(target_of(servers.omen), description=description) as load:
            await load.until_delivered()
            await servers.riskcast.kill()
            await load.until(load.acknowledged + SETTLED)
            before = resident_bytes(servers.omen)
            for _ in range(SETTLED, outage, SETTLED):
                await load.until(load.acknowledged + SETTLED)
            grown = resident_bytes(servers.omen) - before
            load.pause_s = PAUSE_S * WORKERS
            await servers.riskcast.start()
            await converged(servers, load)
        await until_drained(target_of(servers.omen))
        assert await stored_count(servers.riskcast) == len({attempt.signal_id for attempt in load.attempts})
        assert grown < GROWTH_BYTES_MAX
        [partition] = await reconciled(servers.riskcast, Exit.OK)
        assert (partition["status"], partition["missing"]) == ("COMPLETED", 0)
        assert await judged(servers, load) == []


async def test_a_riskcast_that_stands_still_for_a_while_is_no_loss_and_emits_go_on_from_the_ledger(
    tmp_path: Path,
) -> None:
    async with pair(tmp_path) as servers:
        async with under_load(target_of(servers.omen), WORKERS, PAUSE_S) as load:
            await load.until_delivered()
            async with servers.riskcast.frozen():
                began = len(load.attempts)
                await load.until(load.acknowledged + FROZEN_EMITS)
                told = load.attempts[began + WORKERS :]
            assert {attempt.ack_id for attempt in told} == {""}
            await converged(servers, load)
        await until_drained(target_of(servers.omen))
        assert {attempt.told for attempt in load.attempts} == {Told.ACKNOWLEDGED}
        assert await judged(servers, load) == []


async def test_an_omen_that_stands_still_for_a_while_loses_nothing_and_goes_on_where_it_was(tmp_path: Path) -> None:
    async with pair(tmp_path) as servers:
        async with under_load(target_of(servers.omen), WORKERS, PAUSE_S) as load:
            await load.until_delivered()
            async with servers.omen.frozen():
                await asyncio.sleep(FROZEN_S)  # how long it lasts: nothing is waited for
            await converged(servers, load)
        await until_drained(target_of(servers.omen))
        assert {attempt.told for attempt in load.attempts} == {Told.ACKNOWLEDGED}
        assert await judged(servers, load) == []
