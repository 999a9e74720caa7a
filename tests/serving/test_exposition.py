"""Metrics over HTTP: what is answered, and that no client holds up anything."""

import asyncio
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from structlog.testing import capture_logs

import serving
from serving.telemetry import exposition
from serving.telemetry.registry import MaybeGauge, registry_of
from tests.serving.scraping import Scraper

END_S_MAX = exposition.REQUEST_S / 2  # whoever waits for a client waits for twice as long


def registry_with(count: int) -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("seen_total", "What was seen.", registry=registry).inc(count)
    return registry


def dialled(port: int, sent: bytes = b"") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=10)
    client.sendall(sent)
    return client


def everything(client: socket.socket) -> bytes:
    """What the server sends until it closes."""
    with client:
        try:
            return b"".join(iter(lambda: client.recv(65_536), b""))
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize("path", ["/metrics", "/", "/metrics?name[]=seen_total"])
async def test_a_registry_is_told_in_the_text_format(path: str) -> None:
    async with serving.exposed(registry_with(3), "127.0.0.1:0") as port:
        scraped = await Scraper(port).scrape(path)
    assert scraped.maybe("seen_total") == 3


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [("GET", "/metrics/", 404), ("GET", "/etc/passwd", 404), ("POST", "/metrics", 405), ("DELETE", "/", 405)],
)
async def test_nothing_else_is_answered(method: str, path: str, code: int) -> None:
    def refused(port: int) -> int:
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=10)
        with caught.value as error:
            assert b"seen_total" not in error.read()
            return error.code

    async with serving.exposed(registry_with(3), "127.0.0.1:0") as port:
        assert await asyncio.to_thread(refused, port) == code


async def test_without_an_address_nothing_is_served() -> None:
    async with serving.exposed(registry_with(3), None) as port:
        assert port == 0


@pytest.mark.parametrize("address", ["", "127.0.0.1", "127.0.0.1:65536", "203.0.113.1:0", "unix:/tmp/s"])
async def test_an_unusable_address_is_refused_in_one_line(address: str) -> None:
    with pytest.raises(serving.ListenError, match=rf"^cannot listen on {address} for metrics: [^\n]+$"):
        async with serving.exposed(registry_with(3), address):
            pass


async def test_a_port_that_is_taken_is_refused_in_one_line_and_the_first_goes_on() -> None:
    async with serving.exposed(registry_with(3), "127.0.0.1:0") as port:
        with pytest.raises(serving.ListenError, match=r"^cannot listen on \S+ for metrics: Address already in use$"):
            async with serving.exposed(registry_with(4), f"127.0.0.1:{port}"):
                pass
        assert (await Scraper(port).scrape()).maybe("seen_total") == 3


async def test_clients_that_say_nothing_or_read_nothing_do_not_hold_up_the_end() -> None:
    registry = CollectorRegistry()
    many = Counter("many_total", "More than the buffers of a socket hold.", ["number"], registry=registry)
    for number in range(5_000):
        many.labels(f"{number:01000}")
    async with serving.exposed(registry, "127.0.0.1:0") as port:
        silent = [dialled(port), dialled(port, b"GET /metrics HTTP/1.1\r\nHost: "), dialled(port, b"\0" * 100)]
        deaf = dialled(port, b"GET /metrics HTTP/1.1\r\n\r\n")
        assert await asyncio.to_thread(deaf.recv, 9) == b"HTTP/1.0 "
        began = time.monotonic()
    assert time.monotonic() - began < END_S_MAX
    assert [everything(client) for client in silent] == [b""] * 3
    assert not everything(deaf).endswith(b"\n")
    with pytest.raises(ConnectionRefusedError):
        dialled(port)


async def test_a_client_that_takes_too_long_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposition, "REQUEST_S", 0.05)
    async with serving.exposed(registry_with(3), "127.0.0.1:0") as port:
        assert await asyncio.to_thread(everything, dialled(port, b"GET /metrics")) == b""


async def test_connections_beyond_the_most_are_closed_at_once_and_there_is_room_again_after_one_left() -> None:
    async with serving.exposed(registry_with(3), "127.0.0.1:0") as port:
        open_clients = [dialled(port, b"GET") for _ in range(exposition.CONNECTIONS_MAX)]
        assert await asyncio.to_thread(everything, dialled(port)) == b""
        for client in open_clients[1:]:
            client.close()
        scraped = await asyncio.to_thread(until_answered, port)
        open_clients[0].close()
    assert b"seen_total 3.0" in scraped


def until_answered(port: int) -> bytes:
    until = time.monotonic() + 10
    while not (answer := everything(dialled(port, b"GET /metrics HTTP/1.1\r\n\r\n"))):
        assert time.monotonic() < until
    return answer


class Failing(Collector):
    def __init__(self) -> None:
        self.fails = True

    def collect(self) -> Iterator[GaugeMetricFamily]:
        if self.fails:
            raise RuntimeError("a path, a key")
        yield GaugeMetricFamily("well", "It is.", value=1)


async def test_a_collector_that_fails_is_told_to_the_log_alone_and_the_next_scrape_does_better() -> None:
    registry, failing = CollectorRegistry(), Failing()
    registry.register(failing)
    async with serving.exposed(registry, "127.0.0.1:0") as port:
        with capture_logs() as logs:
            answer = await asyncio.to_thread(everything, dialled(port, b"GET /metrics HTTP/1.1\r\n\r\n"))
        failing.fails = False
        assert (await Scraper(port).scrape()).maybe("well") == 1
    assert answer.startswith(b"HTTP/1.0 500 ")
    assert b"a path" not in answer
    assert [line["event"] for line in logs] == ["metrics_not_told"]


async def test_a_server_tells_of_its_versions_and_its_process_and_leaves_out_what_it_does_not_know() -> None:
    registry = registry_of("omen", {"version": "1.2.3"})
    maybe = MaybeGauge("maybe", "It may be.", registry)
    async with serving.exposed(registry, "127.0.0.1:0") as port:
        before = await Scraper(port).scrape()
        maybe.value = 0
        after = await Scraper(port).scrape("/metrics?name[]=maybe")
    assert before.maybe("omen_build_info", version="1.2.3") == 1
    assert (before.maybe("process_resident_memory_bytes") or 0) > 1e6
    assert before.families.keys() >= {"python_info", "maybe", "process_open_fds"}
    assert [before.maybe("maybe"), after.maybe("maybe")] == [None, 0]
