"""Every method that a real server mounts, called with every kind of key: the right one alone enters a handler."""

import asyncio
import struct
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from google.protobuf.descriptor_pool import Default
from grpc_reflection.v1alpha import reflection_pb2

from contract.errors import ErrorDetails
from contract.scopes import SCOPES, Scope
from omen.v1 import signal_service_pb2 as signal_pb
from omen.v1.signal_service_pb2_grpc import SignalServiceStub
from riskcast.v1 import ingest_service_pb2 as ingest_pb
from serving.access.keys import new_key
from tests.omen_server.running import Omen, closed_port, omen
from tests.riskcast_server.events import LEDGER
from tests.riskcast_server.running import Client, riskcast
from tests.serving.access.keyring import HEADER, Keyring
from tests.system.entering import DEADLINE_S, Entrances, watching

HEALTH = "grpc.health.v1.Health"
REFLECTION = ("grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection")
INFO = "ServerReflectionInfo"  # the one method of both versions
ENDS_WITHIN_S = 5.0
YESTERDAY = datetime.now(UTC) - timedelta(days=1)

Metadata = tuple[tuple[str, str], ...]
Served = Omen | Client


class Answer(NamedTuple):
    """All that a client is told when a call is refused, or ended."""

    code: grpc.StatusCode
    text: str | None
    initial: tuple[Any, ...]
    trailing: tuple[Any, ...]

    @property
    def reason(self) -> str:
        details = ErrorDetails.from_trailing_metadata(self.trailing)
        return details.reason if details else ""


def a_key_id(scope: Scope) -> str:
    return scope.replace(".", "-")


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    """For each scope a key that has nothing else, and one that has all the others."""
    ring = Keyring(tmp_path / "keys.json")
    for scope in Scope:
        ring.add(a_key_id(scope), scope)
        ring.add(f"not-{a_key_id(scope)}", *(other for other in Scope if other is not scope))
    ring.add("all", *Scope).add("none").add("expired", *Scope, expires_at=YESTERDAY)
    ring.add("revoked", *Scope).revoke("revoked")
    return ring


def omen_with(keyring: Keyring) -> AbstractAsyncContextManager[Omen]:
    return omen(keyring.path.parent / "ledger", closed_port(), api_keys_file=keyring.path)


def riskcast_with(keyring: Keyring) -> AbstractAsyncContextManager[Client]:
    return riskcast(keyring.path.parent, api_keys_file=keyring.path, reconcile_interval=0)


SERVERS: dict[str, Callable[[Keyring], AbstractAsyncContextManager[Served]]] = {
    "omen.v1": omen_with,
    "riskcast.v1": riskcast_with,
}

BAD: dict[str, Callable[[Keyring], Metadata]] = {
    "none": lambda ring: (),
    "bad secret": lambda ring: ((HEADER, new_key("all")),),
    "unknown id": lambda ring: ((HEADER, new_key("nobody")),),
    "malformed": lambda ring: ((HEADER, "all"),),
    "doubled": lambda ring: ring.sent("all") * 2,
    "revoked": lambda ring: ring.sent("revoked"),
    "expired": lambda ring: ring.sent("expired"),
}


def opened(channel: grpc.aio.Channel, method: str, metadata: Metadata) -> Any:
    """A call with an empty message, or, where messages are a stream, with none: it is judged by its headers alone."""
    service, _, name = method[1:].partition("/")
    kind = maybe_method(service, name)
    if kind is None or not (kind.client_streaming or kind.server_streaming):
        call: Any = channel.unary_unary(method)
    elif not kind.client_streaming:
        call = channel.unary_stream(method)
    else:
        return channel.stream_stream(method)(metadata=metadata, timeout=DEADLINE_S)
    return call(b"", metadata=metadata, timeout=DEADLINE_S)


def maybe_method(service: str, name: str) -> Any:
    """As descriptors have it. The reflection of v1 has none of its own: it is that of v1alpha."""
    try:
        return Default().FindServiceByName(REFLECTION[0] if service in REFLECTION else service).methods_by_name[name]
    except KeyError:
        return None


async def how_it_ends(call: Any) -> Answer:
    initial, trailing = await call.initial_metadata(), await call.trailing_metadata()
    return Answer(await call.code(), await call.details(), tuple(initial), tuple(trailing))


