"""A table is made into one function: it must find what its checks find one by one."""

import math

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from contract import checks
from contract.checks import Check, MessageRules, Rule, placed
from contract.signal_rules import SIGNAL
from contract.validation import EVENT
from omen.v1.signal_event_pb2 import SignalEvent
from omen.v1.signal_pb2 import Signal
from tests.contract.samples import full_event, least_event

TEXTS = [
    *(checks.text(4, least=1), checks.ascii_text(4), checks.identifier(4), checks.pattern("[ab]{1,3}", "must be ab")),
    *(checks.optional(checks.pattern("[ab]{2}", "must be ab")), checks.anything),
]
LISTS = [checks.labels(3), checks.repeated(checks.text(3), most=2), checks.repeated(checks.identifier(3))]
NUMBERS = [checks.between(-0.1, 1), checks.at_least_zero, checks.finite]

# What checks look for, and what is next to it.
texts = st.text("ab|\0\n~\x7fé\u0301e🚢", max_size=5)


@pytest.mark.parametrize("check", TEXTS)
@given(value=texts)
def test_a_table_finds_in_a_text_what_its_check_finds(check: Check, value: str) -> None:
    assert MessageRules(Rule("title", check)).violations(Signal(title=value)) == placed("title", check(value) or [])


@pytest.mark.parametrize("check", LISTS)
@given(values=st.lists(texts, max_size=3))
def test_a_table_finds_in_a_list_what_its_check_finds(check: Check, values: list[str]) -> None:
    assert MessageRules(Rule("tags", check)).violations(Signal(tags=values)) == placed("tags", check(values) or [])


@pytest.mark.parametrize("check", NUMBERS)
@given(value=st.floats() | st.sampled_from([0.0, 1.0, -0.1, math.nextafter(-0.1, -1), math.nextafter(1, 2)]))
def test_a_table_finds_in_a_number_what_its_check_finds(check: Check, value: float) -> None:
    found = MessageRules(Rule("probability", check)).violations(Signal(probability=value))
    assert found == placed("probability", check(value) or [])


@given(seconds=st.integers(-(1 << 63), (1 << 63) - 1), nanos=st.integers(-(1 << 31), (1 << 31) - 1))
def test_a_table_finds_in_a_time_what_its_check_finds(seconds: int, nanos: int) -> None:
    at = Timestamp(seconds=seconds, nanos=nanos)
    found = MessageRules(Rule("generated_at", checks.instant)).violations(Signal(generated_at=at))
    assert found == placed("generated_at", checks.instant(at) or [])


@pytest.mark.parametrize("event", [full_event(), least_event()], ids=["full", "least"])
def test_a_right_event_costs_no_call_of_a_check_but_for_text_beyond_ascii(
    event: SignalEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The expressions hold for what every event is like: that is what they are for."""
    event.signal.description = "In ASCII."
    judged: list[str] = []
    for rule in (*EVENT.fields, *SIGNAL.fields):
        monkeypatch.setattr(rule.check, "wrong", lambda value, field=rule.field: judged.append(field))
    assert EVENT.violations(event) == []
    assert judged == []
