"""Keys of a server that runs: how often they may call, and a file that changes under it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import error_details_pb2, status_pb2

import serving
import serving.server
from contract.scopes import Scope
from serving.access.keys import RATE_MIN
from serving.security import Security, SecurityRefused
from tests.serving.access.keyring import Keyring
from tests.serving.probe import DOMAIN, KINDS, SERVICE, Probe, mount

DEADLINE_S = 20.0
SCOPES = {f"/{SERVICE.full_name}/{kind}": Scope.INGEST for kind in KINDS}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are looked at more often than once a second."""
    monkeypatch.setattr(serving.server, "KEYS_WATCHED_S", 0.02)


@pytest.fixture
def ring(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path / "keys.json").add("client", Scope.INGEST).add("other", Scope.INGEST)


@asynccontextmanager
async def dialled(ring: Keyring, probe: Probe | None = None, **more: Any) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server that lets these keys in."""
    mounts, told = [mount(probe or Probe())], {"scopes": SCOPES} | more
    async with (
        serving.serve("127.0.0.1:0", mounts, domain=DOMAIN, security=Security(keys_file=ring.path), **told) as running,
        serving.channel(running.target) as channel,
    ):
        yield channel


async def call(channel: grpc.aio.Channel, ring: Keyring, key_id: str) -> grpc.StatusCode:
    error = await refusal(channel, ring, key_id)
    return error.code() if error else grpc.StatusCode.OK


async def refusal(channel: grpc.aio.Channel, ring: Keyring, key_id: str) -> grpc.aio.AioRpcError | None:
    """How a unary call with a key is refused; None if it is not."""
    method: Any = channel.unary_unary(f"/{SERVICE.full_name}/UnaryUnary")
    try:
        await method(b"", metadata=ring.sent(key_id), timeout=DEADLINE_S)
    except grpc.aio.AioRpcError as error:
        return error
    return None


async def until(channel: grpc.aio.Channel, ring: Keyring, key_id: str, code: grpc.StatusCode) -> None:
    """Calls until it is answered so."""
    async with asyncio.timeout(DEADLINE_S):
        while await call(channel, ring, key_id) is not code:
            pass


def details_of(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    trailing = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    found = {}
    for kind in (error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo, error_details_pb2.QuotaFailure):
        for detail in status.details:
            message = kind()
            if detail.Unpack(message):
                found[kind.__name__] = message
    return found


async def test_a_method_that_the_table_forgot_is_open_to_nobody(ring: Keyring) -> None:
    probe = Probe()
    ring.add("all", *Scope)
    async with dialled(ring, probe, scopes={}) as channel:
        assert await call(channel, ring, "all") is grpc.StatusCode.PERMISSION_DENIED
    assert probe.entered == 0


async def test_above_its_rate_a_key_waits_as_told_and_other_keys_do_not(ring: Keyring) -> None:
    probe = Probe()
    ring.add("client", Scope.INGEST, rate=4)
    async with dialled(ring, probe) as channel:
        for _ in range(4):
            assert await call(channel, ring, "client") is grpc.StatusCode.OK
        error = None
        async with asyncio.timeout(DEADLINE_S):
            while error is None:  # on a slow machine a token has come back meanwhile
                error = await refusal(channel, ring, "client")
        entered = probe.entered
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        found = details_of(error)
        assert found["ErrorInfo"].reason == "RATE_LIMITED"
        assert [each.subject for each in found["QuotaFailure"].violations] == ["key:client"]
        wait = found["RetryInfo"].retry_delay.ToTimedelta()
        assert 0 < wait.total_seconds() <= 0.25
        assert await call(channel, ring, "other") is grpc.StatusCode.OK
        await asyncio.sleep(wait.total_seconds())  # what the contract asks of a client
        assert await call(channel, ring, "client") is grpc.StatusCode.OK
        assert probe.entered == entered + 2


async def test_messages_of_a_stream_above_the_rate_are_slowed_down_and_none_is_refused(ring: Keyring) -> None:
    rate, count = 20, 30
    ring.add("client", Scope.INGEST, rate=rate)
    async with dialled(ring) as channel:
        began = time.monotonic()
        method: Any = channel.stream_stream(
            f"/{SERVICE.full_name}/StreamStream", StringValue.SerializeToString, StringValue.FromString
        )
        sent = [StringValue(value=str(number)) for number in range(count)]
        answered = [each async for each in method(iter(sent), metadata=ring.sent("client"), timeout=DEADLINE_S)]
        took_s = time.monotonic() - began
    assert answered == sent
    assert took_s >= (count + 1 - rate) / rate - 0.01  # opening the stream took a token too


async def test_a_changed_file_gives_no_key_new_tokens(ring: Keyring) -> None:
    ring.add("client", Scope.INGEST, rate=RATE_MIN)
    async with dialled(ring) as channel:
        assert await call(channel, ring, "client") is grpc.StatusCode.OK
        assert await call(channel, ring, "client") is grpc.StatusCode.RESOURCE_EXHAUSTED
        ring.add("new", Scope.INGEST)
        await until(channel, ring, "new", grpc.StatusCode.OK)
        assert await call(channel, ring, "client") is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_keys_come_and_go_without_a_restart_and_a_broken_file_changes_nothing(
    ring: Keyring, capsys: pytest.CaptureFixture[str]
) -> None:
    async with dialled(ring) as channel:
        good = ring.path.read_bytes()
        ring.path.write_text("hunter2", "utf-8")
        said = ""
        async with asyncio.timeout(DEADLINE_S):
            while "file_not_reloaded" not in (said := said + capsys.readouterr().out):
                assert await call(channel, ring, "client") is grpc.StatusCode.OK
        assert "hunter2" not in said
        assert await call(channel, ring, "client") is grpc.StatusCode.OK
        ring.path.write_bytes(good)
        ring.add("new", Scope.INGEST).revoke("client")
        await until(channel, ring, "new", grpc.StatusCode.OK)
        assert await call(channel, ring, "client") is grpc.StatusCode.UNAUTHENTICATED
        assert await call(channel, ring, "other") is grpc.StatusCode.OK


@pytest.mark.parametrize("content", [None, "hunter2"])
async def test_a_server_does_not_start_without_the_keys_it_was_told_of(ring: Keyring, content: str | None) -> None:
    ring.path.unlink()
    if content:
        ring.path.write_text(content, "utf-8")
    with pytest.raises(SecurityRefused) as refused:
        async with dialled(ring):
            pass
    assert str(refused.value).startswith(str(ring.path))
    assert len(str(refused.value).splitlines()) == 1
    assert "hunter2" not in str(refused.value)
