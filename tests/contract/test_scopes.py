"""What a key needs for each call: the table that decides, the comments that tell, and the methods that are."""

import re
from collections import Counter

import pytest

from contract.scopes import SCOPES, Scope
from tests.contract.image import ROOT, comment_of, elements, methods

STATED = re.compile(r"\bScope ([a-z]+(?:\.[a-z]+)?)\.(?= |$)")


def path_of(name: str) -> str:
    """omen.v1.SignalService.Emit as it is called."""
    service, _, method = name.rpartition(".")
    return f"/{service}/{method}"


def test_every_method_of_every_service_is_in_the_table_and_nothing_else() -> None:
    assert sorted(SCOPES) == sorted(path_of(name) for name in methods())


@pytest.mark.parametrize("name", methods())
def test_the_comment_of_a_method_states_the_scope_of_the_table_and_no_other(name: str) -> None:
    assert STATED.findall(comment_of(name)) == [SCOPES[path_of(name)]]


def test_scopes_are_stated_by_methods_alone() -> None:
    stating = {element.kind for element in elements() if STATED.search(" ".join(element.comment.split()))}
    assert stating == {"rpc"}


def test_every_scope_opens_something() -> None:
    assert set(SCOPES.values()) == set(Scope)


def test_whoever_may_only_read_changes_nothing() -> None:
    """A stream that was cut may have changed something; only NO_SIDE_EFFECTS, or reading by its name, is safe."""
    reading = {Scope.SIGNALS_READ, Scope.LEDGER_READ, Scope.STATS_READ}
    streams = {"Replay", "WatchSignals"}
    changing = [
        name
        for name, method in methods().items()
        if SCOPES[path_of(name)] in reading and not (method.options.idempotency_level == 1 or method.name in streams)
    ]
    assert changing == []


def test_docs_security_lists_each_method_once_beside_its_scope() -> None:
    text = (ROOT / "docs" / "security.md").read_text("utf-8")
    rows = re.findall(r"^\| `([a-z.]+)` \| (.+?) \|$", text, re.MULTILINE)
    listed = [(f"/{service}/{method}", scope) for scope, cell in rows for service, method in listed_in(cell)]
    assert Counter(listed) == Counter((path, str(scope)) for path, scope in SCOPES.items())


def listed_in(cell: str) -> list[tuple[str, str]]:
    """`omen.v1.SignalService`: Emit, EmitStream; `riskcast.v1…`: …"""
    return [
        (service, method)
        for service, methods_told in re.findall(r"`([a-z0-9.]+\.[A-Za-z]+)`: ([A-Za-z, ]+)", cell)
        for method in methods_told.split(", ")
    ]
