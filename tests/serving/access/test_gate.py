"""Who is let in, judged by headers alone; and whose streams go on."""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from contract.errors import ContractError, Reason
from contract.scopes import Scope
from serving.access.gate import HEALTH, NO_METHOD, NOBODY, REFLECTION, Gate, Guest
from serving.access.keys import ApiKey, new_key, sha256_of

READ, WRITE = "/probe.v1.Probe/Read", "/probe.v1.Probe/Write"
SCOPES = {READ: Scope.SIGNALS_READ, WRITE: Scope.SIGNALS_EMIT}
NOON = datetime(2026, 1, 29, 12, tzinfo=UTC)

TEXTS = {key_id: new_key(key_id) for key_id in ("reader", "writer", "both", "none", "past", "slow")}


def a_key(key_id: str, *scopes: Scope, **limits: Any) -> ApiKey:
    return ApiKey(id=key_id, sha256=sha256_of(TEXTS[key_id]), scopes=frozenset(scopes), **limits)


@dataclass
class World:
    """A gate, whose clocks and keys a test moves."""

    keys: Sequence[ApiKey] = (
        a_key("reader", Scope.SIGNALS_READ),
        a_key("writer", Scope.SIGNALS_EMIT),
        a_key("both", Scope.SIGNALS_READ, Scope.SIGNALS_EMIT),
        a_key("none"),
        a_key("past", Scope.SIGNALS_READ, expires_at=NOON),
        a_key("slow", Scope.SIGNALS_READ, rate=2),
    )
    now: datetime = NOON
    seconds: float = 0.0
    gate: Gate = field(init=False)

    def __post_init__(self) -> None:
        self.gate = Gate(lambda: self.keys, SCOPES, utc_now=lambda: self.now, monotonic=lambda: self.seconds)

    def say(self, *keys: ApiKey) -> None:
        self.keys = keys
        self.gate.refresh()

    def enter(self, method: str, *headers: tuple[str, str | bytes]) -> Guest:
        guest = self.gate.identify(method, headers)
        self.gate.allow(guest, method)
        return guest

    def refused(self, method: str, *headers: tuple[str, str | bytes]) -> ContractError:
        with pytest.raises(ContractError) as caught:
            self.enter(method, *headers)
        return caught.value


def key(key_id: str) -> tuple[str, str]:
    return ("x-api-key", TEXTS[key_id])


def test_a_key_enters_what_its_scopes_say_and_nothing_else() -> None:
    world = World()
    assert world.enter(READ, key("reader")).key_id == "reader"
    assert world.enter(WRITE, key("writer")).key_id == "writer"
    assert [world.enter(method, key("both")).key_id for method in (READ, WRITE)] == ["both", "both"]
    for key_id, method, scope in [("reader", WRITE, "signals.emit"), ("writer", READ, "signals.read")]:
        refusal = world.refused(method, key(key_id))
        assert (refusal.reason, refusal.metadata) == (Reason.SCOPE_MISSING, {"scope": scope})


def test_a_method_that_no_scope_is_named_for_is_open_to_no_key() -> None:
    refusal = World().refused("/probe.v1.Probe/Forgotten", key("both"))
    assert (refusal.reason, refusal.metadata) == (Reason.SCOPE_MISSING, {})


