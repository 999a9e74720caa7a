"""What a hostile client does to a server. Each ends by itself, and fails when it is not answered as it should be."""

import gzip
from collections.abc import Callable
from contextlib import ExitStack

import grpc

from tests.hostile.http2 import (
    END_HEADERS,
    ENHANCE_YOUR_CALM,
    KEPT,
    PREFACE,
    Connection,
    Kind,
    body,
    call_headers,
    connected,
    frame,
    header,
    kept_header,
    message,
    opening,
    reset,
)
from tests.hostile.values import MIB
from tests.hostile.victims import CALLS_MIN, SIGNAL, Victim

INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNAUTHENTICATED = 3, 8, 16

BOMB = gzip.compress(bytes(64 * MIB))
STREAMS_MAX = 256


def too_large(victim: Victim) -> None:
    assert victim.written(bytes(4 * MIB + 1)) is grpc.StatusCode.RESOURCE_EXHAUSTED


def bombs(victim: Victim) -> None:
    """64 KiB each, of which 64 MiB would come."""
    with connected(victim.port) as client:
        streams = range(1, 5, 2)
        for stream in streams:
            block = call_headers(victim.write, victim.key, grpc_encoding="gzip")
            client.send(opening(stream, block) + body(stream, message(BOMB, is_compressed=True)))
        assert client.statuses(*streams) == dict.fromkeys(streams, RESOURCE_EXHAUSTED)


def many_headers(victim: Victim) -> None:
    refuses_headers(victim, b"".join(header(f"name-{number}", "x") for number in range(1000)))


def a_huge_header(victim: Victim) -> None:
    refuses_headers(victim, header("name", "x" * MIB))


def a_header_named_again_and_again(victim: Victim) -> None:
    """14 KiB, of which 40 MiB would come."""
    refuses_headers(victim, kept_header("name", b"x" * 3900) + KEPT * 10_000)


def refuses_headers(victim: Victim, more: bytes) -> None:
    with connected(victim.port) as client:
        client.settle()
        client.send(opening(1, call_headers(victim.write, victim.key) + more) + body(1, message(b"")))
        assert client.status(1) == RESOURCE_EXHAUSTED


def headers_that_go_on(victim: Victim) -> None:
    """16 MiB of them before their end."""
    with connected(victim.port) as client:
        client.settle()
        client.send(frame(Kind.HEADERS, call_headers(victim.write, victim.key), stream=1))
        for _ in range(1024):
            client.send(frame(Kind.CONTINUATION, header("name", "x" * 16_000), stream=1))
        client.send(frame(Kind.CONTINUATION, stream=1, flags=END_HEADERS))
        assert client.status(1) == RESOURCE_EXHAUSTED


def malformed_messages(victim: Victim) -> None:
    with connected(victim.port) as client:
        streams = range(1, 201, 2)
        for stream in streams:
            client.send(opening(stream, call_headers(victim.write, victim.key)) + body(stream, message(b"\xff" * 100)))
        assert client.statuses(*streams) == dict.fromkeys(streams, INVALID_ARGUMENT)


def rapid_resets(victim: Victim) -> None:
    """Calls that are given up as soon as they are begun, so that they never count as open."""
    with connected(victim.port) as client:
        block = call_headers(victim.write, victim.key)
        for stream in range(1, 4001, 2):
            client.send(opening(stream, block) + reset(stream))
        client.ponged()


def too_many_streams(victim: Victim) -> None:
    """Those beyond the limit are refused, whether the client has taken over the settings or not."""
    for settle in (Connection.settle, Connection.ponged):
        with connected(victim.port) as client:
            settle(client)
            for stream in range(1, 2001, 2):
                client.send(opening(stream, call_headers(victim.write, victim.key)))
            for _ in range(1000 - 2 * STREAMS_MAX):  # a few may be over when the last are begun
                client.until(lambda each: each.kind == Kind.RST_STREAM)


def pings(victim: Victim) -> None:
    with connected(victim.port) as client:
        for _ in range(10_000):
            if not client.send(frame(Kind.PING, b"12345678")):
                break
        told = client.until_closed()
        assert any(each.kind == Kind.GOAWAY and each.payload[7] == ENHANCE_YOUR_CALM for each in told)


def settings_without_end(victim: Victim) -> None:
    """Each is to be acknowledged, and nobody reads the acknowledgements."""
    with connected(victim.port, receive_bytes=4096) as client:
        for _ in range(100):
            if not client.send(frame(Kind.SETTINGS) * 1000):
                break  # the server has stopped reading
        go_on(victim)


def half_openings(victim: Victim) -> None:
    """Cut off are who says nothing, half a preface, or no settings after it."""
    with ExitStack() as stack:
        openings = (b"", PREFACE[:10], PREFACE)
        clients = [stack.enter_context(connected(victim.port, each)) for each in openings for _ in range(20)]
        for client in clients:
            client.until_closed()


def slow_bodies(victim: Victim) -> None:
    """100 calls whose message comes byte by byte, each as late as a call of somebody else takes, and never whole."""
    with connected(victim.port) as client, victim.client() as call:
        client.settle()
        streams = range(1, 201, 2)
        for stream in streams:
            client.send(opening(stream, call_headers(victim.write, victim.key)))
        for byte in message(bytes(100))[:20]:
            call(victim.read, SIGNAL.SerializeToString())
            for stream in streams:
                assert client.send(frame(Kind.DATA, bytes([byte]), stream=stream))


def idle_connections(victim: Victim) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(victim.port)) for _ in range(1000)]
        for client in clients:
            client.settle()
        go_on(victim)


def go_on(victim: Victim) -> None:
    """As things are, for as long as many calls of somebody else take."""
    with victim.client() as call:
        for _ in range(2 * CALLS_MIN):
            call(victim.read, SIGNAL.SerializeToString())


ABUSES: list[Callable[[Victim], None]] = [
    too_large,
    bombs,
    many_headers,
    a_huge_header,
    a_header_named_again_and_again,
    headers_that_go_on,
    malformed_messages,
    rapid_resets,
    too_many_streams,
    pings,
    settings_without_end,
    half_openings,
    slow_bodies,
    idle_connections,
]
