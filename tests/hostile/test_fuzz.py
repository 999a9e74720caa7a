"""Whatever is sent to whatever method, the answer is one of the contract's, and nothing is stored that was refused."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from omen.v1.signal_event_pb2 import SignalEvent
from riskcast.v1.ingest_service_pb2 import IngestStreamRequest
from tests.hostile.books import Books
from tests.hostile.messages import Draw, fields_of, garbled, hostile, set_value
from tests.hostile.requests import EMIT, INGEST, INGEST_STREAM, PROCESS, good_requests, known
from tests.hostile.servers import METHODS, Both, both
from tests.hostile.values import bad_values, hostile_values

CALLS = 1000
CALLS_OF_A_SOAK = 10_000
SEED = 20260129

# As often as it has fields to spoil, so that each field of an event is spoiled a few times and no method is left out.
WEIGHTED = [path for path, method in METHODS.items() for _ in range(2 + len(fields_of(method.input_type)) // 4)]
WEIGHTED += [INGEST_STREAM] * 10  # to a descriptor its events are bytes

Attack = Callable[[Draw, list[Message]], list[bytes]]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    with both(tmp_path_factory.mktemp("fuzz")) as running:
        yield running


def typed(draw: Draw, good: list[Message]) -> list[bytes]:
    """One of the requests of a call is spoiled, in its fields or in those of the event that it carries as bytes."""
    at = draw(st.integers(0, len(good) - 1))
    requests = [request.SerializeToString() for request in good]
    request = good[at]
    if isinstance(request, IngestStreamRequest) and request.HasField("batch") and draw(st.booleans()):
        record = request.batch.records[0]
        record.event = hostile(draw, SignalEvent.FromString(record.event))
        requests[at] = request.SerializeToString()
    else:
        requests[at] = hostile(draw, request)
    return requests


def raw(draw: Draw, good: list[Message]) -> list[bytes]:
    """One of the requests of a call is bytes that may be no message at all."""
    at = draw(st.integers(0, len(good) - 1))
    requests = [request.SerializeToString() for request in good]
    requests[at] = garbled(draw, requests[at])
    return requests


def fuzzed(servers: Both, attack: Attack, calls: int, chance: int) -> None:
    """Makes so many hostile calls, judges each, and then what the servers hold and whether they still serve."""
    good = good_requests(known(servers))
    books = Books(servers)

    @seed(chance)
    @settings(
        max_examples=calls,
        database=None,
        deadline=None,
        phases=[Phase.generate],  # the servers remember: a smaller call may not fail again
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def call(data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(WEIGHTED))
        books.enter(path, attack(data.draw, good[path]()))

    call()
    assert books.calls >= calls
    for path in (EMIT, PROCESS, INGEST, INGEST_STREAM):
        requests = [request.SerializeToString() for request in good[path]()]
        assert books.enter(path, requests).code is grpc.StatusCode.OK
    books.balance()


@pytest.mark.parametrize("attack", [typed, raw])
def test_whatever_is_sent_is_answered_by_the_contract_and_nothing_is_stored_that_was_refused(
    servers: Both, attack: Attack
) -> None:
    fuzzed(servers, attack, CALLS, SEED)


@pytest.mark.parametrize(("path", "of"), [(EMIT, "event"), (INGEST, "event"), (PROCESS, "observation")])
def test_no_door_takes_a_bad_value_in_any_field(servers: Both, path: str, of: str) -> None:
    good = good_requests(known(servers))[path]
    books = Books(servers)
    for place in fields_of(METHODS[path].input_type):
        for value in bad_values(place[-1]) if place[0].name == of else ():
            [request] = good()
            set_value(request, place, value)
            answer = books.enter(path, [request.SerializeToString()])
            assert answer.code is grpc.StatusCode.INVALID_ARGUMENT, f"{[step.name for step in place]}: {value!r:.80}"
    books.balance()


def test_no_value_in_any_field_of_any_request_is_a_bug(servers: Both) -> None:
    """But those inside an event or an observation, which the doors judge."""
    good = good_requests(known(servers))
    books = Books(servers)
    for path, method in METHODS.items():
        judged = [each for each in fields_of(method.input_type) if not re.search(r"event|observation", each[0].name)]
        for place in judged:
            for value in hostile_values(place[-1]):
                requests = good[path]()
                set_value(requests[-1], place, value)
                books.enter(path, [request.SerializeToString() for request in requests])
    books.balance()


@pytest.mark.soak
@pytest.mark.parametrize("attack", [typed, raw])
def test_ten_times_as_much_too(tmp_path: Path, attack: Attack, soak_seed: int) -> None:
    with both(tmp_path) as servers:
        fuzzed(servers, attack, CALLS_OF_A_SOAK, soak_seed)
