"""kill -9 at every named point under load: what was acknowledged is there, once, and it heals by itself."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest

import serving
from omen.v1.delivery_service_pb2 import (
    DeliveryPhase,
    GetDeliveryStateRequest,
    PauseDeliveryRequest,
    ResumeDeliveryRequest,
)
from omen.v1.delivery_service_pb2_grpc import DeliveryServiceStub
from riskcast.v1.reconcile_service_pb2 import ReconcileRequest
from riskcast.v1.reconcile_service_pb2_grpc import ReconcileServiceStub
from tests.faults.dying import OMEN, POINTS, REACHED, RISKCAST
from tests.faults.history import flaws
from tests.faults.load import Load, history_of, under_load, until_drained
from tests.system.processes import Ended, Pair, pair, target_of

SEED = 11
WORKERS, PAUSE_S = 8, 0.01
SOAK_ROUNDS = 25
DEADLINE_S = 20.0

VICTIMS = pytest.mark.parametrize("module", [OMEN, RISKCAST])


def points_of(module: str) -> list[str]:
    return [name for name, point in POINTS.items() if point.module == module]


async def pause(servers: Pair) -> None:
    async with serving.channel(target_of(servers.omen)) as channel:
        stub: Any = DeliveryServiceStub(channel)
        await stub.PauseDelivery(PauseDeliveryRequest(reason="a drill"), timeout=DEADLINE_S, wait_for_ready=True)


async def resume(servers: Pair) -> None:
    async with serving.channel(target_of(servers.omen)) as channel:
        stub: Any = DeliveryServiceStub(channel)
        await stub.ResumeDelivery(ResumeDeliveryRequest(), timeout=DEADLINE_S, wait_for_ready=True)


async def is_paused(servers: Pair) -> bool:
    async with serving.channel(target_of(servers.omen)) as channel:
        stub: Any = DeliveryServiceStub(channel)
        state = await stub.GetDeliveryState(GetDeliveryStateRequest(), timeout=DEADLINE_S, wait_for_ready=True)
        return bool(state.phase == DeliveryPhase.DELIVERY_PHASE_PAUSED)


async def reconcile(servers: Pair) -> None:
    """Until it breaks off."""
    async with serving.channel(target_of(servers.riskcast)) as channel:
        stub: Any = ReconcileServiceStub(channel)
        async for _ in stub.Reconcile(ReconcileRequest(include_open=True), timeout=DEADLINE_S, wait_for_ready=True):
            pass


async def lead_to(name: str, servers: Pair, load: Load) -> None:
    """What has to happen for a point to be reached that the load alone does not lead to. Its caller may hear no end."""
    with suppress(grpc.aio.AioRpcError):
        if "pause" in POINTS[name].place:
            await pause(servers)
        if "reconcile" in POINTS[name].place:
            await load.until(load.acknowledged + 1)  # in the ledger alone
            await reconcile(servers)


async def died_at(name: str, count: int, servers: Pair, load: Load) -> None:
    """The server of the point, started so that it dies there."""
    server = servers.omen if POINTS[name].module == OMEN else servers.riskcast
    server.program = ("tests.faults.dying", name, str(count))
    if "reconcile" in POINTS[name].place:
        await pause(servers)
    said_before = len(server.log)
    with suppress(Ended):  # some die before they serve
        await server.start()
        await lead_to(name, servers, load)
    assert await server.ended() == -9
    assert f"{REACHED}{name}\n" in server.log[said_before:]


async def killed_at_each(directory: Path, module: str, chance: Random) -> None:
    async with pair(directory) as servers:
        server = servers.omen if module == OMEN else servers.riskcast
        servers.riskcast.settings["RISKCAST_OMEN_TARGETS"] = target_of(servers.omen)
        servers.riskcast.settings["RISKCAST_RECONCILE_INTERVAL"] = "0"
        async with under_load(target_of(servers.omen), WORKERS, PAUSE_S) as load:
            await load.until_delivered()
            await server.kill()
            for name in points_of(module):
                await died_at(name, chance.randint(0, POINTS[name].passed_max), servers, load)
            server.program = ()
            await server.start()
            assert await is_paused(servers)  # at the last of the points
            await resume(servers)
            await until_drained(target_of(servers.omen), in_flight=WORKERS)
            load.is_after_the_last_fault = True
            await load.until_delivered(2 * WORKERS)
        await until_drained(target_of(servers.omen))
        assert await servers.omen.stop() == 0
        assert await servers.riskcast.stop() == 0
    assert flaws(history_of(load.attempts, servers.ledger, servers.database)) == []


@VICTIMS
async def test_killed_at_each_point_nothing_acknowledged_is_lost_and_nothing_is_stored_twice(
    tmp_path: Path, module: str
) -> None:
    await killed_at_each(tmp_path, module, Random(SEED))


@pytest.mark.soak
@VICTIMS
async def test_killed_at_each_point_again_and_again(tmp_path: Path, module: str, soak_seed: int) -> None:
    chance = Random(soak_seed)
    for number in range(SOAK_ROUNDS):  # each with a ledger of its own: today is sealed once
        await killed_at_each(made(tmp_path / str(number)), module, chance)


def made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def test_every_point_is_that_of_a_server_that_is_killed() -> None:
    named: Sequence[str] = [*points_of(OMEN), *points_of(RISKCAST)]
    assert sorted(named) == sorted(POINTS)
