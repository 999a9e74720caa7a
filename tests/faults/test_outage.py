"""RiskCast away for long, and either server frozen at its work: it heals by itself, and costs no memory."""

import asyncio
from dataclasses import dataclass, replace
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

MIB = 1024 * 1024
DEADLINE_S = 20.0
CONVERGED_WITHIN_S = 20.0  # as in test_network
WORKERS, PAUSE_S = 8, 0.02
DRAINED_PER_S_MIN = 2_500
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


async def converged(servers: Pair, load: Load, within_s: float = CONVERGED_WITHIN_S) -> None:
    """And the load goes on without a fault."""
    async with asyncio.timeout(within_s):
        await until_drained(target_of(servers.omen), within_s, in_flight=WORKERS)
        await load.until_delivered(2 * WORKERS)  # it takes some answers until RiskCast is trusted to keep up again
    load.is_after_the_last_fault = True
    await load.until_delivered(2 * WORKERS)


async def judged(servers: Pair, load: Load) -> list[str]:
    assert await servers.omen.stop() == 0
    assert await servers.riskcast.stop() == 0
    return flaws(history_of(load.attempts, servers.ledger, servers.database))


@dataclass(frozen=True)
class Outage:
    """So many emits come while RiskCast is away after the first ones, which fill what is bounded: above all what is
    remembered of the last 32,768 signals and of the segment that is written."""

    first: int
    emits: int
    description: str
    growth_bytes_max: int


SHORT = Outage(5_000, 20_000, "long " * 400, 32 * MIB)  # they are 50 MiB
LONG = Outage(80_000, 120_000, "", 6 * MIB)  # they are 70 MiB


async def test_after_an_outage_of_riskcast_the_counts_become_equal_though_nobody_runs_reconcile_and_it_cost_no_memory(
    tmp_path: Path,
) -> None:
    await outlived(tmp_path, SHORT)


@pytest.mark.soak
async def test_however_long_riskcast_is_away_it_costs_no_more_memory(tmp_path: Path, soak_seed: int) -> None:
    await outlived(tmp_path, replace(LONG, emits=LONG.emits + soak_seed % LONG.emits))


async def outlived(directory: Path, outage: Outage) -> None:
    async with pair(directory) as servers:
        servers.riskcast.settings["RISKCAST_OMEN_TARGETS"] = target_of(servers.omen)
        servers.riskcast.settings["RISKCAST_RECONCILE_INTERVAL"] = "0"
        async with under_load(target_of(servers.omen), WORKERS, PAUSE_S, outage.description) as load:
            await load.until_delivered()
            await servers.riskcast.kill()
            await load.flood(target_of(servers.omen), outage.first)
            before = resident_bytes(servers.omen)
            await load.flood(target_of(servers.omen), outage.emits)
            grown = resident_bytes(servers.omen) - before
            await servers.riskcast.start()
            await converged(servers, load, CONVERGED_WITHIN_S + outage.emits / DRAINED_PER_S_MIN)
        await until_drained(target_of(servers.omen))
        assert await stored_count(servers.riskcast) == len({attempt.signal_id for attempt in load.attempts})
        assert grown < outage.growth_bytes_max
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
                before = len(load.attempts) + WORKERS  # those under way may have been answered just in time
                await load.until(load.acknowledged + FROZEN_EMITS)
                told = load.new_since(before)
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
