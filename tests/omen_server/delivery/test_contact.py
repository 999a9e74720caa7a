"""When RiskCast is called again, with a connection that does what the test says."""

import asyncio
from random import Random
from typing import Any

from omen.v1.delivery_service_pb2 import BREAKER_STATE_CLOSED, BREAKER_STATE_HALF_OPEN, BREAKER_STATE_OPEN
from omen_server.delivery import contact
from omen_server.delivery.breaker import Breaker
from omen_server.delivery.contact import Contact
from omen_server.delivery.retry import RetryPolicy
from omen_server.delivery.stream import HELLO_TIMEOUT_MAX_S, HELLO_TIMEOUT_S, Disconnected
from omen_server.metrics import LEDGER, NO_ANSWER, NO_HELLO, DeliveryMetrics


class FakeLine:
    """`made_anew` is set when the connection was."""

    def __init__(self, *, is_ready: bool = False) -> None:
        self.is_ready = is_ready
        self.made_anew = asyncio.Event()
        self.asked: list[bool] = []
        self.redialled = 0

    def stream(self) -> Any:
        raise NotImplementedError

    async def ready_again(self, *, was_ready: bool) -> None:
        self.asked.append(was_ready)
        await self.made_anew.wait()

    def redial(self) -> None:
        self.redialled += 1


class Known(Random):
    """Draws the longest wait."""

    def uniform(self, a: float, b: float) -> float:
        return b


def contact_of(line: FakeLine, open_s: float = 3600.0) -> Contact:
    return Contact(line, Breaker(open_s), RetryPolicy(first_s=0.001, most_s=0.002), Known(), DeliveryMetrics())


def fail(made: Contact, times: int, **broken: Any) -> None:
    for _ in range(times):
        made.failed(Disconnected("no", **broken))


async def test_what_is_omens_own_fault_or_may_be_a_records_opens_no_breaker_and_is_waited_for_all_the_same() -> None:
    made, in_doubt = contact_of(FakeLine()), Disconnected("a message was not answered")
    in_doubt.is_in_doubt = True
    fail(made, 10, cause=LEDGER)
    for _ in range(10):
        made.failed(in_doubt)
    assert (made.breaker_state, made.failures) == (BREAKER_STATE_CLOSED, 20)


async def test_five_failures_open_the_breaker_and_a_connection_made_anew_lets_the_next_call_through() -> None:
    line = FakeLine()
    made = contact_of(line)
    fail(made, 4)
    await asyncio.wait_for(made.until_allowed(), 5)
    fail(made, 1)
    assert made.breaker_state == BREAKER_STATE_OPEN
    allowed = asyncio.ensure_future(made.until_allowed())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not allowed.done()
    line.made_anew.set()
    await asyncio.wait_for(allowed, 5)
    assert made.breaker_state == BREAKER_STATE_HALF_OPEN
    made.greeted(is_more_to_come=True)
    assert made.breaker_state == BREAKER_STATE_HALF_OPEN  # a RiskCast may answer hellos and take nothing
    made.answered()
    assert made.breaker_state == BREAKER_STATE_CLOSED


async def test_with_nothing_to_send_a_hello_closes_the_breaker() -> None:
    made = contact_of(FakeLine())
    fail(made, 5)
    made.forgive()
    made.greeted(is_more_to_come=False)
    assert made.breaker_state == BREAKER_STATE_CLOSED


async def test_when_the_connection_tells_nothing_the_next_call_comes_after_the_time() -> None:
    made = contact_of(FakeLine(), open_s=0.05)
    fail(made, 5)
    await asyncio.wait_for(made.until_allowed(), 5)
    assert made.breaker_state == BREAKER_STATE_HALF_OPEN
    fail(made, 1)
    assert made.breaker_state == BREAKER_STATE_OPEN


async def test_a_connection_that_stood_when_the_call_failed_does_not_count_as_made_anew() -> None:
    for is_ready in (True, False):
        line = FakeLine(is_ready=is_ready)
        line.made_anew.set()
        made = contact_of(line)
        fail(made, 5)
        await asyncio.wait_for(made.until_allowed(), 5)
        assert line.asked == [is_ready]


async def test_silence_redials_and_each_hello_in_vain_doubles_the_patience_for_the_next() -> None:
    line = FakeLine()
    made = contact_of(line)
    fail(made, 1, cause=NO_ANSWER)
    assert (line.redialled, made.hello_timeout_s) == (1, HELLO_TIMEOUT_S)
    fail(made, 2, cause=NO_HELLO)
    assert (line.redialled, made.hello_timeout_s) == (3, 4 * HELLO_TIMEOUT_S)
    fail(made, 5, cause=NO_HELLO)
    assert made.hello_timeout_s == HELLO_TIMEOUT_MAX_S
    made.greeted(is_more_to_come=True)
    assert made.hello_timeout_s == HELLO_TIMEOUT_S
    fail(made, 1)
    assert line.redialled == 8


async def test_only_a_message_that_is_answered_ends_a_row_of_failures() -> None:
    made = contact_of(FakeLine())
    fail(made, 2)
    made.greeted(is_more_to_come=True)
    assert made.failures == 2
    made.answered()
    assert made.failures == 0


async def test_a_line_that_breaks_after_each_answer_is_called_no_more_often_for_that(monkeypatch: Any) -> None:
    monkeypatch.setattr(contact, "CALLS_PER_S_MAX", 20.0)
    made = contact_of(FakeLine())
    loop = asyncio.get_running_loop()
    began = loop.time()
    for _ in range(30):
        await made.until_allowed()
        made.greeted(is_more_to_come=True)
        made.answered()
        fail(made, 1)
    assert loop.time() - began >= (30 - 20) / 20 - 0.01  # so many at once, and then so many a second
    assert made.breaker_state == BREAKER_STATE_CLOSED


async def test_what_people_have_to_mend_is_asked_again_rarely_and_opens_no_breaker(monkeypatch: Any) -> None:
    monkeypatch.setattr(contact, "HELD_RETRY_S", 0.2)
    made = contact_of(FakeLine())
    fail(made, 20, holds=True)
    assert made.breaker_state == BREAKER_STATE_CLOSED
    loop = asyncio.get_running_loop()
    began = loop.time()
    await made.back_off(Disconnected("no", holds=True))
    assert loop.time() - began >= 0.2
    began = loop.time()
    await made.back_off(Disconnected("no", retry_delay_s=0.1))
    assert loop.time() - began >= 0.1


async def test_a_record_that_was_known_to_end_streams_says_nothing_of_riskcast() -> None:
    line = FakeLine()
    made = contact_of(line)
    for _ in range(50):
        broken = Disconnected("no", cause=NO_ANSWER)
        broken.is_expected = True
        made.failed(broken)
    assert (made.breaker_state, made.failures) == (BREAKER_STATE_CLOSED, 0)
    assert line.redialled == 50, "it may all the same be the connection"


async def test_an_operator_who_resumes_gets_a_call_at_once() -> None:
    made = contact_of(FakeLine())
    fail(made, 9)
    made.forgive()
    await asyncio.wait_for(made.until_allowed(), 5)
    assert (made.failures, made.breaker_state) == (0, BREAKER_STATE_HALF_OPEN)
