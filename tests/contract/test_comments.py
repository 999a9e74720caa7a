"""The comments are the contract's prose: each thing has one, and it says what a reader must know."""

import re

import pytest
from google.rpc import code_pb2

from contract.reasons import CODES, Reason
from tests.contract.image import comment_of, elements, messages, methods

COMMON = "Answers only the common statuses"
SAID = re.compile(r"\b(Required|Optional|Output only)\b")
NAMED = re.compile(r"\b[A-Z]+(?:_[A-Z]+)+\b|\b(?:ABORTED|INTERNAL|UNAVAILABLE|UNAUTHENTICATED|UNIMPLEMENTED)\b")

STATUSES = set(code_pb2.Code.keys())
# Names in capitals that comments use and that are neither a status nor a reason.
OTHER_NAMES = {
    "LEDGER_ONLY",
    # what a ReconcileState's reason begins with, where it is no error of a call
    *("NOT_FETCHED", "CONTENT_DIFFERS", "LEDGER_REGRESSED", "LEDGER_FORKED"),
}


def statuses(comment: str) -> dict[str, set[str]]:
    """The statuses a comment names, each with the reasons in the brackets after it."""
    found: dict[str, set[str]] = {}
    for code, brackets in re.findall(r"\b([A-Z_]{5,}) \(((?:[^()]|\([^()]*\))*)\)", comment):
        if code in STATUSES:
            reasons = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)*\b", brackets))
            found.setdefault(code, set()).update(reasons & Reason.__members__.keys())
    return found


def test_everything_has_a_comment() -> None:
    assert elements()
    assert [f"{element.kind} {element.name}" for element in elements() if not element.comment] == []


def test_nothing_is_nested_so_that_every_element_is_looked_at() -> None:
    nested = [name for name, message in messages().items() if message.nested_type or message.enum_type]
    assert nested == []


def comment_of_oneof(field: str) -> str:
    """The comment of the oneof around a field; "" for a field in none."""
    message = messages()[f".{field.rpartition('.')[0]}"]
    found = next(one for one in message.field if one.name == field.rpartition(".")[2])
    if not found.HasField("oneof_index") or found.proto3_optional:
        return ""
    return comment_of(f"{field.rpartition('.')[0]}.{message.oneof_decl[found.oneof_index].name}")


def test_every_field_or_the_oneof_around_it_says_required_optional_or_output_only() -> None:
    silent = [
        element.name
        for element in elements()
        if element.kind == "field" and not SAID.search(element.comment + comment_of_oneof(element.name))
    ]
    assert silent == []


@pytest.mark.parametrize("name", methods())
def test_every_rpc_names_its_statuses_and_scope(name: str) -> None:
    comment = comment_of(name)
    assert re.search(r"\bScope [a-z.]+\.", comment)
    assert statuses(comment) or COMMON in comment or "statuses of" in comment


def test_every_service_lists_the_common_statuses() -> None:
    services = [element for element in elements() if element.kind == "service"]
    common = {"UNAUTHENTICATED", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "UNIMPLEMENTED", "INTERNAL"}
    assert services
    for service in services:
        comment = " ".join(service.comment.split())
        assert statuses(comment).keys() == common, service.name
        assert f'domain "{service.name.rpartition(".")[0]}"' in comment


def test_every_status_is_named_with_reasons_that_have_that_code() -> None:
    named = {
        (element.name, code, reason)
        for element in elements()
        for code, reasons in statuses(" ".join(element.comment.split())).items()
        for reason in reasons or {"no reason"}
    }
    assert named
    wrong = [
        place for place in named if place[2] not in CODES or code_pb2.Code.Name(CODES[Reason(place[2])]) != place[1]
    ]
    assert sorted(wrong) == []


def test_every_reason_is_named_by_some_comment() -> None:
    named = {name for element in elements() for name in NAMED.findall(element.comment)}
    assert Reason.__members__.keys() - named == set()


def test_comments_name_no_reason_or_status_that_does_not_exist() -> None:
    values = {element.name.rpartition(".")[2] for element in elements() if element.kind == "value"}
    short = {value.removeprefix("SOURCE_CLASS_") for value in values}
    known = Reason.__members__.keys() | STATUSES | values | short | OTHER_NAMES
    named = {(element.name, name) for element in elements() for name in NAMED.findall(element.comment)}
    assert sorted(place for place in named if place[1] not in known) == []
