"""A hostile client gets its status or is cut off; the server lives, keeps its memory, and others hardly notice."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from omen.v1.ledger_service_pb2 import ReplayRequest
from omen.v1.signal_service_pb2 import WAIT_FOR_LEDGER, EmitRequest, EmitResponse, WatchSignalsRequest
from serving.descriptors import OWN_FILES_MAX
from tests.hostile.abuses import ABUSES, BOMB, INVALID_ARGUMENT, UNAUTHENTICATED, go_on, rapid_resets, too_many_streams
from tests.hostile.http2 import GREEDY_HELLO, Connection, body, call_headers, connected, message, opening
from tests.hostile.requests import EMIT, event
from tests.hostile.values import MIB
from tests.hostile.victims import Victim, felt, victims
from tests.system.processes import Server, with_open_files

GROWTH_BYTES_MAX = 20 * MIB
WATCH = "/omen.v1.SignalService/WatchSignals"
REPLAY = "/omen.v1.LedgerService/Replay"
FILLED_BYTES = 12 * MIB
UNREAD_STREAMS = 2
FILES_MAX = 600
HEADERS_BYTES_TAKEN = 15 * 1024  # of 16 KiB, of which those of any call take some
# The 256 calls that a connection may have open take some 80 KiB each, whoever opens them.
GROWTH_OF_STREAMS_BYTES_MAX = 32 * MIB
# gRPC lets up to 3,000 calls wait to be picked up, whether they are reset or not, and refuses more. After 130,000
# resets 80 MB were seen, to which 40,000 more added nothing.
GROWTH_OF_RESETS_BYTES_MAX = 128 * MIB
GROWTHS: dict[Callable[[Victim], None], int] = {
    rapid_resets: GROWTH_OF_RESETS_BYTES_MAX,
    too_many_streams: GROWTH_OF_STREAMS_BYTES_MAX,
}
# Ten times what a call takes when nobody else is there, and a fifth of a second where that is next to nothing: probes
# and people wait as long, and a machine that tests on every core delays a call by as much all by itself.
SLOWER_MAX = 10
UNNOTICED_S = 0.2
ATTEMPTS = 8  # an abuse that hurts does so each time, a machine that is busy with something else does not


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Victim]]:
    """Once each has been read from a hundred times, and so has loaded what it needs to serve."""
    with victims(tmp_path_factory.mktemp("abuse")) as running:
        for victim in running.values():
            felt(victim, nothing)
        yield running


def nothing(_victim: Victim) -> None:
    """What an abuse is compared with."""


def is_hardly_noticed(victim: Victim, abuse: Callable[[Victim], None]) -> bool:
    """By others, at one attempt at least."""
    for _ in range(ATTEMPTS):
        p99_s = felt(victim, abuse)
        if p99_s <= UNNOTICED_S or p99_s <= SLOWER_MAX * felt(victim, nothing):
            return True
    return False


@pytest.mark.parametrize("name", ["omen", "riskcast"])
@pytest.mark.parametrize("abuse", ABUSES, ids=lambda abuse: abuse.__name__)
def test_an_abuse_costs_little_memory_and_others_hardly_notice(
    both: dict[str, Victim], name: str, abuse: Callable[[Victim], None]
) -> None:
    victim = both[name]
    victim.forget_peak()
    resident = victim.resident_bytes()
    assert is_hardly_noticed(victim, abuse)
    growth_max = GROWTHS.get(abuse, GROWTH_BYTES_MAX)
    assert victim.peak_bytes() - resident < growth_max
    assert victim.is_alive


@pytest.mark.parametrize("name", ["omen", "riskcast"])
def test_headers_that_are_no_larger_than_the_limit_are_always_taken(both: dict[str, Victim], name: str) -> None:
    victim = both[name]
    with connected(victim.port) as client:
        client.settle()
        streams = range(1, 41, 2)
        for stream in streams:
            block = call_headers(victim.write, victim.key, name="x" * HEADERS_BYTES_TAKEN)
            client.send(opening(stream, block) + body(stream, message(b"")))
        assert client.statuses(*streams) == dict.fromkeys(streams, INVALID_ARGUMENT)


def test_whoever_never_reads_a_replay_costs_little_memory(both: dict[str, Victim]) -> None:
    victim = both["omen"]
    partition = fill(victim, FILLED_BYTES)
    request = message(ReplayRequest(partition=partition).SerializeToString())
    victim.forget_peak()
    resident = victim.resident_bytes()
    with ExitStack() as stack:
        for _ in range(UNREAD_STREAMS):
            client = stack.enter_context(connected(victim.port, GREEDY_HELLO, receive_bytes=4096))
            client.send(opening(1, call_headers(REPLAY, victim.key)) + body(1, request))
        assert is_hardly_noticed(victim, go_on)
        assert victim.peak_bytes() - resident < GROWTH_BYTES_MAX


def test_whoever_watches_and_never_reads_costs_little_memory_and_others_hardly_notice(
    both: dict[str, Victim],
) -> None:
    victim = both["omen"]
    request = message(WatchSignalsRequest().SerializeToString())
    victim.forget_peak()
    resident = victim.resident_bytes()
    with ExitStack() as stack:
        for _ in range(UNREAD_STREAMS):
            client = stack.enter_context(connected(victim.port, GREEDY_HELLO, receive_bytes=4096))
            client.send(opening(1, call_headers(WATCH, victim.key)) + body(1, request))
        fill(victim, FILLED_BYTES)
        assert is_hardly_noticed(victim, go_on)
        assert victim.peak_bytes() - resident < GROWTH_BYTES_MAX


def fill(victim: Victim, total_bytes: int) -> str:
    """Emits so many bytes of events; the partition they are in."""
    large = event(1)
    large.signal.explanation = "\U0001f6a2" * 20_000
    partition, sent = "", 0
    with victim.client() as call:
        while sent < total_bytes:
            large.source_event_id = f"large:{sent}"
            request = EmitRequest(event=large, wait_for=WAIT_FOR_LEDGER).SerializeToString()
            partition = EmitResponse.FromString(call(victim.write, request)).emission.position.partition
            sent += len(request)
    return partition


def test_connections_leave_the_ledger_the_files_that_it_needs(tmp_path: Path) -> None:
    server = Server("omen_server", {"OMEN_LEDGER_DIR": str(tmp_path)}, begin=with_open_files(FILES_MAX))
    victim = Victim(server, key="", write=EMIT, read="")
    request = EmitRequest(event=event(1), wait_for=WAIT_FOR_LEDGER).SerializeToString()
    asyncio.run(server.start())
    try:
        with victim.client() as call, ExitStack() as stack:
            call(EMIT, request)
            clients = [stack.enter_context(connected(victim.port)) for _ in range(FILES_MAX)]
            taken = [client for client in clients if is_taken(client)]
            assert len(taken) == FILES_MAX - OWN_FILES_MAX - 1  # the one that emits is taken too
            assert victim.open_files() <= FILES_MAX - OWN_FILES_MAX + OWN_FILES_MAX // 2
            call(EMIT, request)
    finally:
        asyncio.run(server.kill())


def is_taken(client: Connection) -> bool:
    """Whether the server greets it, instead of closing."""
    return next(client.frames(), None) is not None


@pytest.mark.parametrize("name", ["omen", "riskcast"])
def test_a_call_without_a_key_is_refused_before_any_of_its_body_is_read(both: dict[str, Victim], name: str) -> None:
    victim = both[name]
    bodies = [None, b"", message(b"\xff" * 100), message(BOMB, is_compressed=True), message(bytes(4 * MIB + 1))[:MIB]]
    for sent in bodies:
        with connected(victim.port) as client:
            client.settle()
            block = call_headers(victim.write, "nobody.knows-it", grpc_encoding="gzip")
            client.send(opening(1, block) + (b"" if sent is None else body(1, sent)))
            assert client.status(1) == UNAUTHENTICATED
