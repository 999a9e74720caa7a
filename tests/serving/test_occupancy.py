"""An address is free, has the server itself on it, or is no good: told before a start meets it."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter
from pydantic_settings import SettingsConfigDict

import serving
from serving.checking.checks import Check, Outcome
from serving.checking.occupancy import check_addresses
from serving.security import OPEN, Security
from serving.settings import ServerSettings
from serving.tls import ServerTls
from tests.serving.authority import secured, trust
from tests.serving.probe import SERVICE, Probe

FREE = "127.0.0.1:0"


class Settings(ServerSettings):
    model_config = SettingsConfigDict(env_prefix="PROBE_", hide_input_in_errors=True)


async def looked_at(listen: str, settings: Settings | None = None, service: str = SERVICE.full_name) -> list[Check]:
    return await check_addresses(settings or Settings(), listen, service)


async def told(listen: str, settings: Settings | None = None, service: str = SERVICE.full_name) -> tuple[Outcome, str]:
    [check] = await looked_at(listen, settings, service)
    return check.outcome, check.seen


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def over(tls: ServerTls) -> Settings:
    return Settings(tls_cert_file=tls.cert_file, tls_key_file=tls.key_file, tls_client_ca_file=tls.client_ca_file)


@asynccontextmanager
async def somebody() -> AsyncIterator[str]:
    """Listens, and hangs up on whoever comes."""
    async with await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_what_is_free_can_be_listened_on_and_nothing_is_made(tmp_path: Path) -> None:
    settings = Settings(health_listen=FREE, metrics_listen=FREE)
    checks = await looked_at(f"unix:{tmp_path}/socket", settings)
    assert [check.name for check in checks] == ["address", "health address", "metrics address"]
    assert [check.outcome for check in checks] == [Outcome.OK] * 3
    assert names_in(tmp_path) == []


def occupied(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file"


NO_GOOD: dict[str, Callable[[Path], str]] = {
    "no such host": lambda _folder: "nowhere.invalid:0",
    "another machine": lambda _folder: "192.0.2.1:0",
    "no such folder": lambda folder: f"unix:{folder}/mistyped/socket",
    "a file in the way": lambda folder: f"unix:{occupied(folder)}",
    "a path that is too long": lambda folder: f"unix:{folder}/{'x' * 108}",
    "no address": lambda _folder: "nonsense",
}


@pytest.mark.parametrize("what", NO_GOOD)
async def test_what_nobody_could_listen_on_fails_as_it_does_at_a_start(what: str, tmp_path: Path) -> None:
    listen = NO_GOOD[what](tmp_path)
    outcome, seen = await told(listen)
    assert outcome is Outcome.FAILED
    assert seen.startswith(f"cannot listen on {listen}: ")
    with pytest.raises(serving.ListenError):
        async with secured(Probe(), OPEN, listen):
            pass


async def test_what_somebody_else_has_fails_whatever_it_is_for() -> None:
    async with somebody() as taken:
        settings = Settings(health_listen=taken, metrics_listen=taken)
        checks = await looked_at(taken, settings)
        over_tls = await told(taken, Settings(tls_cert_file=Path("cert"), tls_key_file=Path("key")))
    assert {(check.outcome, check.seen) for check in checks} == {over_tls}
    assert over_tls == (Outcome.FAILED, f"{taken} is in use, and not by this server")


async def test_the_server_that_runs_there_is_known_by_its_services(tmp_path: Path) -> None:
    for listen in (FREE, f"unix:{tmp_path}/socket"):
        async with secured(Probe(), Security(health_listen=FREE), listen) as running:
            health = f"127.0.0.1:{running.health_port}"
            checks = await looked_at(running.target, Settings(health_listen=health))
            seen = [f"{each} is in use by the running server" for each in (running.target, health)]
            assert [(check.outcome, check.seen) for check in checks] == [(Outcome.OK, each) for each in seen]
            assert (await told(running.target, service="another.Service"))[0] is Outcome.FAILED


async def test_over_tls_it_is_known_by_its_certificate_also_where_it_asks_for_one(tmp_path: Path) -> None:
    ours, other = trust(tmp_path), trust(tmp_path, "other")
    tls = ours.server(clients=ours)
    for listen in (FREE, f"unix:{tmp_path}/socket"):
        async with secured(Probe(), Security(tls=tls), listen) as running:
            assert (await told(running.target, over(tls)))[0] is Outcome.OK
            assert (await told(running.target, over(other.server())))[0] is Outcome.FAILED
            assert (await told(running.target))[0] is Outcome.FAILED


async def test_metrics_are_known_by_their_names() -> None:
    registry = CollectorRegistry()
    Counter("probe_calls", "Calls.", registry=registry)
    async with serving.exposed(registry, FREE) as port:
        [_, check] = await looked_at(FREE, Settings(metrics_listen=f"127.0.0.1:{port}"))
        assert (check.name, check.outcome) == ("metrics address", Outcome.OK)
    async with serving.exposed(CollectorRegistry(), FREE) as port:
        [_, check] = await looked_at(FREE, Settings(metrics_listen=f"127.0.0.1:{port}"))
        assert check.outcome is Outcome.FAILED


async def test_a_socket_that_a_dead_server_left_is_free(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "socket"))
    assert (await told(f"unix:{tmp_path}/socket"))[0] is Outcome.OK