WRONG: dict[str, list[tuple[str, str | bytes]]] = {
    "no key": [],
    "an empty key": [("x-api-key", "")],
    "an unknown id": [("x-api-key", new_key("nobody"))],
    "another secret": [("x-api-key", new_key("reader"))],
    "the id alone": [("x-api-key", "reader")],
    "the id and a dot": [("x-api-key", "reader.")],
    "a key cut short": [("x-api-key", TEXTS["reader"][:-1])],
    "a key and more": [("x-api-key", TEXTS["reader"] + "a")],
    "space around it": [("x-api-key", f" {TEXTS['reader']} ")],
    "another header": [("authorization", TEXTS["reader"])],
    "the same key twice": [key("reader"), key("reader")],
    "two keys": [key("reader"), key("writer")],
    "two keys in one": [("x-api-key", f"{TEXTS['reader']}, {TEXTS['writer']}")],
    "no ASCII": [("x-api-key", "réader.ключ")],
    "half a character": [("x-api-key", "reader.\udce9")],
    "bytes": [("x-api-key", TEXTS["reader"].encode())],
    "a key as long as all metadata": [("x-api-key", TEXTS["reader"] + "x" * 16_000)],
    "the hash instead of the key": [("x-api-key", sha256_of(TEXTS["reader"]))],
    "a hash of nothing": [("x-api-key", "0" * 64)],
    "an expired key": [key("past")],
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize(
    "method", [READ, "/probe.v1.Probe/Forgotten", NO_METHOD, *(f"{each}Info" for each in REFLECTION)]
)
def test_whatever_is_wrong_with_a_key_the_answer_is_one_and_the_same(what: str, method: str) -> None:
    refusal = World().refused(method, *WRONG[what])
    assert refusal.reason is Reason.BAD_CREDENTIALS
    assert refusal.status("omen.v1") == World().refused(READ).status("omen.v1")
    assert "reader" not in str(refusal.status("omen.v1"))


@pytest.mark.parametrize("what", WRONG)
def test_each_key_is_compared_once_in_constant_time_unknown_ones_too(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[int, int]] = []
    constant_time = hmac.compare_digest

    def compare(given: str, expected: str) -> bool:
        compared.append((len(given), len(expected)))
        return constant_time(given, expected)

    world = World()
    monkeypatch.setattr(hmac, "compare_digest", compare)
    world.refused(READ, *WRONG[what])
    assert compared == [(64, 64)]


def test_anybody_may_ask_for_health() -> None:
    assert World().enter(f"{HEALTH}Check") is NOBODY
    assert World().enter(f"{HEALTH}Watch", ("x-api-key", "nonsense")) is NOBODY


def test_whoever_has_a_key_may_reflect_and_learn_that_a_method_is_not_there() -> None:
    for method in (NO_METHOD, *(f"{each}ServerReflectionInfo" for each in REFLECTION)):
        assert World().enter(method, key("none")).key_id == "none"


def test_without_keys_anybody_may_do_anything() -> None:
    gate = Gate(None, SCOPES)
    guest = gate.identify(WRITE, [("x-api-key", "nonsense")])
    gate.allow(guest, WRITE)
    gate.check_again(guest, WRITE)
    assert guest is NOBODY


def test_no_keys_at_all_in_the_file_let_nobody_in() -> None:
    assert World(keys=()).refused(READ, key("reader")).reason is Reason.BAD_CREDENTIALS


def test_a_key_is_valid_until_the_instant_it_expires() -> None:
    world = World()
    world.now = NOON - timedelta(microseconds=1)
    world.enter(READ, key("past"))
    world.now = NOON
    assert world.refused(READ, key("past")).reason is Reason.BAD_CREDENTIALS


def test_two_keys_of_one_client_are_valid_side_by_side_until_one_is_revoked() -> None:
    world = World()
    world.say(a_key("reader", Scope.SIGNALS_READ), a_key("both", Scope.SIGNALS_READ))
    for key_id in ("reader", "both"):
        world.enter(READ, key(key_id))
    world.say(a_key("both", Scope.SIGNALS_READ))
    world.enter(READ, key("both"))
    assert world.refused(READ, key("reader")).reason is Reason.BAD_CREDENTIALS


AFTERWARDS: dict[str, tuple[list[ApiKey], Reason | None]] = {
    "nothing has changed": ([a_key("both", Scope.SIGNALS_READ, Scope.SIGNALS_EMIT)], None),
    "it lost another scope": ([a_key("both", Scope.SIGNALS_READ)], None),
    "it has a rate now": ([a_key("both", Scope.SIGNALS_READ, rate=1)], None),
    "it is revoked": ([], Reason.BAD_CREDENTIALS),
    "it lost the scope": ([a_key("both", Scope.SIGNALS_EMIT)], Reason.SCOPE_MISSING),
    "it has expired": ([a_key("both", Scope.SIGNALS_READ, expires_at=NOON)], Reason.BAD_CREDENTIALS),
    "another key has its id": (
        [ApiKey(id="both", sha256=sha256_of("both.other"), scopes=frozenset(Scope))],
        Reason.BAD_CREDENTIALS,
    ),
}


@pytest.mark.parametrize("what", AFTERWARDS)
def test_a_call_goes_on_as_long_as_it_would_be_let_in(what: str) -> None:
    world = World()
    guest = world.enter(READ, key("both"))
    keys, reason = AFTERWARDS[what]
    world.say(*keys)
    if reason is None:
        world.gate.check_again(guest, READ)
        return
    with pytest.raises(ContractError) as caught:
        world.gate.check_again(guest, READ)
    assert caught.value.reason is reason


def test_above_its_rate_a_key_is_told_how_long_to_wait_and_others_are_not_slowed() -> None:
    world = World()
    world.enter(READ, key("slow"))
    world.enter(READ, key("slow"))
    refusal = world.refused(READ, key("slow"))
    assert (refusal.reason, refusal.retry_delay_s) == (Reason.RATE_LIMITED, 0.5)
    [quota] = refusal.details
    assert [each.subject for each in quota.violations] == ["key:slow"]  # type: ignore[attr-defined]
    world.enter(READ, key("reader"))
    world.seconds += 0.5
    world.enter(READ, key("slow"))


def test_a_call_that_may_not_be_made_costs_no_token() -> None:
    world = World()
    for _ in range(10):
        assert world.refused(WRITE, key("slow")).reason is Reason.SCOPE_MISSING
    world.enter(READ, key("slow"))


@pytest.mark.parametrize("rate", [2, 1000])
def test_a_change_of_the_file_gives_no_new_burst(rate: float) -> None:
    world = World()
    for _ in range(2):
        world.enter(READ, key("slow"))
    world.say(a_key("slow", Scope.SIGNALS_READ, rate=rate), a_key("reader"))
    assert world.refused(READ, key("slow")).reason is Reason.RATE_LIMITED


def test_an_open_stream_feels_a_lower_rate() -> None:
    world = World()
    guest = world.enter(READ, key("slow"))
    world.say(a_key("slow", Scope.SIGNALS_READ, rate=0.5))
    assert guest.maybe_bucket is not None
    assert [guest.maybe_bucket.reserve() for _ in range(3)] == [0, 2, 4]


def test_the_wait_that_is_told_is_never_too_short() -> None:
    world = World(keys=(a_key("slow", Scope.SIGNALS_READ, rate=3),))
    for _ in range(3):
        world.enter(READ, key("slow"))
    retry_delay_s = world.refused(READ, key("slow")).retry_delay_s
    assert retry_delay_s == 0.334
