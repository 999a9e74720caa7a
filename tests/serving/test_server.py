"""Where a server listens, and the limits of what it takes."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import grpc
import pytest

import serving
from serving.options import SERVER_OPTIONS
from tests.serving.probe import KINDS, Probe, answers, failure, open_call, served

MESSAGE_BYTES_MAX = 4 * 1024 * 1024
METADATA_BYTES_MAX = 16 * 1024


def message(bytes_count: int) -> bytes:
    """A StringValue that is so many bytes long on the wire: a tag and a length of four bytes, then the text."""
    length = bytes_count - 5
    varint = bytes((length >> shift & 0x7F) | 0x80 for shift in (0, 7, 14)) + bytes([length >> 21])
    return b"\x0a" + varint + b"x" * length


async def test_port_0_is_any_free_port_and_the_target_reaches_it() -> None:
    async with served(Probe()) as running, serving.channel(running.target) as channel:
        assert running.target == f"127.0.0.1:{running.port}"
        assert await answers(open_call(channel, "UnaryUnary")) == ["hello"]


async def test_a_unix_socket_has_no_port(tmp_path: Path) -> None:
    async with served(Probe(), f"unix:{tmp_path}/s") as running, serving.channel(running.target) as channel:
        assert running.port == 0
        assert await answers(open_call(channel, "UnaryUnary")) == ["hello"]


@pytest.mark.parametrize("address", ["127.0.0.1:0", "0.0.0.0:0", "unix:{folder}/s"])
async def test_a_second_server_on_the_same_address_is_refused_and_the_first_goes_on(
    address: str, tmp_path: Path
) -> None:
    async with served(Probe(), address.format(folder=tmp_path)) as running:
        with pytest.raises(serving.ListenError, match=rf"^cannot listen on {running.target}: [^\n]*(in use|listens)"):
            async with served(Probe(), running.target):
                pass
        async with serving.channel(running.target) as channel:
            assert await answers(open_call(channel, "UnaryUnary")) == ["hello"]


async def test_a_plain_socket_on_the_port_is_in_the_way_too() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(serving.ListenError, match="Address already in use"),
    ):
        async with served(Probe(), f"127.0.0.1:{taken.getsockname()[1]}"):
            pass


async def test_grpc_itself_shares_a_port_with_nobody() -> None:
    async with served(Probe()) as running:
        second = grpc.aio.server(options=SERVER_OPTIONS)
        with pytest.raises(RuntimeError, match=str(running.port)):
            second.add_insecure_port(running.target)


async def test_a_socket_file_that_a_dead_server_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with served(Probe(), f"unix:{path}") as running, serving.channel(running.target) as channel:
        assert await answers(open_call(channel, "UnaryUnary")) == ["hello"]


@pytest.mark.parametrize(
    "address",
    ["", "nowhere", "127.0.0.1", "127.0.0.1:", ":1", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:http",
     "203.0.113.1:0", "no host:0", "unix:/nonexistent/folder/s", f"unix:/tmp/{'x' * 200}"],
)  # fmt: skip
async def test_an_unusable_address_is_refused_in_one_line_that_names_it(address: str) -> None:
    with pytest.raises(serving.ListenError) as refused:
        async with served(Probe(), address):
            pass
    assert str(refused.value).startswith(f"cannot listen on {address}: ")
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_message_of_4_mib_passes_and_one_byte_more_is_refused_without_a_retry(kind: str) -> None:
    probe = Probe()
    async with served(probe) as running, grpc.aio.insecure_channel(running.target, [UNLIMITED]) as channel:
        [answer] = await answers(open_call(channel, kind, message(MESSAGE_BYTES_MAX)))
        assert len(answer) == MESSAGE_BYTES_MAX - 5
        found = await failure(open_call(channel, kind, message(MESSAGE_BYTES_MAX + 1)))
        assert found.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert found.details is None
        assert probe.entered == 1


UNLIMITED = ("grpc.max_receive_message_length", -1)


async def test_an_answer_above_4_mib_is_refused_and_the_connection_lives() -> None:
    class Generous(Probe):
        async def UnaryUnary(self, request, context):  # type: ignore[no-untyped-def]
            await self._run(context)
            request.value *= 2
            return request

    async with served(Generous()) as running, grpc.aio.insecure_channel(running.target, [UNLIMITED]) as channel:
        found = await failure(open_call(channel, "UnaryUnary", "x" * (MESSAGE_BYTES_MAX // 2)))
        assert found.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await answers(open_call(channel, "UnaryUnary", "x")) == ["xx"]


async def test_metadata_above_its_limit_never_reaches_a_handler() -> None:
    probe = Probe()
    async with served(probe) as running, serving.channel(running.target) as channel:
        call: Any = channel.unary_unary("/probe.v1.ProbeService/UnaryUnary")
        assert await call(b"", metadata=[("x-flood", "x" * (METADATA_BYTES_MAX // 2))], timeout=10) == b""
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(b"", metadata=[("x-flood", "x" * METADATA_BYTES_MAX)], timeout=10)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert probe.entered == 1
        assert await answers(open_call(channel, "UnaryUnary")) == ["hello"]


async def test_more_calls_at_once_than_streams_are_allowed_wait_and_all_succeed() -> None:
    async with served(Probe()) as running, serving.channel(running.target) as channel:
        calls = [open_call(channel, "UnaryUnary") for _ in range(600)]
        assert await asyncio.gather(*(answers(call) for call in calls)) == [["hello"]] * 600
