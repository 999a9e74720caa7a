"""kill -9 under load, of either server and of both: what was acknowledged is there, once, and it heals by itself."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import pytest

from tests.faults.history import Told, flaws
from tests.faults.load import history_of, under_load, until_drained
from tests.system.processes import Pair, Server, pair

KILLS = 10
SOAK_KILLS = 350
SEED = 9
ACKNOWLEDGED_BETWEEN = 30
WORKERS, PAUSE_S = 8, 0.02


def omen(servers: Pair) -> Sequence[Server]:
    return [servers.omen]


def riskcast(servers: Pair) -> Sequence[Server]:
    return [servers.riskcast]


def both(servers: Pair) -> Sequence[Server]:
    return [servers.riskcast, servers.omen]


Victims = Callable[[Pair], Sequence[Server]]
VICTIMS = pytest.mark.parametrize("victims", [omen, riskcast, both], ids=lambda victims: victims.__name__)


@VICTIMS
async def test_killed_under_load_nothing_acknowledged_is_lost_and_nothing_is_stored_twice(
    tmp_path: Path, victims: Victims
) -> None:
    await killed_under_load(tmp_path, victims, KILLS, SEED)


@pytest.mark.soak
@VICTIMS
async def test_killed_under_load_again_and_again(tmp_path: Path, victims: Victims, soak_seed: int) -> None:
    await killed_under_load(tmp_path, victims, SOAK_KILLS, soak_seed)


async def killed_under_load(directory: Path, victims: Victims, kills: int, seed: int) -> None:
    """The seed says after how many acknowledgements each kill comes and who goes first, not what is on its way then."""
    chance = Random(seed)
    counts = [chance.randrange(ACKNOWLEDGED_BETWEEN // 2, 2 * ACKNOWLEDGED_BETWEEN) for _ in range(kills)]
    async with pair(directory) as servers:
        target = f"127.0.0.1:{servers.omen.port}"
        async with under_load(target, WORKERS, PAUSE_S) as load:
            for count in counts:
                await load.until(load.acknowledged + count)
                for server in chance.sample(victims(servers), len(victims(servers))):
                    await server.kill()
                await asyncio.gather(*(server.start() for server in victims(servers)))
            await load.until(load.acknowledged + 1)
            await until_drained(target, in_flight=WORKERS)
            load.is_after_the_last_fault = True
            await load.until(load.acknowledged + ACKNOWLEDGED_BETWEEN)
        await until_drained(target)
        assert await servers.omen.stop() == 0
        assert await servers.riskcast.stop() == 0
        history = history_of(load.attempts, servers.ledger, servers.database)
    assert flaws(history) == [], f"seed {seed}"
    assert len(history.ledger) >= sum(counts) / 2  # one in eight emits repeats another
    if servers.omen in victims(servers):
        assert any(attempt.told is Told.UNKNOWN for attempt in load.attempts)