async def mounted_methods(served: Served, metadata: Metadata, entrances: Entrances) -> list[str]:
    """Every method of every service that has handlers in the running server, as descriptors say."""
    call: Any = served.channel.stream_stream(
        f"/{REFLECTION[0]}/{INFO}",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    [listed] = [each async for each in call([request], metadata=metadata, timeout=DEADLINE_S)]
    names = {service.name for service in listed.list_services_response.service}
    assert entrances.services == names | {REFLECTION[1]}
    found = [method for name in names for method in Default().FindServiceByName(name).methods]
    return [f"/{method.containing_service.full_name}/{method.name}" for method in found] + [f"/{REFLECTION[1]}/{INFO}"]


def is_of(method: str, *services: str) -> bool:
    return method.split("/")[1] in services


@pytest.mark.parametrize("domain", SERVERS)
async def test_no_handler_is_entered_but_with_the_right_key(
    domain: str, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    entrances = watching(monkeypatch)
    async with SERVERS[domain](keyring) as served:
        methods = await mounted_methods(served, keyring.sent("all"), entrances)
        guarded = [method for method in methods if not is_of(method, HEALTH)]
        assert {method for method in guarded if not is_of(method, *REFLECTION)} == {
            method for method in SCOPES if method.startswith(f"/{domain}.")
        }
        entrances.entered.clear()
        entrances.parsed.clear()

        refusals = {
            (what, method): await how_it_ends(opened(served.channel, method, sent(keyring)))
            for what, sent in BAD.items()
            for method in guarded
        }
        assert {refusal.code for refusal in refusals.values()} == {grpc.StatusCode.UNAUTHENTICATED}
        assert {refusal.reason for refusal in refusals.values()} == {"BAD_CREDENTIALS"}
        assert len(set(refusals.values())) == 1, "the answer tells what is wrong with a key"

        for method in guarded:
            if scope := SCOPES.get(method):
                for key_id in (f"not-{a_key_id(scope)}", "none"):
                    refusal = await how_it_ends(opened(served.channel, method, keyring.sent(key_id)))
                    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING"), (
                        method
                    )
        assert entrances.entered.total() == 0, entrances.entered
        assert entrances.parsed.total() == 0, entrances.parsed

        for number, method in enumerate(guarded, start=1):
            key_id = a_key_id(SCOPES[method]) if method in SCOPES else "none"
            call = opened(served.channel, method, keyring.sent(key_id))
            await entrances.until_entered(method, 1)
            call.cancel()
            assert (entrances.entered[method], entrances.entered.total()) == (1, number)


@pytest.mark.parametrize("domain", SERVERS)
async def test_health_answers_whoever_asks(domain: str, keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    entrances = watching(monkeypatch)
    async with SERVERS[domain](keyring) as served:
        methods = [f"/{HEALTH}/{method.name}" for method in Default().FindServiceByName(HEALTH).methods]
        assert len(methods) == 3
        for method in methods:
            for sent in BAD.values():
                call = opened(served.channel, method, sent(keyring))
                assert (await call.read() if method.endswith("/Watch") else await call) is not grpc.aio.EOF
                call.cancel()
        assert entrances.entered == dict.fromkeys(methods, len(BAD))


@pytest.mark.parametrize("domain", SERVERS)
@pytest.mark.parametrize(
    "method", ["/{}.SignalService/Nothing", "/nobody.v1.Service/Call", "/grpc.health.v1.Health/No"]
)
async def test_that_a_method_is_not_there_is_told_to_those_with_a_key_alone(
    domain: str, method: str, keyring: Keyring
) -> None:
    async with SERVERS[domain](keyring) as served:
        refused = await how_it_ends(opened(served.channel, method.format(domain), ()))
        assert refused.reason == "BAD_CREDENTIALS"
        told = await how_it_ends(opened(served.channel, method.format(domain), keyring.sent("none")))
        assert (told.code, told.reason) == (grpc.StatusCode.UNIMPLEMENTED, "NOT_IMPLEMENTED")


@pytest.mark.parametrize(("domain", "method"), [("omen.v1", "Emit"), ("riskcast.v1", "Ingest")])
async def test_a_call_is_refused_though_its_body_never_arrives(
    domain: str, method: str, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    entrances = watching(monkeypatch)
    service = "SignalService" if method == "Emit" else "IngestService"
    async with SERVERS[domain](keyring) as served:
        port = served.port if isinstance(served, Omen) else int(served.target.rpartition(":")[2])
        said = await headers_and_the_beginning_of_a_body(port, f"/{domain}.{service}/{method}".encode())
    assert b"grpc-status\x0216" in said
    assert entrances.entered.total() == entrances.parsed.total() == 0


async def headers_and_the_beginning_of_a_body(port: int, path: bytes) -> bytes:
    """A call without a key, by hand: 4 MiB are announced, ten bytes sent. What the server says, to its status."""
    headers = [
        (b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"localhost"),
        (b"te", b"trailers"), (b"content-type", b"application/grpc"),
    ]  # fmt: skip
    block = b"".join(b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in headers)
    body = struct.pack(">BI", 0, 4 << 20) + b"x" * 10
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(1, 4, 1, block) + frame(0, 0, 1, body)
        )
        said = b""
        async with asyncio.timeout(DEADLINE_S):
            while b"grpc-status" not in said and (more := await reader.read(4096)):
                said += more
        return said
    finally:
        writer.close()


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


async def ended_within(call: Any) -> Answer:
    """How an open stream ends by itself, in the time that is promised."""
    async with asyncio.timeout(ENDS_WITHIN_S):
        return await how_it_ends(call)


async def test_open_streams_into_the_store_end_with_their_keys_and_others_go_on(tmp_path: Path) -> None:
    ring = Keyring(tmp_path / "keys.json")
    for key_id in ("revoked", "expiring", "narrowed", "kept"):
        ring.add(key_id, Scope.INGEST)
    hello = ingest_pb.IngestStreamRequest(hello=ingest_pb.IngestHello(ledger_id=LEDGER))
    async with riskcast_with(ring) as served:
        calls = {key_id: served.ingest_stub.IngestStream(metadata=ring.sent(key_id)) for key_id in ring.texts}
        for call in calls.values():
            await call.write(hello)
            assert (await call.read()).HasField("hello")
        ring.add("narrowed", Scope.SIGNALS_READ)
        ring.add("expiring", Scope.INGEST, expires_at=datetime.now(UTC) + timedelta(seconds=1))
        ring.revoke("revoked")
        ends = await asyncio.gather(*(ended_within(calls[key_id]) for key_id in ("revoked", "expiring", "narrowed")))
        assert [end.reason for end in ends] == ["BAD_CREDENTIALS", "BAD_CREDENTIALS", "SCOPE_MISSING"]
        await calls["kept"].write(ingest_pb.IngestStreamRequest(batch=ingest_pb.IngestBatch(records=[])))
        assert (await how_it_ends(calls["kept"])).reason == "INVALID_SIGNAL"  # an empty batch: it was heard


async def test_open_watches_end_with_their_keys_and_others_go_on(tmp_path: Path) -> None:
    ring = Keyring(tmp_path / "keys.json")
    for key_id in ("revoked", "kept"):
        ring.add(key_id, Scope.SIGNALS_READ)
    async with omen_with(ring) as served:
        stub: Any = SignalServiceStub(served.channel)
        request = signal_pb.WatchSignalsRequest()
        calls = {key_id: stub.WatchSignals(request, metadata=ring.sent(key_id)) for key_id in ring.texts}
        for call in calls.values():
            assert await call.read()
        ring.revoke("revoked")
        assert (await ended_within(calls["revoked"])).reason == "BAD_CREDENTIALS"
        assert not calls["kept"].done()
        calls["kept"].cancel()


@pytest.mark.parametrize("service", REFLECTION)
async def test_open_reflections_end_with_their_keys_and_others_go_on(tmp_path: Path, service: str) -> None:
    ring = Keyring(tmp_path / "keys.json").add("revoked").add("kept")
    request = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    async with omen_with(ring) as served:
        open_call: Any = served.channel.stream_stream(f"/{service}/{INFO}")
        calls = {key_id: open_call(metadata=ring.sent(key_id)) for key_id in ring.texts}
        for call in calls.values():
            await call.write(request)
            assert await call.read()
        ring.revoke("revoked")
        assert (await ended_within(calls["revoked"])).reason == "BAD_CREDENTIALS"
        await calls["kept"].write(request)
        assert await calls["kept"].read()
        calls["kept"].cancel()
