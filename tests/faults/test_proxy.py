"""The network that the tests make: each fault does what its name says, and what is healed passes everything."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from tests.faults.proxy import BOTH, End, Fault, Proxy, proxy

DEADLINE_S = 10.0
SILENCE_S = 0.2  # in which an answer of an echo would have come a thousand times

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(1024):
            writer.write(data)
    writer.close()


@asynccontextmanager
async def echoing() -> AsyncIterator[Proxy]:
    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with proxy(f"127.0.0.1:{port}") as between, asyncio.timeout(DEADLINE_S):
            yield between


@asynccontextmanager
async def connected(between: Proxy) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", between.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def echoed(connection: Connection, sent: bytes) -> bytes:
    connection[1].write(sent)
    return await connection[0].readexactly(len(sent))


async def is_silent(connection: Connection) -> bool:
    """Nothing comes, not even an end."""
    connection[1].write(b"?")
    with suppress(TimeoutError):
        async with asyncio.timeout(SILENCE_S):
            await connection[0].read(1)
            return False
    return True


async def test_who_is_refused_is_reset_and_cannot_connect_until_the_same_port_is_healed() -> None:
    async with echoing() as between, connected(between) as before:
        assert await echoed(before, b"1") == b"1"
        await between.strike(Fault(refuses=True))
        with pytest.raises(ConnectionResetError):
            await before[0].read(1)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", between.port)
        await between.heal()
        async with connected(between) as after:
            assert await echoed(after, b"2") == b"2"


async def test_who_connects_to_what_resets_is_reset_and_counted() -> None:
    async with echoing() as between, connected(between) as before:
        assert await echoed(before, b"1") == b"1"
        await between.strike(Fault(resets=True))
        async with connected(between) as after:
            for connection in (before, after):
                with pytest.raises(ConnectionResetError):
                    await connection[0].read(1)
        assert len(between.connected_at) == 2


@pytest.mark.parametrize("swallows", [{End.CLIENT}, {End.SERVER}, BOTH], ids=["requests", "answers", "both"])
async def test_what_was_swallowed_arrives_once_the_network_has_healed(swallows: set[End]) -> None:
    async with echoing() as between, connected(between) as before:
        await between.strike(Fault(swallows=swallows))
        async with connected(between) as after:
            assert await is_silent(before)
            assert await is_silent(after)
            await between.heal()
            assert [await before[0].read(1), await after[0].read(1)] == [b"?", b"?"]


async def test_one_who_vanished_is_never_heard_of_again_and_whoever_connects_anew_is_served() -> None:
    async with echoing() as between, connected(between) as before:
        assert await echoed(before, b"1") == b"1"
        await between.strike(Fault(vanishes=End.SERVER))
        assert await is_silent(before)
        await between.heal()
        assert await is_silent(before)
        async with connected(between) as after:
            assert await echoed(after, b"2") == b"2"
            await between.strike(Fault(vanishes=End.CLIENT))
            with pytest.raises(ConnectionResetError):
                await after[0].read(1)


@pytest.mark.parametrize(
    ("fault", "at_least_s"),
    [(Fault(delay_s=0.1), 0.2), (Fault(piece_bytes=1000, bytes_per_s=50_000), 0.2)],
    ids=["delayed", "slow"],
)
async def test_a_delay_and_a_slow_line_take_their_time_and_lose_nothing(fault: Fault, at_least_s: float) -> None:
    loop = asyncio.get_running_loop()
    async with echoing() as between, connected(between) as connection:
        await between.strike(fault)
        began = loop.time()
        assert await echoed(connection, b"x" * 10_000) == b"x" * 10_000
        assert loop.time() - began >= at_least_s


async def test_a_byte_comes_alone_when_it_is_sliced() -> None:
    async with echoing() as between, connected(between) as (reader, writer):
        await between.strike(Fault(piece_bytes=1, bytes_per_s=100))
        writer.write(b"ab")
        assert await reader.read(1024) == b"a"


async def test_a_connection_is_cut_after_so_many_bytes_both_ways_and_the_next_one_too() -> None:
    async with echoing() as between:
        await between.strike(Fault(cut_after_bytes=6))
        for _ in range(2):
            async with connected(between) as connection:
                assert await echoed(connection, b"abc") == b"abc"
                with pytest.raises(ConnectionResetError):
                    await echoed(connection, b"d")
        assert [link.passed_bytes for link in between.links] == [6, 6]
