"""A page token goes on where the page before ended, and is good for its own query alone."""

import base64

import pytest

from contract.errors import ContractError
from contract.pages import key_of_token, page_size_of, page_token
from contract.reasons import Reason


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


@pytest.mark.parametrize(("requested", "size"), [(0, 100), (1, 1), (1000, 1000)])
def test_a_page_size_of_zero_is_the_default_and_the_most_is_1000(requested: int, size: int) -> None:
    assert page_size_of(requested) == size


@pytest.mark.parametrize("requested", [-1, 1001])
def test_another_page_size_is_refused(requested: int) -> None:
    with pytest.raises(ContractError) as caught:
        page_size_of(requested)
    assert caught.value.reason == Reason.INVALID_SIGNAL
    assert [violation.field for violation in caught.value.violations] == ["page_size"]


@pytest.mark.parametrize("key", ["", "2026-01-29-late", "é|\n"])
def test_a_token_gives_its_key_back(key: str) -> None:
    token = page_token("ListPartitions", key)
    assert token.isascii()
    assert key_of_token("ListPartitions", token) == key


def test_no_token_is_the_first_page() -> None:
    assert key_of_token("ListPartitions", "") == ""


@pytest.mark.parametrize(
    "token",
    [
        page_token("ListSignals", "a"),
        page_token("ListPartitions", "a")[:-5],
        "x",
        "é",
        encoded("5"),
        encoded("[]"),
        encoded('["a"]'),
        encoded('{"a": 1, "b": 2}'),
        encoded("[" * 100_000),
        base64.urlsafe_b64encode(b"\xff\xff").decode(),
    ],
    ids=lambda token: token[:12],
)
def test_a_token_that_is_not_of_this_query_is_refused(token: str) -> None:
    with pytest.raises(ContractError) as caught:
        key_of_token("ListPartitions", token)
    assert caught.value.reason == Reason.INVALID_PAGE_TOKEN
