"""A client's key and certificates: sent with every call, read again when they change, and told to nobody else."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

import serving
from serving.channels import channel
from serving.security import ClientSecurity, Security, SecurityRefused
from serving.telemetry.call_meters import GO_CODES, call_meters
from tests.serving.authority import secured, trust, write_keys
from tests.serving.probe import KINDS, SERVICE, Context, Probe, answers, failure, open_call, responses, served

METADATA = [("x-note", "kept")]


class Listener(Probe):
    """Keeps what each call said of itself."""

    def __init__(self) -> None:
        super().__init__(self.listen)
        self.headers: list[dict[str, str | bytes]] = []
        self.names: list[str] = []

    async def listen(self, context: Context) -> None:
        self.headers.append(dict(context.invocation_metadata() or ()))
        shown: Any = context.auth_context()
        self.names += [name.decode() for name in shown.get("x509_common_name", ())]


@pytest.mark.parametrize("kind", KINDS)
async def test_the_key_goes_with_every_call_without_the_end_of_its_line(tmp_path: Path, kind: str) -> None:
    keys, mine = tmp_path / "keys.json", tmp_path / "key"
    mine.write_text(write_keys(keys, omen=["ingest"])["omen"] + "\n", "utf-8")
    probe = Listener()
    async with (
        secured(probe, Security(keys)) as running,
        serving.channel(running.target, ClientSecurity(mine)) as channel,
    ):
        assert await answers(open_call(channel, kind)) == ["hello"]
    assert probe.headers[0]["x-api-key"] == mine.read_text("utf-8").strip()


async def test_a_key_that_was_replaced_is_sent_from_the_next_call_on(tmp_path: Path) -> None:
    keys, mine = tmp_path / "keys.json", tmp_path / "key"
    right = write_keys(keys, omen=["ingest"])["omen"]
    mine.write_text("omen.of-yesterday\n", "utf-8")
    async with (
        secured(Probe(), Security(keys)) as running,
        serving.channel(running.target, ClientSecurity(mine)) as channel,
    ):
        assert (await failure(open_call(channel, "UnaryUnary"))).reason == "BAD_CREDENTIALS"
        mine.write_text(right, "utf-8")
        assert await answers(open_call(channel, "UnaryUnary")) == ["hello"]
        with capture_logs() as lines:
            mine.write_text("half a key, half a", "utf-8")
            for _ in range(2):
                assert await answers(open_call(channel, "UnaryUnary")) == ["hello"]
        assert [line["event"] for line in lines if line["log_level"] == "error"] == ["file_not_reloaded"]
        assert "half" not in str(lines)


@pytest.mark.parametrize(
    "held", [b"", b"\n", b"two keys\n", b"one\ntwo\n", b"hunter2\x00", "hünter2".encode(), b"x" * 2000]
)
async def test_what_is_no_key_is_refused_and_not_shown(tmp_path: Path, held: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(held)
    with pytest.raises(SecurityRefused) as refused:
        channel("127.0.0.1:1", ClientSecurity(file))
    assert str(refused.value) == f"{file} does not hold one API key"


async def test_files_that_are_not_there_are_refused_by_their_names(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    for security in (ClientSecurity(nothing), ClientSecurity(ca_file=nothing)):
        with pytest.raises(SecurityRefused, match=f"^{nothing}: No such file or directory$"):
            channel("127.0.0.1:1", security)


async def test_the_key_is_in_no_repr_and_no_error(tmp_path: Path) -> None:
    keys, mine = tmp_path / "keys.json", tmp_path / "key"
    write_keys(keys)
    mine.write_text("omen.hunter2", "utf-8")
    security = ClientSecurity(mine)
    async with secured(Probe(), Security(keys)) as running, serving.channel(running.target, security) as channel:
        method: Any = channel.unary_unary(f"/{SERVICE.full_name}/UnaryUnary")
        call = open_call(channel, "UnaryUnary")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert "hunter2" not in f"{channel!r} {method!r} {security!r} {call!r} {refused.value!r}"


async def test_what_the_caller_says_goes_along_and_the_calls_are_grpcs_own(tmp_path: Path) -> None:
    mine, probe = tmp_path / "key", Listener()
    mine.write_text("omen.key", "utf-8")

    async def requests() -> AsyncIterator[bytes]:
        yield b""

    async with served(probe) as running, serving.channel(running.target, ClientSecurity(mine)) as channel:
        name = f"/{SERVICE.full_name}/"
        unary: Any = channel.unary_unary(f"{name}UnaryUnary", _registered_method=True)
        bidi: Any = channel.stream_stream(f"{name}StreamStream")
        for call in (
            unary(b"", metadata=METADATA, timeout=10),
            unary(b"", metadata=grpc.aio.Metadata(*METADATA), timeout=10, wait_for_ready=True),
            bidi(requests(), 10, METADATA),
            bidi(request_iterator=requests(), metadata=tuple(METADATA), timeout=10),
        ):
            assert isinstance(call, grpc.aio.Call)
            await responses(call)
            assert await call.code() is grpc.StatusCode.OK
        written = bidi(timeout=10)
        await written.write(b"")
        assert await written.read() == b""
        await written.done_writing()
        assert await written.read() is grpc.aio.EOF
    assert [heard.get("x-note") for heard in probe.headers] == ["kept"] * 4 + [None]
    assert {heard["x-api-key"] for heard in probe.headers} == {"omen.key"}


async def test_a_new_certificate_is_shown_from_the_next_call_on_and_open_calls_end_as_they_would(
    tmp_path: Path,
) -> None:
    ours, probe = trust(tmp_path), Listener()
    pair = ours.issue("before")
    async with (
        secured(probe, Security(tls=ours.server(ours))) as running,
        serving.channel(running.target, ours.client(pair)) as channel,
    ):
        bidi: Any = channel.stream_stream(f"/{SERVICE.full_name}/StreamStream")
        call = bidi(timeout=20)
        await call.write(b"")
        assert await call.read() == b""
        after = ours.issue("after")
        after.key_file.replace(pair.key_file)
        after.cert_file.replace(pair.cert_file)
        for _ in range(2):
            assert await answers(open_call(channel, "UnaryUnary")) == ["hello"]
        await call.write(b"")
        assert await call.read() == b""
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
    assert probe.names == ["before", "after", "after", "before"]


async def test_the_channel_of_before_is_closed_with_its_last_call_or_with_the_whole(tmp_path: Path) -> None:
    ours = trust(tmp_path)
    pair = ours.issue("client")
    async with secured(Probe(), Security(tls=ours.server(ours))) as running:
        channel: Any = serving.channel(running.target, ours.client(pair))
        bidi: Any = channel.stream_stream(f"/{SERVICE.full_name}/StreamStream")
        ends, stays = bidi(timeout=20), bidi(timeout=20)
        for call in (ends, stays):
            await call.write(b"")
            await call.read()
        ours.issue("client")
        assert await answers(open_call(channel, "UnaryUnary")) == ["hello"]
        [closing] = channel._retired
        await ends.done_writing()
        assert await ends.code() is grpc.StatusCode.OK
        assert not closing.done()
        await stays.done_writing()
        assert await stays.code() is grpc.StatusCode.OK
        async with asyncio.timeout(10):
            await closing
        call = bidi(timeout=20)
        ours.issue("client")
        assert await answers(open_call(channel, "UnaryUnary")) == ["hello"]
        async with asyncio.timeout(10):
            await channel.close()
        assert await call.code() is grpc.StatusCode.CANCELLED
    assert channel._retired == {}


async def test_calls_and_their_messages_are_counted_by_method_and_code() -> None:
    registry = CollectorRegistry()

    async def script(context: Context) -> None:
        if dict(context.invocation_metadata() or ()).get("x-wish") == "fail":
            await context.abort(grpc.StatusCode.NOT_FOUND, "nothing")

    async with (
        served(Probe(script)) as running,
        serving.channel(running.target, maybe_meters=call_meters("client", registry)) as channel,
    ):
        for kind in KINDS:
            await answers(open_call(channel, kind))
        unary: Any = channel.unary_unary(f"/{SERVICE.full_name}/UnaryUnary")
        assert await unary(b"", metadata=[("x-wish", "fail")]).code() is grpc.StatusCode.NOT_FOUND
        bidi: Any = channel.stream_stream(f"/{SERVICE.full_name}/StreamStream")
        call = bidi()
        for _ in range(3):
            await call.write(b"")
            await call.read()
        call.cancel()
        assert await bidi(timeout=0.01).code() is grpc.StatusCode.DEADLINE_EXCEEDED

    def told(name: str, method: str, **labels: str) -> float | None:
        kinds = {"UnaryUnary": "unary", "StreamUnary": "client_stream", "StreamStream": "bidi_stream"}
        labels |= {"grpc_type": kinds[method], "grpc_service": SERVICE.full_name, "grpc_method": method}
        return registry.get_sample_value(f"grpc_client_{name}", labels)

    assert [told("started_total", each) for each in ("UnaryUnary", "StreamUnary", "StreamStream")] == [2, 1, 3]
    assert told("handled_total", "UnaryUnary", grpc_code="OK") == 1
    assert told("handled_total", "UnaryUnary", grpc_code="NotFound") == 1
    assert told("handled_total", "StreamUnary", grpc_code="OK") == 1
    assert told("handled_total", "StreamStream", grpc_code="OK") == 1
    # Once, although gRPC sets the status of a cancelled call by itself.
    assert told("handled_total", "StreamStream", grpc_code=GO_CODES[grpc.StatusCode.CANCELLED]) == 1
    assert told("handled_total", "StreamStream", grpc_code="DeadlineExceeded") == 1
    assert told("handling_seconds_count", "StreamStream") == 3
    assert (told("msg_sent_total", "UnaryUnary"), told("msg_received_total", "UnaryUnary")) == (2, 1)
    assert (told("msg_sent_total", "StreamStream"), told("msg_received_total", "StreamStream")) == (4, 4)


async def test_redialled_the_next_call_is_on_a_new_connection_and_open_ones_go_on(tmp_path: Path) -> None:
    peers: list[str] = []

    async def note(context: Context) -> None:
        peers.append(context.peer())

    async with served(Probe(note)) as running, serving.channel(running.target) as channel:
        bidi: Any = channel.stream_stream(f"/{SERVICE.full_name}/StreamStream")
        still_open = bidi(timeout=10)
        await still_open.write(b"")
        assert await answers(open_call(channel, "UnaryUnary")) == ["hello"]
        channel.redial()
        assert await answers(open_call(channel, "UnaryUnary")) == ["hello"]
        assert await answers(open_call(channel, "UnaryUnary")) == ["hello"]
        await still_open.done_writing()
        while await still_open.read() is not grpc.aio.EOF:
            pass
        assert await still_open.code() is grpc.StatusCode.OK
    assert len({*peers[-3:-1]}) == 2
    assert len({*peers[-2:]}) == 1
